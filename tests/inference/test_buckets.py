"""`manymask segment` with `s3://` addresses, on one machine and on Ray, against moto's S3 server in an environment of its own.

The server runs in another process, with packages that these tests do not import: that of `make test`, or the one that the
variable MOTO_SERVER names (`python -m venv moto && moto/bin/pip install 'moto[server,s3]'`).
"""

import csv
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manymask.data.datasets import phantom
from manymask.errors import InputError
from tests.factories import run

pytest.importorskip("pyarrow", reason="the extra `buckets` is not installed")
SERVER = os.environ.get("MOTO_SERVER") or str(Path(sys.prefix) / "s3/bin/moto_server")
if not Path(SERVER).exists():
    pytest.skip(
        "there is no S3 server: pip install 'moto[server,s3]' in an environment of its own", allow_module_level=True
    )
IMAGES = 5


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def s3():
    """An S3 server and its file system, which the standard variables name."""
    from manymask.io.remote import open_system

    port = free_port()
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        from pyarrow.fs import S3FileSystem

        S3FileSystem(endpoint_override=f"http://127.0.0.1:{port}", allow_bucket_creation=True).create_dir("scans")
        yield open_system("s3://scans")[0]
    process.terminate()
    process.wait(20)


def png(number):
    content = io.BytesIO()
    Image.fromarray(phantom.draw(number).image[:, :, 0]).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def images(s3, tmp_path_factory):
    """The same images in a bucket and in a folder, with names that are no plain ones, and a broken image."""
    folder = tmp_path_factory.mktemp("images")
    names = [f"a b/image#{number}.png" for number in range(IMAGES - 1)] + ["ä?.png"]
    contents = {name: png(number) for number, name in enumerate(names)} | {"broken.png": png(9)[:60]}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        s3.pipe_file(f"scans/skin/{name}", content)
    s3.pipe_file("scans/skin/notes.txt", b"not an image")
    s3.pipe_file("scans/skinny/other.png", png(77))  # a neighbour whose name begins alike
    return folder


def objects(s3, place):
    from manymask.io.remote import files_below

    return {name.removeprefix(f"{place}/"): s3.cat_file(name) for name in files_below(s3, place)}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def job(s3, images, drawing_model):
    """OUT in the bucket of a run over the bucket; its status, and what it printed."""
    ask = ("segment", "s3://scans/skin", "-m", drawing_model, "-n", 2, "--seed", 3, "--engine", "torch")
    command = [*ask, "--out", "s3://scans/out"]
    with pytest.MonkeyPatch.context() as patch:
        printed = io.StringIO()
        patch.setattr("sys.stderr", printed)
        status = run(patch, *command)
    return command, status, printed.getvalue()


def test_results_in_a_bucket_are_those_in_a_folder(s3, images, job, drawing_model, tmp_path, monkeypatch):
    command, status, _ = job
    assert run(monkeypatch, "segment", images, *command[2:-1], tmp_path / "out") == status == 2  # one is broken
    found, expected = objects(s3, "scans/out"), tmp_path / "out"
    assert set(found) == {path.relative_to(expected).as_posix() for path in expected.rglob("*") if path.is_file()}
    for name, content in found.items():
        if name.endswith(".png"):
            assert np.array_equal(pixels(content), pixels((expected / name).read_bytes())), name
    own = ("created", "seconds")
    for name in (name for name in found if name.endswith("result.json")):
        one, other = json.loads(found[name]), json.loads((expected / name).read_text())
        assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}
    rows = list(csv.DictReader(io.StringIO(found["summary.csv"].decode())))
    assert sorted(row["input"] for row in rows) == sorted(
        path.relative_to(images).as_posix() for path in images.rglob("*.png") if path.name != "broken.png"
    )


def test_messages_name_the_address_and_no_local_copy(job):
    _, status, printed = job
    assert status == 2
    assert "s3://scans/skin/broken.png" in printed and "/manymask-" not in printed


def test_results_stay_if_the_same_command_goes_on(s3, images, job, monkeypatch, capsys):
    command, _, _ = job
    before = objects(s3, "scans/out")
    lost = next(name for name in before if name.startswith("image#2/result.json"))
    s3.rm_file(f"scans/out/{lost}")  # as if it had been ended while it wrote this result
    assert run(monkeypatch, *command, "--continue") == 2
    told = capsys.readouterr().out
    assert f"{IMAGES} of {IMAGES + 1} image(s) segmented → s3://scans/out" in told
    assert f"{IMAGES - 1} image(s) were segmented in the same way before" in told
    after = objects(s3, "scans/out")
    assert set(after) == set(before)
    same = [name for name in before if not name.startswith("image#2/")]
    assert all(after[name] == before[name] for name in same)


