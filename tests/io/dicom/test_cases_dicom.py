"""Inputs that went wrong for others, made again: what `manymask segment` must leave and say of each.

Numbers are those of public reports; what is in the files is made here. Values of pixels, sizes and headers are held in
test_dicom_pixels, test_dicom_spacing and test_nifti.
"""

import json
import os
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from manymask.data.datasets import phantom
from tests.dicom_files import dataset, save, slice_at
from tests.dicom_sources import ct_series, enhanced_ct
from tests.factories import run


@pytest.fixture
def segment(monkeypatch, drawing_model, tmp_path, capsys):
    """Exit status, what was said, and the output folder of `manymask segment PATHS`."""

    def call(*paths: Path, flags: tuple[str, ...] = ()) -> tuple[int, str, Path]:
        out = tmp_path / "masks of the test"
        arguments = ["segment", *paths, "--model", drawing_model, "--out", out, "--samples", 2, *flags]
        status = run(monkeypatch, *arguments)
        said = capsys.readouterr()
        return status, said.out + said.err, out

    return call


def series(folder: Path, count: int = 3, **fields) -> list[Path]:
    slices = sorted(ct_series(count), key=lambda made: made.ImagePositionPatient[2])
    for number, made in enumerate(slices, start=1):
        made.InstanceNumber = number
        for name, value in fields.items():
            setattr(made, name, value)
    return [save(folder / f"IM{k:04}", made) for k, made in enumerate(slices, start=1)]


def slices_of(seg: Path) -> int:
    return len(highdicom.seg.segread(seg).SourceImageSequence)


def png(path: Path) -> Path:
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(path)
    return path


def test_b17_a_name_that_is_no_text_is_segmented_like_any_other(segment, tmp_path):
    odd = tmp_path / os.fsdecode(b"l\xe9sion.png")
    odd.write_bytes(png(tmp_path / "plain.png").read_bytes())
    status, said, out = segment(odd, tmp_path / "plain.png")
    assert status == 0 and "2 of 2 image(s)" in said
    assert (out / odd.stem / "consensus.png").exists() and (out / "plain" / "consensus.png").exists()


def test_b19_a_copy_of_a_slice_is_left_out_and_the_series_gets_its_seg(segment, tmp_path):
    first = series(tmp_path / "in")[1]
    (tmp_path / "in/IM0002 (1)").write_bytes(first.read_bytes())
    status, said, out = segment(tmp_path / "in")
    assert status == 0 and "3 of 3 image(s)" in said and "IM0002 (1) is a copy of" in said
    assert slices_of(out / "series-0004/masks.dcm") == 3


def test_b21_a_scout_and_a_cut_and_an_empty_file_are_left_out_by_name(segment, tmp_path):
    paths = series(tmp_path / "in", 4)
    scout = slice_at(0, np.arange(1920, dtype=np.uint16).reshape(48, 40), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    cut = paths[3].read_bytes()
    paths[3].write_bytes(cut[: cut.index(b"1.2.826") + 20])
    (tmp_path / "in/IM0009.dcm").write_bytes(b"")
    with_scout = ct_series(3)
    for made in [*with_scout, scout]:
        made.SeriesNumber, made.StudyInstanceUID, made.SeriesInstanceUID = 7, "1.2.3", "1.2.3.7"
        save(tmp_path / f"in/more{made.SOPInstanceUID}", made)
    status, said, out = segment(tmp_path / "in")
    assert status == 2 and "6 of 9 image(s)" in said
    assert f"more{scout.SOPInstanceUID} is of another orientation (a scout?)" in said
    assert "IM0004" in said and "IM0009.dcm is empty" in said
    assert slices_of(out / "series-0004/masks.dcm") == slices_of(out / "series-0007/masks.dcm") == 3


def test_b21_pixels_that_are_cut_short_cost_their_own_slice_alone(segment, tmp_path):
    paths = series(tmp_path / "in")
    paths[1].write_bytes(paths[1].read_bytes()[:-500])
    status, said, out = segment(tmp_path / "in")
    assert status == 2 and "2 of 3 image(s)" in said and "IM0002 is damaged" in said
    assert slices_of(out / "series-0004/masks.dcm") == 2


def test_b22_a_tree_of_folders_is_walked_from_its_top_and_from_its_dicomdir(segment, tmp_path):
    series(tmp_path / "in/PAT/STU/SER", 2)
    save(tmp_path / "in/top.dcm", slice_at(0, SeriesNumber=99, SeriesInstanceUID="1.9", FrameOfReferenceUID="1.8"))
    (tmp_path / "in/README.TXT").write_text("hello")
    status, said, _ = segment(tmp_path / "in")
    assert status == 0 and "3 of 3 image(s)" in said and "1 file(s) passed over, no images: README.TXT" in said


def test_b29_a_volume_without_positions_gets_pictures_and_a_sentence(segment, tmp_path):
    volume = enhanced_ct(3)
    del volume.PerFrameFunctionalGroupsSequence
    volume.ImagePositionPatient, volume.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    status, said, out = segment(save(tmp_path / "CB1.dcm", volume))
    assert status == 2 and "gives one position in the patient for all its 3 frames" in said
    assert len(list(out.rglob("consensus.png"))) == 3 and not list(out.rglob("*.dcm"))


def test_b30_b32_nan_is_background_and_an_infinite_slice_is_named_and_the_grid_is_kept(segment, tmp_path):
    volume = np.stack([phantom.draw(k).image[:, :, 0].T for k in range(3)], axis=2).astype(np.float32)
    volume[:3], volume[0, 0, 1] = np.nan, np.inf
    image = nibabel.Nifti1Image(volume, np.diag([0.7, 0.8, 2.5, 1]))
    image.header.set_qform(np.diag([-0.7, 0.8, 2.5, 1]), 1)
    image.header.set_sform(image.affine, 1)
    (tmp_path / "scan.nii").write_bytes(image.to_bytes())
    status, said, out = segment(tmp_path / "scan.nii")
    assert status == 2 and "2 of 3 image(s)" in said and "slice-0002 holds infinite values" in said
    mask = nibabel.load(out / "scan/mask-01.nii.gz").header
    assert (int(mask["sform_code"]), int(mask["qform_code"])) == (1, 1)
    assert (mask.get_qform() == image.header.get_qform()).all()


def test_b37_a_whole_slide_is_named_and_not_segmented_tile_by_tile(segment, tmp_path):
    tile = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    made = dataset(
        tile, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6", TotalPixelMatrixColumns=64, TotalPixelMatrixRows=64
    )
    status, said, out = segment(save(tmp_path / "slide.dcm", made), png(tmp_path / "a.png"))
    assert status == 2 and "slide.dcm is a whole slide" in said
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["a"]


def test_b27_b28_sizes_in_the_patient_are_in_the_result(segment, tmp_path):
    pixels = phantom.draw(1).image[:, :, 0].astype(np.uint16)
    made = dataset(pixels, Modality="MG", ImagerPixelSpacing=[0.1, 0.1], SOPInstanceUID=generate_uid(), SeriesNumber=1)
    made.EstimatedRadiographicMagnificationFactor = 1.8
    _, said, out = segment(save(tmp_path / "mg.dcm", made))
    (result,) = [json.loads(path.read_text()) for path in out.rglob("result.json")]
    assert result["area_consensus_mm2"] == pytest.approx(result["area_consensus"] * 0.01 / 1.8**2)
    assert "divided by the magnification" in said or "warnings" not in result
