"""`segment --on ray` on two nodes of a local Ray cluster, one of which is killed while it draws: each image has one row."""

import json
import os
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manymask.data.datasets import phantom
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError
from tests.factories import run

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
IMAGES, STEPS = 100, 20
pytestmark = pytest.mark.timeout(900)  # on a busy core most of it is the start of processes


def rows(out, kind="part"):
    """The rows of a table by their inputs; each input has one."""
    found = [row for path in sorted(out.glob(f"{kind}-*.parquet")) for row in pq.read_table(path).to_pylist()]
    names = [Path(row["input"]).name for row in found]
    assert len(set(names)) == len(names), "an image has two rows"
    return dict(zip(names, found, strict=True))


def pixels(png):
    return np.asarray(Image.open(BytesIO(png)))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of small images, with a broken and a flat one, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        Image.fromarray(phantom.draw(number).image[:, :, 0]).save(folder / f"image-{number:03}.png")
    (folder / "broken.png").write_bytes((folder / "image-000.png").read_bytes()[:60])
    Image.new("L", (64, 64), 7).save(folder / "flat.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each: the driver's, and one that a test kills."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  else they starve beside other tests
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


def segment(images, model, out, samples=2):
    from manymask.inference.cluster import segment_on_ray
    from manymask.inference.request import Request

    request = Request(Path(), samples, 3, SamplingConfig(steps=STEPS))
    return segment_on_ray([str(images)], str(model), request, str(out))


def actors_on(node):
    """How many actors live there."""
    table = ray._private.state.actors().values()
    return sum(a["State"] == "ALIVE" and a["Address"]["NodeID"] == node.node_id for a in table)


@pytest.fixture(scope="module")
def job(cluster, images, drawing_model, tmp_path_factory):
    """OUT of a job, and its counts; the second node was killed in the middle."""
    out = tmp_path_factory.mktemp("job") / "out"
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    cluster.wait_for_nodes()
    written = []

    def kill():
        while len(list(out.glob("part-*"))) < 2 or not actors_on(node):
            time.sleep(0.02)
        time.sleep(0.3)
        cluster.remove_node(node, allow_graceful=False)
        written.append(len(list(out.glob("part-*"))))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    tally = segment(images, drawing_model, out)
    killer.join(1)
    assert 2 <= written[0] < 8, "the node was killed in the middle"
    return out, tally


def test_nothing_is_lost_and_nothing_is_there_twice_if_a_node_is_killed(job):
    out, tally = job
    assert sorted(rows(out)) == [f"image-{number:03}.png" for number in range(IMAGES)]
    assert (tally.done, tally.failed, tally.reused) == (IMAGES, 2, 0)


def test_bad_inputs_are_rows_with_the_reason(job):
    failed = rows(job[0], "failed")
    assert sorted(failed) == ["broken.png", "flat.png"]
    assert "the image is flat: every pixel is 7" in failed["flat.png"]["error"] and failed["broken.png"]["error"]
    assert failed["flat.png"]["masks"] is None


def test_rows_are_what_a_local_run_writes(job, images, drawing_model, tmp_path, monkeypatch):
    ask = ("-m", drawing_model, "-n", 2, "--seed", 3, "--steps", STEPS, "--engine", "torch")
    some = sorted(images.glob("image-*.png"))[::9]
    assert run(monkeypatch, "segment", *some, *ask, "--out", tmp_path) == 0
    table = rows(job[0])
    for path in some:
        row, local = table[path.name], tmp_path / path.stem
        expected = json.loads((local / "result.json").read_text())
        files = [*(f"mask-{k:02}" for k in (1, 2)), "confidence", "consensus"]
        for name, png in zip(files, [*row["masks"], row["confidence"], row["consensus"]], strict=True):
            assert np.array_equal(pixels(png), np.asarray(Image.open(local / f"{name}.png"))), (path.name, name)
        told = json.loads(row["result"])
        own = ("input", "created", "seconds", "files")
        assert {k: v for k, v in told.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
        assert row["area_mean"] == pytest.approx(expected["area_mean"], abs=1e-4) and row["unit"] == "px"
        assert (row["width"], row["height"], row["error"]) == (expected["width"], expected["height"], None)
    assert any(pixels(table[path.name]["consensus"]).any() for path in some)


def test_second_run_draws_what_has_no_row_yet(job, images, drawing_model):
    """That is: what is new, and what failed; the files of the first run stay as they are."""
    out, _ = job
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    Image.fromarray(phantom.draw(999).image[:, :, 0]).save(images / "new.png")
    Image.fromarray(phantom.draw(998).image[:, :, 0]).save(images / "broken.png")
    tally = segment(images, drawing_model, out)
    assert (tally.done, tally.failed, tally.reused) == (IMAGES + 2, 1, IMAGES)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(rows(out)) == IMAGES + 2 and list(rows(out, "failed")) == ["flat.png"]


def test_other_settings_are_refused(job, images, drawing_model):
    with pytest.raises(ConfigError, match=r"holds results of another job \(samples.* differ\)"):
        segment(images, drawing_model, job[0], samples=3)


def test_what_a_table_cannot_hold_is_refused(monkeypatch, tmp_path, capsys):
    ask = ("segment", tmp_path, "--on", "ray", "--out", tmp_path / "out")
    assert run(monkeypatch, *ask, "-m", "isic2018", "--form", "nifti", "--anonymise") == 2
    assert "on Ray there is no --anonymise, no --form" in capsys.readouterr().err
    assert run(monkeypatch, *ask) == 2
    assert "on Ray the model must be named (--model)" in capsys.readouterr().err


def test_inputs_without_images_are_told(tmp_path):
    from manymask.inference.cluster import list_images

    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(InputError, match=r"none of 1 file\(s\) has the name of an image"):
        list_images([str(tmp_path)])
    with pytest.raises(InputError, match="no such file or folder"):
        list_images([str(tmp_path / "nothing")])


def test_tables_are_kept_on_other_file_systems():
    """fsspec's memory stands for a bucket: objects, no folders, no rename."""
    from manymask.inference.table import open_table, write_rows

    out = "memory://bucket/out"
    assert open_table(out, {"seed": 0}) == set()
    write_rows(out, "part-1.parquet", [{"input": "a", "masks": [b"1"]}])
    write_rows(out, "failed-1.parquet", [{"input": "b", "error": "why"}])
    assert open_table(out, {"seed": 0}) == {"a"}
    with pytest.raises(ConfigError, match="seed differ"):
        open_table(out, {"seed": 1})
