"""`manymask serve` over HTTP: what a caller gets, what is refused and how, what stays behind."""

import base64
import json
import signal
import socket
import sys
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.errors import ManymaskError
from manymask.serving import service
from manymask.serving.service import Limits
from tests.factories import run

gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")


@pytest.fixture
def image(tmp_path) -> Path:
    """Larger than the region of the crop model."""
    pixels = np.asarray(Image.fromarray(phantom.draw(1).image[:, :, 0]).resize((150, 90)))
    Image.fromarray(pixels).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


def call(client, *paths, **wanted):
    files = [gradio_client.handle_file(str(path)) for path in paths]
    return client.predict(paths=files, **{"model": "whole", "samples": 2, **wanted}, api_name="/segment")


def test_caller_gets_the_masks_that_segment_draws(client, page_server, image, tmp_path):
    facts, archive = call(client, image, samples=3, seed=4, threshold=0.4)
    expected = Segmenter.from_pretrained(str(page_server.models / "whole")).segment(image, 3, 4, threshold=0.4)
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    for k in range(3):
        drawn = np.asarray(Image.open(tmp_path / f"lesion/mask-{k + 1:02}.png")) > 0
        assert (drawn != (expected.masks[k] >= 0.5).numpy()).mean() < 1e-3
    assert abs(facts["area_consensus"] - int(expected.consensus.sum())) <= 5
    result = json.loads((tmp_path / "lesion/result.json").read_text())
    assert result["threshold"] == 0.4 and result["seed"] == 4 and facts["samples"] == len(facts["areas"]) == 3
    assert facts == {**result, "agreement": result["pairwise_iou"], "saved_as": "PNG"}


def promised(promises):
    """Numbers alone, flat, to be compared."""
    rows = [promises["worst"], *promises["regions"], *promises["outlines"]]
    return [float(row[name]) for row in rows for name in sorted(row)]


def test_page_program_and_command_line_promise_the_same(client, page_server, image, tmp_path, monkeypatch):
    model = page_server.models / "calibrated"
    facts, archive = call(client, image, model="calibrated", samples=5)
    assert run(monkeypatch, "segment", image, "--model", model, "--out", tmp_path / "out") == 0
    told = json.loads((tmp_path / "out/lesion/result.json").read_text())
    segmenter = Segmenter.from_pretrained(str(model))
    opened = service.open_files([image], Limits())
    subject = service.Subject(opened.picture(1, ""), opened.picture(1, ""), "lesion.png")
    *_, (scene, _, _) = service.draw_scene(segmenter, subject, service.SegmentRequest(5, 0), Limits())
    for found in (facts["promises"], scene.value()["promises"], segmenter.segment(image).promises()):
        assert promised(found) == pytest.approx(promised(told["promises"]), rel=1e-3, abs=2)
        assert promised({**found, "outlines": []}) == pytest.approx(
            promised({**told["promises"], "outlines": []}), rel=1e-3
        )
        assert found["worst"]["foreign"] is True and found["on"] == told["promises"]["on"]
    assert facts["warnings"] == told["warnings"] and "unlike the training images" in told["warnings"][0]
    with zipfile.ZipFile(archive) as file:
        names = {Path(name).name for name in file.namelist()}
    assert (
        names
        == {path.name for path in (tmp_path / "out/lesion").iterdir()}
        >= {"inner.png", "outer.png", "probability.png"}
    )
    grid = np.frombuffer(zlib.decompress(base64.b64decode(scene.promised[1][1])), np.uint8)
    assert (grid >= 128).sum() == scene.promises["outlines"][1]["outer_area"], "the page draws what is written"


def test_model_that_is_not_calibrated_says_so_to_programs(client, image):
    facts, archive = call(client, image)
    assert facts["promises"]["calibrated"] is False and "not calibrated" in facts["promises"]["why_not"]
    with zipfile.ZipFile(archive) as file:
        assert not [name for name in file.namelist() if "inner" in name or "outer" in name]


