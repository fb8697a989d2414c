"""The parts of the page that need no server: the line, the door, the store of uploads, the numbers that are sent."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from manymask.errors import InputError
from manymask.inference.segmenter import Segmenter
from manymask.io.image import Picture
from manymask.serving import saving, service
from manymask.serving.guard import Departures, RequestGuard
from manymask.serving.request_queue import LeftError, RequestQueue, StoppedError
from manymask.serving.uploads import KEPT, RESULT_KEPT, Uploads, UploadStore

# the line ------------------------------------------------------------------------------------------------------------


def test_line_lets_one_draw_after_the_other_in_order():
    line = RequestQueue(longest=5, each=5)
    with line.place("a", "one") as first, line.place("b", "two") as second:
        assert (first.ahead(), second.ahead()) == (0, 1)
        line.stop("b")
        first.wait()
        with pytest.raises(StoppedError):
            second.wait()
    with line.place("c", "one") as third:
        assert third.ahead() == 0, "places are given up"


def test_line_wakes_who_comes_next():
    line, drew = RequestQueue(5, 5), threading.Event()

    def second():
        with line.place("b", "two") as ticket:
            ticket.wait()
            drew.set()

    with line.place("a", "one"):
        other = threading.Thread(target=second)
        other.start()
        assert not drew.wait(0.1)
    assert drew.wait(5)
    other.join()


def test_line_is_bounded_in_all_and_per_client():
    line = RequestQueue(longest=2, each=2)
    with line.place("a", "x"), line.place("b", "x"):
        with pytest.raises(InputError, match="2 drawings of yours"), line.place("c", "x"):
            pass
        with (
            line.place("d", "y"),
            pytest.raises(InputError, match="queue is full: 2 are waiting"),
            line.place("e", "z"),
        ):
            pass


def test_who_leaves_ends_the_drawing_and_who_never_listens_too(monkeypatch):
    monkeypatch.setattr("manymask.serving.request_queue.SILENCE", 0.02)
    line = RequestQueue(5, 5)
    with (
        line.place("a", "x") as ticket,
        line.place("b", "x", heard=False) as silent,
        line.place("c", "x", False) as heard,
    ):
        line.listen("c")
        ticket.check()
        time.sleep(0.03)
        with pytest.raises(LeftError):
            silent.check()
        heard.check()
        line.leave("a")
        with pytest.raises(LeftError):
            ticket.check()


def test_closing_line_lets_the_first_finish_and_takes_nobody():
    line = RequestQueue(5, 5)
    with ThreadPoolExecutor(1) as pool:
        with line.place("a", "x") as first, line.place("b", "x") as second:
            closing = pool.submit(line.close, 30)
            while not second.ended:
                time.sleep(0.01)
            first.check()
            with pytest.raises(InputError, match="server is closing"):
                second.check()
            with pytest.raises(InputError, match="server is closing"), line.place("c", "y"):
                pass
        assert closing.result()


def test_closing_line_ends_at_last_who_does_not_finish(monkeypatch):
    monkeypatch.setattr("manymask.serving.request_queue.LAST", 0.01)
    line = RequestQueue(5, 5)
    with line.place("a", "x") as ticket:
        assert not line.close(0.01)
        with pytest.raises(InputError, match="server is closing"):
            ticket.check()
    assert line.close(0.01)


def test_list_goes_no_further_once_the_line_is_closed(monkeypatch):
    monkeypatch.setattr("manymask.serving.request_queue.LAST", 0.01)
    line = RequestQueue(5, 5)
    with line.place("a list", "x") as ticket:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(line.close, 0.2)
            while not line.closed:
                time.sleep(0.001)
            ticket.check()
            ticket.step_back()
        with pytest.raises(InputError, match="server is closing"):
            ticket.check()


# the door ------------------------------------------------------------------------------------------------------------


async def _inside(scope, receive, send):
    if scope["path"] == "/broken":
        raise RuntimeError("MUSTERFRAU^ERIKA")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(app, method="GET", path="/", body=(b"",), client="1.2.3.4", **headers):
    """Status, headers and body of the answer."""
    sent, parts = [], list(body)
    named = {"host": "127.0.0.1:7860", **headers}
    scope = {"type": "http", "method": method, "path": path, "server": ("127.0.0.1", 7860), "client": (client, 1),
             "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in named.items()]}  # fmt: skip

    async def receive():
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:]).decode()


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "LOCALHOST", "page.clinic.org", "10.0.0.5:80"]
)
def test_door_serves_own_names(host):
    assert ask(RequestGuard(_inside, ["10.0.0.5", "page.clinic.org"]), host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "", "10.0.0.6"]
)
def test_door_refuses_other_names(host):
    status, _, text = ask(RequestGuard(_inside, ["10.0.0.5"]), host=host)
    assert status == 421 and "--allow-host" in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({}, 200),  # no browser
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
    ],
)
def test_door_takes_posts_from_the_page_itself_alone(headers, status):
    assert ask(RequestGuard(_inside, []), "POST", **headers)[0] == status
    assert ask(RequestGuard(_inside, []), "GET", **headers)[0] == 200


def test_door_adds_headers_and_logs_no_text(capsys):
    _, headers, _ = ask(RequestGuard(_inside, []))
    assert "frame-ancestors 'none'" in headers[b"content-security-policy"].decode()
    assert headers[b"x-frame-options"] == b"DENY" and headers[b"x-content-type-options"] == b"nosniff"
    status, headers, text = ask(RequestGuard(_inside, []), path="/broken")
    logged = capsys.readouterr().err
    assert status == 500 and b"content-security-policy" in headers
    assert "MUSTERFRAU" not in text + logged and "RuntimeError at test_page_parts.py" in logged


def test_policy_names_no_other_host():
    _, headers, _ = ask(RequestGuard(_inside, []))
    assert "http" not in headers[b"content-security-policy"].decode()


def test_departures_are_told():
    event, told = "0123456789abcdef" * 2, []
    app = Departures(_inside, lambda name: told.append(("came", name)), lambda name: told.append(("left", name)))
    ask(app, path=f"/gradio_api/call/segment/{event}")
    ask(app, path="/gradio_api/queue/data")
    ask(app, "POST", path=f"/gradio_api/call/segment/{event}")
    assert told == [("came", event), ("left", event)]


# uploads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask_it", [lambda store: store.held(), lambda store: store.sweep(time.time())])
def test_folder_that_goes_while_the_store_is_read_is_no_error(tmp_path, monkeypatch, ask_it):
    """A visit ends, and takes its folder along, while another upload counts what is held."""
    for name in ("stays", "goes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(b"1234")
    scandir = os.scandir

    def gone(path):
        if Path(path).name == "goes" and Path(path).exists():
            (Path(path) / "image.png").unlink()
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    store = UploadStore(tmp_path, most=1000, each=2)
    ask_it(store)
    assert not (tmp_path / "goes").exists() and store.held() == 4


def test_store_is_bounded_in_sum_and_per_client(tmp_path):
    store = UploadStore(tmp_path, most=1000, each=2)
    assert store.refusal("a", 900) is None
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(300))
        store.record([tmp_path / name], "a")
    assert store.refusal("a", 1)[0] == 429 and store.refusal("b", 1) is None
    assert store.refusal("b", 401)[0] == 507
    (tmp_path / "two").unlink()
    assert store.refusal("a", 1) is None, "what is gone does not count"


def test_uploads_are_counted_by_what_the_answer_names(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")

    async def upload(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f'["{tmp_path / "a.png"}"]'.encode()})

    app = Uploads(upload, 1000, UploadStore(tmp_path, 1000, 1))
    assert ask(app, "POST", "/gradio_api/upload", client="9.9.9.9")[0] == 200
    assert ask(app, "POST", "/gradio_api/upload", client="9.9.9.9")[0] == 429
    assert ask(app, "POST", "/gradio_api/upload", client="8.8.8.8")[0] == 200


def test_full_disk_is_a_sentence(tmp_path):
    async def full(scope, receive, send):
        raise OSError(28, "No space left on device")

    status, _, text = ask(Uploads(full, 1000, UploadStore(tmp_path, 1000, 5)), "POST", "/gradio_api/upload")
    assert status == 507 and "disk is full" in text


def test_sweep_removes_results_soon_and_uploads_after_an_hour(tmp_path):
    now = time.time()
    for name, age in (
        ("r/new.zip", 1),
        ("s/old.zip", RESULT_KEPT + 5),
        ("t/new.png", RESULT_KEPT + 5),
        ("u/old.png", KEPT + 5),
    ):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(b"1")
        os.utime(path, (now - age, now - age))
    UploadStore(tmp_path, 1, 1).sweep(now)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"new.zip", "new.png"}


# what is drawn and sent ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawing(drawing_model):
    """Scene and drawing of an image that is not of the model's size."""
    picture = Picture(np.random.default_rng(0).integers(0, 256, (90, 130), dtype=np.uint8), "lesion", notes=("a note",))
    segmenter = Segmenter.from_pretrained(str(drawing_model))
    subject = service.Subject(picture, picture, "lesion.png", ("left out",))
    *_, (scene, _, done) = service.draw_scene(segmenter, subject, service.SegmentRequest(samples=3), service.Limits())
    return scene, done


