"""Many images at once give what each gives alone, in whatever order, number and batch they come."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.inference.batch import segment_all
from manymask.inference.entries import find_entries
from manymask.inference.request import Request
from manymask.parallel import shared_cores

COUNT, SAMPLES = 5, 3


@pytest.fixture(scope="module")
def segmenter(drawing_model):
    return Segmenter.from_pretrained(drawing_model, device="cpu", engine="torch")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Images of several sizes, and one that is none."""
    folder = tmp_path_factory.mktemp("in")
    for k in range(COUNT):
        image = Image.fromarray(phantom.draw(k).image[:, :, 0]).resize((50 + 30 * k, 64))
        image.save(folder / f"{k}.png")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    return folder


@pytest.fixture(scope="module")
def alone(segmenter, photographs):
    """The result of each image by itself, on one thread: how a sum is split among threads moves its last digits."""
    with shared_cores(torch.get_num_threads()):
        return [segmenter.segment(photographs / f"{k}.png", SAMPLES, 7) for k in range(COUNT)]


@settings(max_examples=12)
@given(st.lists(st.integers(-1, COUNT - 1), min_size=1, max_size=8), st.integers(1, 6), st.integers(1, 3))
def test_masks_do_not_depend_on_order_number_batch_or_cores(segmenter, photographs, alone, numbers, batch, cores):
    named = list(dict.fromkeys(numbers))
    inputs = [str(photographs / ("bad.png" if k < 0 else f"{k}.png")) for k in named]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        torch.set_num_threads(cores)
        try:
            tally = segment_all(segmenter, find_entries(inputs)[0], Request(out, SAMPLES, 7, batch=batch))
        finally:
            torch.set_num_threads(threads)
        good = [k for k in named if k >= 0]
        assert (tally.done, tally.failed) == (len(good), len(named) - len(good))
        assert {path.parent.name for path in out.glob("*/result.json")} == {str(k) for k in good}
        for k in good:
            read = np.asarray(Image.open(out / str(k) / "confidence.png")) / 65535
            assert np.abs(read - alone[k].confidence.numpy()).max() < 1e-5  # 16 bits are 8e-6 off at most
            found = json.loads((out / str(k) / "result.json").read_text())
            assert found["areas"] == alone[k].areas().tolist()
            assert found["warnings"] == list(alone[k].warnings)


def test_images_of_one_name_get_their_folders_in_order(segmenter, tmp_path):
    for k in range(6):
        (tmp_path / f"in/{k}").mkdir(parents=True)
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(tmp_path / f"in/{k}/a.png")
    segment_all(segmenter, find_entries([str(tmp_path / "in")])[0], Request(tmp_path / "out", 1))
    for k in range(6):
        found = json.loads((tmp_path / "out" / (f"a-{k + 1}" if k else "a") / "result.json").read_text())
        assert found["input"] == f"{k}/a.png"


def test_batch_that_cannot_be_drawn_at_once_is_drawn_one_by_one(monkeypatch, segmenter, photographs, alone, tmp_path):
    real, drawn = Segmenter.segment, []

    def short_of_memory(self, image, *rest, **more):
        drawn.append(len(image) if isinstance(image, list) else 1)
        if isinstance(image, list):
            raise MemoryError
        return real(self, image, *rest, **more)

    monkeypatch.setattr(Segmenter, "segment", short_of_memory)
    entries = find_entries([str(photographs)])[0]
    tally = segment_all(segmenter, entries, Request(tmp_path / "out", SAMPLES, 7, batch=COUNT + 1))
    assert (tally.done, tally.failed) == (COUNT, 1) and sorted(drawn) == [1] * COUNT + [COUNT]
    for k in range(COUNT):
        found = json.loads((tmp_path / "out" / str(k) / "result.json").read_text())
        assert found["areas"] == alone[k].areas().tolist()


def test_nothing_half_written_is_left_of_a_run_that_is_stopped(monkeypatch, segmenter, photographs, tmp_path):
    real = Segmenter.segment

    def interrupted(self, image, *rest, **more):
        if image.name == "3":
            raise KeyboardInterrupt
        return real(self, image, *rest, **more)

    monkeypatch.setattr(Segmenter, "segment", interrupted)
    entries = find_entries([str(photographs / f"{k}.png") for k in range(COUNT)])[0]
    with pytest.raises(KeyboardInterrupt):
        segment_all(segmenter, entries, Request(tmp_path / "out", SAMPLES))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0", "1", "2", "summary.csv"}
    monkeypatch.undo()
    tally = segment_all(segmenter, entries, Request(tmp_path / "out", SAMPLES, resume=True))
    assert (tally.done, tally.reused) == (COUNT, 3)