def test_documented_endpoints_are_the_only_public_ones(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/segment", "/triage", "/models"}
    assert client.predict(api_name="/models")["crops"]["regions"] is True
    documented = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text()
    parameters = client.view_api(return_format="dict")["named_endpoints"]["/segment"]["parameters"]
    for parameter in parameters:
        assert f"`{parameter['parameter_name']}`" in documented


def test_model_of_crops_needs_a_region_and_says_so(client, image):
    with pytest.raises(Exception, match="say where to look"):
        call(client, image, model="crops")
    facts, _ = call(client, image, model="crops", regions="40,40; 110,45")
    assert facts["rois"] == [[40, 40], [110, 45]] and max(facts["areas"]) <= 2 * 64 * 64


def test_nifti_comes_back_as_nifti(client, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    volume = np.stack([phantom.draw(k).image[:, :, 0].T for k in range(3)], axis=2)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.diag([0.5, 2, 3, 1])), tmp_path / "scan.nii.gz")
    facts, archive = call(client, tmp_path / "scan.nii.gz", slice_number=3, form="NIfTI")
    assert facts["spacing"] == [2.0, 0.5]
    assert "This is slice 3 of 3: slice_number chooses another." in facts["warnings"]
    with zipfile.ZipFile(archive) as file:
        names = {Path(name).name for name in file.namelist()}
    assert {"mask-01.nii.gz", "consensus.nii.gz", "confidence.nii.gz", "mask-01.png", "result.json"} <= names


def write(path: Path, kind: str) -> Path:
    if kind == "text":
        path.write_text("not an image")
    elif kind == "cut":
        Image.effect_noise((300, 300), 50).save(path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif kind == "bomb":  # 20,000 × 20,000 black pixels in half a megabyte
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "large":
        wide = Image.new("1", (6000, 5000))
        wide.putpixel((1, 1), 1)
        wide.save(path)
    elif kind == "point":
        Image.new("L", (1, 1)).save(path)
    elif kind == "flat":
        Image.new("L", (70, 70), 9).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "wanted", "message"),
    [
        ("text", {}, "bad.png is not an image"),
        ("cut", {}, "bad.png is damaged"),
        ("bomb", {}, "more than 100 million pixels"),
        ("large", {}, r"6000×5000 pixels; this server takes up to 25 million"),
        ("point", {}, "flat"),
        ("flat", {}, "flat"),
        ("good", {"samples": 99}, "[Mm]aximum|choose 1 to 16 masks"),
        ("good", {"steps": 999.5, "seed": -1}, "[Mm]inimum|whole numbers|seed"),
        ("good", {"regions": "here"}, "'here' is no region"),
        ("good", {"regions": "1,1"}, "segments whole images"),
        ("good", {"seed": 2**64}, "the seed must lie between"),
        ("good", {"threshold": 2}, "threshold must lie between 0 and 1"),
        ("good", {"form": "DICOM SEG"}, "DICOM SEG needs another source"),
        ("good", {"slice_number": 2}, "there is no slice 2"),
        ("good", {"left_out": "3"}, "masks to leave out have numbers from 1 to 2"),
        ("good", {"left_out": "1; 2"}, "at least one mask must count"),
        ("good", {"left_out": "one"}, "whole numbers, such as"),
        ("good", {"accepted": "yes"}, "JSON list of strokes"),
        ("good", {"model": "../../etc"}, "is not in the list|there is no model"),
        ("good", {"sampler": "magic"}, "no sampler 'magic'; choose one of the model's own, DDIM"),
    ],
)
def test_what_cannot_be_done_is_one_clear_message(client, page_server, image, tmp_path, kind, wanted, message):
    path = image if kind == "good" else write(tmp_path / "bad.png", kind)
    with pytest.raises(Exception, match=message) as error:
        call(client, path, **wanted)
    said = str(error.value)
    assert str(page_server.folder) not in said and "Traceback" not in said and len(said) < 400