def test_result_is_whole_or_has_no_result_json(s3, images, job, monkeypatch, capsys):
    """The upload breaks off in the middle of the second result: that one does not count, and the run says so."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    command, _, _ = job
    original, seen = ArrowFSWrapper.pipe_file, []

    def breaks(self, path, value, **how):
        if path.startswith("scans/cut/"):
            seen.append(path)
            results = {name.split("/")[2] for name in seen}
            if len(results) > 1 and path.endswith("mask-02.png"):
                raise OSError("When uploading part: AWS Error NETWORK_CONNECTION")
        return original(self, path, value, **how)

    monkeypatch.setattr(ArrowFSWrapper, "pipe_file", breaks)
    assert run(monkeypatch, *command[:-1], "s3://scans/cut") == 2
    assert "AWS Error NETWORK_CONNECTION: stopped" in capsys.readouterr().err
    found = objects(s3, "scans/cut")
    whole = [name for name in found if name.endswith("result.json")]
    assert len(whole) == 1
    monkeypatch.setattr(ArrowFSWrapper, "pipe_file", original)
    assert run(monkeypatch, *command[:-1], "s3://scans/cut", "--continue") == 2
    assert "1 image(s) were segmented in the same way before" in capsys.readouterr().out
    assert set(objects(s3, "scans/cut")) == set(objects(s3, "scans/out"))


def test_changed_settings_replace_results_with_all_their_files(s3, images, job, monkeypatch, capsys):
    command, _, _ = job
    assert run(monkeypatch, "segment", "s3://scans/skin/ä?.png", *command[2:-1], "s3://scans/one") == 0
    names = {name.rpartition("/")[2] for name in objects(s3, "scans/one")}
    assert {"mask-01.png", "mask-02.png", "result.json", "summary.csv"} <= names
    fewer = [*command[2:-1]]
    fewer[fewer.index("-n") + 1] = 1
    assert run(monkeypatch, "segment", "s3://scans/skin/ä?.png", *fewer, "s3://scans/one") == 0
    assert "1 earlier result(s) of the same images replaced" in capsys.readouterr().out
    assert {name.rpartition("/")[2] for name in objects(s3, "scans/one")} == names - {"mask-02.png"}


def test_addresses_of_nothing_are_told_in_one_line(s3, images, job, monkeypatch, capsys):
    command, _, _ = job
    for address in ("s3://scans/nothing", "s3://no-such-bucket/skin"):
        assert run(monkeypatch, "segment", address, *command[2:-1], "s3://scans/none") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"manymask: {address}: ")
    from manymask.io.remote import open_system

    with pytest.raises(InputError, match="names no bucket"):
        open_system("s3://")


@pytest.mark.timeout(900)
def test_ray_reads_and_writes_buckets_and_goes_on(s3, images, drawing_model):
    """One core of a local Ray, whose workers take the variables of this process."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    import pyarrow.dataset as table

    from manymask.inference.cluster import segment_on_ray
    from manymask.inference.request import Request

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=1, log_to_driver=False, logging_level="ERROR", object_store_memory=100_000_000)
    try:

        def draw():
            return segment_on_ray(["s3://scans/skin"], str(drawing_model), Request(Path(), 2, 3), "s3://scans/table")

        first = draw()
        s3.pipe_file("scans/skin/new.png", png(50))
        second = draw()
    finally:
        ray.shutdown()
        s3.rm_file("scans/skin/new.png")
    assert (first.done, first.failed, first.reused) == (IMAGES, 1, 0)
    assert (second.done, second.failed, second.reused) == (IMAGES + 1, 1, IMAGES)
    names = s3.glob("scans/table/*.parquet")
    rows = table.dataset(names, filesystem=s3).to_table().to_pylist()
    drawn = [row["input"] for row in rows if row["error"] is None]
    assert sorted(drawn) == sorted(
        f"s3://scans/skin/{name}"
        for name in [*(f"a b/image#{number}.png" for number in range(IMAGES - 1)), "ä?.png", "new.png"]
    )
    (failed,) = [row for row in rows if row["error"] is not None]
    assert failed["input"] == "s3://scans/skin/broken.png"
