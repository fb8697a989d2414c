"""DICOM Segmentations as the masks of raters: those that manymask writes, and those that highdicom does."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")

from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from manymask import api
from manymask.data.datasets import folder
from manymask.errors import ConfigError, InputError
from manymask.io.dicom.seg_masks import read_seg
from manymask.io.masks import MaskReading
from tests.dicom_sources import PIXELS, ct_series
from tests.factories import run


@pytest.fixture
def slices(tmp_path):
    """Five slices in tmp_path/images, in the order of their names."""
    found = sorted(ct_series(), key=lambda d: float(d.ImagePositionPatient[2]))
    (tmp_path / "images").mkdir()
    for k, each in enumerate(found):
        each.save_as(tmp_path / f"images/{k}.dcm", enforce_file_format=True)
    return found


def blob(top: int, left: int) -> np.ndarray:
    mask = np.zeros(PIXELS, bool)
    mask[top : top + 9, left : left + 12] = True
    return mask


def save_seg(path: Path, sources, segments: dict[str, dict[int, np.ndarray]], kind="BINARY", change=None) -> Path:
    """A file of highdicom. segments: by label, the masks of some slices."""
    algorithm = AlgorithmIdentificationSequence("reader", codes.cid7162.ArtificialIntelligence, "1")
    described = [
        SegmentDescription(
            number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Nodule, "AUTOMATIC", algorithm
        )
        for number, label in enumerate(segments, 1)
    ]
    planes = np.zeros((len(sources), *PIXELS, len(segments)), np.float32 if kind == "FRACTIONAL" else np.uint8)
    for k, masks in enumerate(segments.values()):
        for index, mask in masks.items():
            planes[index, ..., k] = mask
    made = Segmentation(
        list(sources), planes, kind, described, generate_uid(), 1, generate_uid(), 1, "m", "m", "1", "1",
        omit_empty_frames=True,
    )  # fmt: skip
    if change is not None:
        change(made)
    path.parent.mkdir(exist_ok=True)
    made.save_as(path)
    return path


def masks_of(tmp_path, **options) -> list[np.ndarray]:
    return [case.read()[1] for case in folder.read(tmp_path, 1, **options).cases]


def without_sources(made):
    for frame in made.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


def without_series(made):
    del made.ReferencedSeriesSequence


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
@pytest.mark.parametrize("change", [None, without_sources, without_series])
def test_a_segment_is_the_mask_of_its_slice_and_no_other(tmp_path, slices, kind, change):
    save_seg(tmp_path / "masks/seg.dcm", slices, {"Nodule": {1: blob(4, 6), 3: blob(20, 9)}}, kind, change)
    found = masks_of(tmp_path)
    assert len(found) == 5
    for k, masks in enumerate(found):
        expected = {1: blob(4, 6), 3: blob(20, 9)}.get(k, np.zeros(PIXELS, bool))
        assert np.array_equal(masks[0], expected), k


def test_fractions_count_from_one_half_on(tmp_path, slices):
    shares = np.zeros(PIXELS, np.float32)
    shares[2, :4] = [0.25, 0.49, 0.5, 0.9]
    save_seg(tmp_path / "masks/seg.dcm", slices, {"Nodule": {0: shares}}, "FRACTIONAL")
    assert masks_of(tmp_path)[0][0, 2, :4].tolist() == [False, False, True, True]


def test_segments_are_chosen_by_name(tmp_path, slices):
    save_seg(tmp_path / "masks/seg.dcm", slices, {"Nodule": {0: blob(4, 6)}, "Lung": {0: blob(20, 20)}})
    with pytest.raises(InputError, match=r"several labels: Lung \(1\), Nodule \(1\)"):
        folder.read(tmp_path)
    (drawn,) = masks_of(tmp_path, reading=MaskReading(labels=("Nodule",)))[0]
    assert np.array_equal(drawn, blob(4, 6))
    both = masks_of(tmp_path, reading=MaskReading(labels=("Nodule", "Lung")))[0][0]
    assert np.array_equal(both, blob(4, 6) | blob(20, 20))
    with pytest.raises(ConfigError, match="no label 'Nodul'"):
        folder.read(tmp_path, reading=MaskReading(labels=("Nodul",)))


def test_several_files_of_a_series_are_raters_or_parts(tmp_path, slices):
    for name, mask in (("a", blob(4, 6)), ("b", blob(20, 9))):
        save_seg(tmp_path / f"masks/{name}.dcm", slices, {"Nodule": {2: mask}})
    assert np.array_equal(masks_of(tmp_path)[2], np.stack([blob(4, 6), blob(20, 9)]))
    assert np.array_equal(masks_of(tmp_path, parts=True)[2], (blob(4, 6) | blob(20, 9))[None])


def test_folders_of_raters_hold_segmentations(tmp_path, slices):
    for k, mask in enumerate((blob(4, 6), blob(20, 9))):
        save_seg(tmp_path / f"masks-{k}/seg.dcm", slices, {"Nodule": {2: mask}})
    assert np.array_equal(masks_of(tmp_path)[2], np.stack([blob(4, 6), blob(20, 9)]))


def test_another_grid_and_another_series_are_refused_in_one_line(tmp_path, slices):
    def shifted(made):
        for frame in made.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient[0] += 3

    save_seg(tmp_path / "masks/seg.dcm", slices, {"Nodule": {2: blob(4, 6)}}, change=shifted)
    with pytest.raises(InputError, match=r"seg\.dcm lies on another grid than its image .*2\.dcm"):
        folder.read(tmp_path).cases[2].read()
    others = ct_series(2)
    save_seg(tmp_path / "masks/seg.dcm", others, {"Nodule": {0: blob(4, 6)}})
    with pytest.raises(InputError, match="belongs to none of the images"):
        folder.read(tmp_path)


def test_frames_that_belong_nowhere_are_refused(tmp_path, slices):
    def lost(made):
        without_sources(made)
        for frame in made.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence

    path = save_seg(tmp_path / "seg.dcm", slices, {"Nodule": {2: blob(4, 6)}}, change=lost)
    with pytest.raises(InputError, match="neither which image it was made of nor where it lies"):
        read_seg(path)


def test_what_segment_writes_is_read_back_and_scored(tmp_path, slices, drawing_model, monkeypatch):
    """The consensus of a model, as SEG, against the masks that the model draws again: the same pixels."""
    call = ("segment", tmp_path / "images", "-m", drawing_model, "-n", 2, "-o", tmp_path / "out", "--form", "dicom")
    assert run(monkeypatch, *call) == 0
    (tmp_path / "masks").mkdir()
    (tmp_path / "out/series-0004/masks.dcm").rename(tmp_path / "masks/masks.dcm")
    reading = MaskReading(labels=("Mask 1 of 2",))
    drawn = masks_of(tmp_path, reading=reading)
    assert any(each.any() for each in drawn)
    (tmp_path / "masks/masks.dcm").unlink()
    (tmp_path / "out/series-0004/consensus.dcm").rename(tmp_path / "masks/consensus.dcm")
    labelmap = masks_of(tmp_path)
    assert [each.shape for each in labelmap] == [(1, *PIXELS)] * 5
    found = api.evaluate(drawing_model, tmp_path, samples=2, progress=False)
    assert len(found.cases) == 5 and found.metrics["dice"]["mean"] > 0.5