def test_server_fetches_nothing_from_an_address(client, page_server):
    far = {"path": "http://example.org/lesion.png", "meta": {"_type": "gradio.FileData"}}
    data = [[far], "whole", 1, 0, "the model's own", 0, "", "", 1, 0.5, "PNG", "", "", 0]
    asked = httpx.post(f"{page_server.url}/gradio_api/call/segment", json={"data": data})
    told = httpx.get(f"{page_server.url}/gradio_api/call/segment/{asked.json()['event_id']}", timeout=60).text
    assert "event: error" in told and "example.org" not in told
    assert "example.org" not in page_server.log.read_text()


def test_files_of_the_server_are_out_of_reach(client, page_server, image):
    inside = page_server.models / "whole" / "config.json"
    for path in ("/etc/passwd", str(inside), "../../../etc/passwd", "/proc/self/environ"):
        assert httpx.get(f"{page_server.url}/gradio_api/file={path}").status_code in (403, 404)
    for path in ("/etc/passwd", str(inside)):
        data = {"path": path, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(Exception) as error:
            client.predict(paths=[data], model="whole", api_name="/segment")
        assert "root:" not in str(error.value) and "recipe" not in str(error.value)


def test_upload_beyond_the_limit_is_refused_before_it_is_kept(page_server):
    before = sum(page_server.held().values())
    answer = httpx.post(
        f"{page_server.url}/gradio_api/upload", files={"files": ("big.png", bytes(4_000_000))}, timeout=60
    )
    after = sum(page_server.held().values())
    assert answer.status_code == 413 and after - before < 3_000_000


@pytest.mark.parametrize("announced", [True, False])
def test_many_files_at_once_are_refused_before_they_are_kept(page_server, announced):
    def held():
        return sum(page_server.held().values())

    before = held()
    parts = [("files", (f"{k}.png", bytes(2_900_000))) for k in range(4)]
    request = httpx.Request("POST", f"{page_server.url}/gradio_api/upload", files=parts)
    headers = {"content-type": request.headers["content-type"]}
    body = request.read() if announced else iter([request.read()[i : i + 65536] for i in range(0, 11_700_000, 65536)])
    answer = httpx.post(request.url, content=body, headers=headers, timeout=60)
    assert answer.status_code == 413
    assert held() - before < 9_000_000 and "Traceback" not in page_server.log.read_text()
    assert httpx.get(page_server.url).status_code == 200


def test_program_that_passes_a_path_is_answered_in_words(client, page_server):
    """Not with nothing, and its path, which may name a patient, is not logged."""
    for paths in (["/data/MUSTERFRAU_Erika.dcm"], ["MUSTERFRAU"], [{"path": "/data/MUSTERFRAU_Erika.dcm"}]):
        data = [paths, "whole", 1, 0, "", 0, "", "", 1, 0.5, "PNG", "", "", 0]
        event = httpx.post(f"{page_server.url}/gradio_api/call/segment", json={"data": data}).json()["event_id"]
        told = httpx.get(f"{page_server.url}/gradio_api/call/segment/{event}", timeout=60).text
        assert "event: error" in told and "handle_file" in told
    logged = page_server.log.read_text()
    assert "MUSTERFRAU" not in logged and "Traceback" not in logged


def test_upload_that_breaks_off_leaves_nothing(page_server):
    def held():
        return set(page_server.held())

    before = held()
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="MUSTERFRAU.png"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", page_server.port)) as line:
        line.sendall(head.encode() + bytes(500_000))
        for _ in range(300):
            if held() - before:
                break
            time.sleep(0.1)
        assert held() - before, "the upload has begun"
    for _ in range(300):
        if not held() - before:
            break
        time.sleep(0.1)
    assert not held() - before
    logged = page_server.log.read_text()
    assert "Traceback" not in logged and "MUSTERFRAU" not in logged


def test_page_is_served_under_its_own_names_and_in_no_frame(page_server):
    assert httpx.get(page_server.url, headers={"Host": "evil.example"}).status_code == 421
    answer = httpx.get(page_server.url)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    parts = {"files": ("a.png", b"1")}
    foreign = httpx.post(f"{page_server.url}/gradio_api/upload", files=parts, headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403


def begin(server, client, image, samples=16, steps=1000):
    """The id of a long drawing that has begun."""
    file = gradio_client.handle_file(str(image))
    with image.open("rb") as content:
        path = httpx.post(f"{server.url}/gradio_api/upload", files={"files": (image.name, content)}).json()[0]
    data = [[{**file, "path": path}], "whole", samples, 0, "DDPM", steps, "", "", 1, 0.5, "PNG", "", "", 0]
    return httpx.post(f"{server.url}/gradio_api/call/segment", json={"data": data}).json()["event_id"]


def test_caller_who_leaves_frees_the_line(client, page_server, image):
    start = time.monotonic()
    call(client, image, samples=1, sampler="DDPM", steps=200)
    short = time.monotonic() - start  # the long drawing takes 80 times as long
    event = begin(page_server, client, image)
    with httpx.stream("GET", f"{page_server.url}/gradio_api/call/segment/{event}", timeout=60) as answer:
        assert answer.status_code == 200
        time.sleep(0.5)
    start = time.monotonic()
    call(client, image, samples=1, sampler="DDPM", steps=200)
    assert time.monotonic() - start < 15 * short


def test_server_whose_drawing_does_not_end_in_time_ends_quietly(client, tmp_path, image):
    from tests.page_server import serving

    with serving(tmp_path, "--grace-seconds", "1") as server:
        event = begin(server, client, image)
        with httpx.stream("GET", f"{server.url}/gradio_api/call/segment/{event}", timeout=60) as answer:
            time.sleep(0.5)
            server.process.send_signal(signal.SIGINT)
            told = "".join(answer.iter_text())
        assert "server is closing" in told and server.process.wait(60) == 0


@pytest.mark.parametrize("port", [0, 80_000, -1])
def test_port_out_of_range_is_one_line(port):
    from manymask.serving.server import serve

    with pytest.raises(ManymaskError, match="--port must lie in 1 … 65535"):
        serve([], "127.0.0.1", port, Limits())


def test_only_this_computer_is_served_unless_told(page_server):
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("/proc/net/tcp is Linux's")
    addresses = {line.split()[1] for line in table.read_text().splitlines()[1:] if line.split()[3] == "0A"}
    assert {a for a in addresses if a.endswith(f":{page_server.port:04X}")} == {f"0100007F:{page_server.port:04X}"}


def test_many_at_once_get_an_answer_or_a_polite_refusal(client, page_server, image):
    """One drawing at a time, twenty in line, the others are asked to come again; and the server goes on."""
    with ThreadPoolExecutor(35) as pool:
        jobs = [pool.submit(call, client, image, samples=1, steps=1, seed=k) for k in range(35)]
        errors = [str(job.exception()) for job in jobs if job.exception() is not None]
    assert not [error for error in errors if "full" not in error.lower()]
    assert 35 - len(errors) >= 15
    assert len(call(client, image)[0]["areas"]) == 2
    said = page_server.log.read_text()
    assert "Traceback" not in said, said[max(0, said.find("Traceback") - 500) :][:4000]


def test_uploads_go_when_the_visit_ends(page_server, image):
    name = "leaves-nothing.png"
    path = image.rename(image.with_name(name))
    visitor = gradio_client.Client(page_server.url, verbose=False)
    call(visitor, path)
    held = [path.name for path in page_server.held()]
    assert name in held and "leaves-nothing.zip" in held
    visitor.close()
    for _ in range(300):
        if not [path for path in page_server.held() if path.name.startswith("leaves-nothing")]:
            return
        time.sleep(0.1)
    pytest.fail("the upload is still there")


def test_without_gradio_the_extra_is_named(monkeypatch, tmp_path):
    from manymask.serving.server import serve

    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "manymask.serving.app", raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with pytest.raises(ManymaskError, match=r"manymask\[app\]"):
        serve([tmp_path], "127.0.0.1", 1, Limits())