def test_curve_of_the_slider_is_the_area_of_the_result_at_every_stop(drawing):
    scene, done = drawing
    assert len(set(scene.curve)) > 20, "the masks are neither empty nor full"
    assert scene.curve[1:100] == [int(done.result(k / 100).consensus.sum()) for k in range(1, 100)]


@pytest.mark.parametrize("threshold", [0.125, 0.333, 0.005, 0.996, 0.5])
def test_answer_result_and_picture_agree_at_any_threshold(drawing, tmp_path, threshold):
    import zipfile

    from PIL import Image

    scene, done = drawing
    archive, facts = saving.pack(done, threshold, "PNG", tmp_path)
    with zipfile.ZipFile(archive) as file, file.open("lesion/consensus.png") as png:
        shown = int((np.asarray(Image.open(png)) > 0).sum())
    assert facts["area_consensus"] == shown == int((done.result(0.5).confidence >= threshold).sum())
    assert facts["threshold"] == threshold and facts["pairwise_iou"] == scene.agreement
    assert facts["warnings"][:2] == ["left out", "a note"] and facts["source"]["file"] == "lesion.png"
    assert set(scene.warnings) >= {"left out", "a note"}


def test_stopped_drawing_keeps_the_masks_that_are_there(drawing_model):
    picture = Picture(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8), "lesion")
    segmenter, steps = Segmenter.from_pretrained(str(drawing_model)), []

    def check():
        steps.append(1)
        if len(steps) > 4:  # three steps a mask
            raise StoppedError

    *_, (scene, share, done) = service.draw_scene(
        segmenter, service.Subject(picture, picture), service.SegmentRequest(samples=5), service.Limits(), check
    )
    assert done.record.samples == len(scene.areas) == 1 and share == 1 and scene.forms[0] == "PNG"
    assert torch.equal(done.drawn, torch.cat(list(segmenter.draw(done.view, 1)), dim=1))


def test_claimed_size_is_checked_before_pixels_are_read(tmp_path):
    """Of NIfTI too: what the header claims counts."""
    nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    image = nibabel.Nifti1Image(np.zeros((6000, 5000, 1), np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "large.nii.gz")
    with pytest.raises(InputError, match=r"6000×5000 pixels; this server takes up to 25 million"):
        service.open_files([tmp_path / "large.nii.gz"], service.Limits())


def test_bad_file_leaves_the_others_alone(tmp_path):
    from PIL import Image

    Image.effect_noise((40, 40), 50).save(tmp_path / "good.png")
    (tmp_path / "notes.txt").write_text("hello")
    opened = service.open_files([tmp_path / "good.png", tmp_path / "notes.txt"], service.Limits())
    assert len(opened) == 1 and opened.kind == "Image" and "notes.txt is not an image" in opened.notices[0]
    with pytest.raises(InputError, match=r"notes\.txt is not an image"):
        service.open_files([tmp_path / "notes.txt"], service.Limits())
