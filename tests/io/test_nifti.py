"""NIfTI in: slices upright, the way back exact, and what is refused before it is unpacked."""

import gzip
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manymask.errors import InputError, ManymaskError
from manymask.io.dicom.series import seen_through
from manymask.io.nifti import count_slices, is_nifti, nifti_slices, to_picture, to_plane, write_nifti
from manymask.io.window import parse_window
from tests.nifti_files import read_nifti

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(-1000, 2000, (12, 10, 4)).astype(np.int16)
AFFINE = np.diag([0.8, 0.7, 5.0, 1.0])


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE, kind=nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(data, affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_volume_becomes_slices_and_goes_back_exactly(tmp_path, suffix, kind):
    pictures = read_nifti(save(tmp_path / f"scan{suffix}", VOLUME, kind=kind))
    assert [p.name for p in pictures] == [f"scan-slice-000{k}" for k in (1, 2, 3, 4)]
    back = np.stack([to_plane(p.pixels, p.origin.affine) for p in pictures], axis=-1)
    assert (back == VOLUME).all() and back.dtype == VOLUME.dtype
    for k, picture in enumerate(pictures):
        assert picture.pixels.shape == (10, 12) and picture.spacing == pytest.approx((0.7, 0.8))
        assert picture.origin.index == k and picture.origin.shape == (12, 10, 4)
        assert (picture.origin.affine == AFFINE).all() or kind is nibabel.Nifti1Image


def test_flat_image_is_one_picture(tmp_path):
    for shape in ((12, 10), (12, 10, 1), (12, 10, 1, 1)):
        (picture,) = read_nifti(save(tmp_path / "lesion.nii.gz", VOLUME[:, :, 0].reshape(shape)))
        assert picture.name == "lesion" and picture.origin.shape == shape
        assert (to_plane(picture.pixels, picture.origin.affine) == VOLUME[:, :, 0]).all()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RPS", "PSR", "AIL", "SRA"])
def test_pictures_are_upright_whatever_way_the_data_run(tmp_path, codes):
    """A bright voxel at the patient's right, front, head: in the picture it is at the left, at the top."""
    turn = nibabel.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    data = np.zeros((12, 10, 8), np.uint8)
    corner = []
    for axis, (world, sign) in enumerate(turn):
        affine[int(world), axis] = sign
        corner.append(0 if codes[axis] in "LPI" else data.shape[axis] - 1)
    data[tuple(corner)] = 255
    picture = read_nifti(save(tmp_path / "x.nii", data, affine))[corner[2]]
    assert picture.pixels[0, 0] == 255 and picture.pixels.sum() == 255


@given(st.integers(0, 10_000))
@settings(max_examples=50)
def test_picture_and_plane_are_inverses_for_any_affine(seed):
    generator = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3] = generator.normal(size=(3, 4))
    plane = generator.integers(0, 255, (9, 13))
    assert (to_plane(to_picture(plane, affine), affine) == plane).all()
    colour = generator.integers(0, 255, (9, 13, 3))
    assert (to_plane(to_picture(colour, affine), affine) == colour).all()


def test_scaled_values_come_in_their_own_unit_and_through_a_window(tmp_path):
    image = nibabel.Nifti1Image(VOLUME.astype(np.float32) / 2 - 100, AFFINE)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "x.nii.gz")
    truth = np.asarray(nibabel.load(tmp_path / "x.nii.gz").dataobj)
    for k, (plain, lung) in enumerate(
        zip(read_nifti(tmp_path / "x.nii.gz"), read_nifti(tmp_path / "x.nii.gz", parse_window("lung")), strict=True)
    ):
        assert np.allclose(to_plane(plain.pixels, AFFINE), truth[:, :, k], rtol=1e-5)
        shown = np.clip((truth[:, :, k] + 600.5) / 1499 + 0.5, 0, 1) * 255
        assert np.abs(to_plane(lung.pixels, AFFINE) - shown).max() <= 0.51 and lung.pixels.dtype == np.uint8


def test_colour_is_read(tmp_path):
    colour = RNG.integers(0, 255, (12, 10, 2, 3), dtype=np.uint8)
    structured = np.ascontiguousarray(colour).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    pictures = read_nifti(save(tmp_path / "x.nii.gz", structured))
    assert all((to_plane(p.pixels, AFFINE) == colour[:, :, k]).all() for k, p in enumerate(pictures))


def test_what_is_transparent_is_white_and_nothing_but_that_is_refused(tmp_path):
    colour = RNG.integers(0, 255, (12, 10, 2, 4), dtype=np.uint8)
    colour[..., 3] = 255
    colour[3, 4, :, 3] = 0

    def kept(name):
        fields = np.ascontiguousarray(colour).view([(name, "u1") for name in "RGBA"])[..., 0]
        return save(tmp_path / name, fields)

    (first, _) = read_nifti(kept("x.nii"))
    seen = to_plane(first.pixels, AFFINE)
    assert (seen[3, 4] == 255).all() and (seen[0] == colour[0, :, 0, :3]).all()
    colour[..., 3] = 0
    with pytest.raises(InputError, match=r"y\.nii is fully transparent"):
        read_nifti(kept("y.nii"))


def test_units_are_turned_into_millimetres(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, np.diag([800.0, 700.0, 1.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "x.nii")
    assert read_nifti(tmp_path / "x.nii")[0].spacing == pytest.approx((0.7, 0.8))


def refused(path: Path, message: str) -> None:
    with pytest.raises(ManymaskError, match=message) as caught:
        read_nifti(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_vectors_and_tiny_and_complex_images_are_refused(tmp_path):
    refused(save(tmp_path / "t.nii", np.zeros((12, 10, 4, 3, 2), np.uint8)), "5 dimensions")
    refused(save(tmp_path / "one.nii", np.zeros((1, 1), np.uint8)), "1×1 pixels: too small")
    refused(save(tmp_path / "c.nii", np.zeros((12, 10), np.complex64)), "complex64 values")
    refused(tmp_path / "nowhere.nii", "no such file")


def header_claiming(shape: tuple[int, ...], offset: float = 352) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = offset, b"n+1"
    return header.binaryblock + b"\0" * 4


@pytest.mark.parametrize(
    ("shape", "offset", "message"),
    [
        ((20_000, 20_000), 352, "20000×20000, too many voxels"),
        ((9000, 9000, 9000), 352, "too many voxels"),
        ((12, 10, 4), 3e9, "is damaged: its voxels would start at byte"),
        ((12, 10, 4), float("nan"), "is damaged"),
        ((100, 100, 100), 352, "is damaged, cut short"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_headers_that_claim_too_much_are_refused_before_anything_is_unpacked(tmp_path, shape, offset, message, suffix):
    content = header_claiming(shape, offset) + b"\0" * 1000
    (tmp_path / f"x{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    refused(tmp_path / f"x{suffix}", message)


def test_a_gzip_bomb_is_not_inflated(tmp_path):
    """Far more follows than the header announces; no more than a buffer of it is ever held."""
    with gzip.open(tmp_path / "x.nii.gz", "wb") as file:
        file.write(header_claiming((12, 10, 4)))
        for _ in range(64):
            file.write(b"\0" * (1 << 20))
    tracemalloc.start()
    try:
        assert len(read_nifti(tmp_path / "x.nii.gz")) == 4
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_damaged_files_are_one_line(tmp_path, name):
    content = save(tmp_path / name, VOLUME).read_bytes()
    for share in (0, 0.1, 0.3, 0.6, 0.9):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        refused(tmp_path / name, name)
    (tmp_path / name).write_bytes(b"hello" * 200)
    refused(tmp_path / name, "is not a NIfTI file")


def test_an_affine_that_is_no_number_is_said(tmp_path):
    path = save(tmp_path / "x.nii", VOLUME)
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()  # srow_x
    path.write_bytes(content)
    refused(path, "affine holds values that are not numbers")


def headed(path: Path, data: np.ndarray = VOLUME, **fields) -> Path:
    """A file with fields of its header set by hand."""
    image = nibabel.Nifti1Image(data, AFFINE)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def test_what_is_not_a_number_is_background_and_an_infinite_value_is_named(tmp_path):
    volume = VOLUME.astype(np.float32)
    volume[:6, :, 1] = np.nan
    volume[:, :, 2] = np.nan
    volume[0, 0, 3] = np.inf
    path, failed = save(tmp_path / "x.nii.gz", volume), []
    pictures = list(nifti_slices(path, failed=failed.append))
    assert [p.name for p in pictures] == ["x-slice-0001", "x-slice-0002", "x-slice-0003"]
    assert not any("NaN" in note for note in pictures[0].notes) and any(
        "50.0% of the pixels are not numbers" in note for note in pictures[1].notes
    )
    back = to_plane(pictures[1].pixels, AFFINE)
    assert (back[:6] == volume[6:, :, 1].min()).all() and (back[6:] == volume[6:, :, 1]).all()
    assert (pictures[2].pixels == 0).all()
    (error,) = failed
    assert "slice-0004 holds infinite values" in str(error)
    refused(save(tmp_path / "big.nii", np.full((12, 10), 1e300)), "infinite")


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_file_that_is_cut_short_is_one_line_however_many_slices_are_gone(tmp_path, name):
    content = save(tmp_path / name, RNG.integers(0, 9999, (64, 64, 40)).astype(np.int16)).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 4])
    failed = []
    kept = len(list(nifti_slices(tmp_path / name, failed=failed.append)))
    assert 5 <= kept <= 10 and len(failed) == 1
    assert f"slices from {kept + 1} of 40 on are left out" in str(failed[0])


def test_every_volume_of_a_series_in_time_is_taken_and_goes_back(tmp_path):
    series = RNG.integers(0, 99, (12, 10, 3, 2)).astype(np.int16)
    pictures = read_nifti(save(tmp_path / "x.nii.gz", series))
    assert [p.name for p in pictures[2:4]] == ["x-slice-0003-volume-0001", "x-slice-0001-volume-0002"]
    assert any("holds 2 volumes" in note for note in pictures[0].notes)
    drawn = [
        SimpleNamespace(outlines=None, masks=[p.pixels > 50], confidence=p.pixels, consensus=p.pixels > 50)
        for p in pictures
    ]
    write_nifti(tmp_path / "out", pictures, drawn)
    assert (np.asarray(nibabel.load(tmp_path / "out/consensus.nii.gz").dataobj) == (series > 50)).all()


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 3)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_masks_have_sform_qform_codes_and_units_of_the_source_and_no_words(tmp_path, codes, kind):
    image = kind(VOLUME, AFFINE)
    other = AFFINE @ np.diag([1, 1, -1, 1])
    image.header.set_sform(AFFINE, codes[0])
    image.header.set_qform(other, codes[1])
    image.header.set_xyzt_units("micron", "sec")
    image.header["descrip"] = b"Musterfrau"
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    pictures = read_nifti(tmp_path / "x.nii")
    drawn = [
        SimpleNamespace(outlines=None, masks=[p.pixels > 50], confidence=p.pixels, consensus=p.pixels > 50)
        for p in pictures
    ]
    write_nifti(tmp_path / "out", pictures, drawn)
    source, mask = (nibabel.load(path) for path in (tmp_path / "x.nii", tmp_path / "out/mask-01.nii.gz"))
    assert type(mask) is type(source) and mask.header["descrip"] == b""
    assert (mask.get_sform() == source.get_sform()).all() and (mask.get_qform() == source.get_qform()).all()
    for name in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        assert (mask.header[name] == source.header[name]).all(), name
    assert (mask.affine == source.affine).all()
    assert any("sform and qform differ" in note for note in pictures[0].notes) == all(codes)


def test_a_header_without_orientation_is_said(tmp_path):
    content = bytearray(save(tmp_path / "x.nii", VOLUME).read_bytes())
    content[252:256] = bytes(4)  # the codes of qform and sform
    (tmp_path / "x.nii").write_bytes(content)
    assert "left and right are not known" in read_nifti(tmp_path / "x.nii")[0].notes[0]


def test_spacing_is_that_of_the_affine(tmp_path):
    affine = np.array([[0, -0.7, 0, 0], [0.8, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VOLUME, affine)
    image.header["pixdim"][1:4] = 9
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    assert read_nifti(tmp_path / "x.nii")[0].spacing == pytest.approx((0.7, 0.8))
    sheared = AFFINE.copy()
    sheared[1, 0] = 0.4
    picture = read_nifti(save(tmp_path / "y.nii", VOLUME, sheared))[0]
    assert picture.spacing is None and any("right angles" in note for note in picture.notes)


@pytest.mark.parametrize(
    ("code", "spacing", "note"), [(0, 0.8, "millimetres are assumed"), (7, None, "unknown code 7")]
)
def test_units_that_are_missing_or_unknown_are_said(tmp_path, code, spacing, note):
    picture = read_nifti(headed(tmp_path / "x.nii", xyzt_units=code))[0]
    assert (picture.spacing and picture.spacing[1]) == (spacing and pytest.approx(spacing))
    assert any(note in line for line in picture.notes)


def test_names_tell_what_is_nifti():
    assert [is_nifti(Path(n)) for n in ("a.nii", "a.NII.GZ", "a.gz", ".a.nii", "a.png")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_values_stay_the_files_own_through_any_window(tmp_path):
    volume = np.arange(12 * 10 * 2, dtype=np.int16).reshape(12, 10, 2)
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    plain, windowed = read_nifti(path), read_nifti(path, parse_window("lung"))
    for a, b in zip(plain, windowed, strict=True):
        assert b.pixels.dtype == np.uint8 and (seen_through(b, "values").pixels == a.pixels).all()
    assert count_slices(path) == len(plain) == 2


@pytest.mark.parametrize("zeros", [((76 + 4, 12), (254, 2)), ((280, 48),)], ids=["pixdim", "sform"])
def test_pixels_of_no_size_have_no_area(tmp_path, caplog, zeros):
    path = save(tmp_path / "x.nii", VOLUME)
    content = bytearray(path.read_bytes())
    for place, length in zeros:
        content[place : place + length] = bytes(length)
    path.write_bytes(content)
    picture = read_nifti(path)[0]
    assert picture.spacing is None and "Its pixels have the size 0: no mm² are given." in picture.notes
    assert not caplog.records
    pictures = read_nifti(path)
    drawn = [
        SimpleNamespace(outlines=None, masks=[p.pixels > 50], confidence=p.pixels, consensus=p.pixels > 50)
        for p in pictures
    ]
    written = write_nifti(tmp_path, pictures, drawn)
    before, after = (nibabel.load(each).header for each in (path, written[0]))
    assert all(
        np.array_equal(before[name], after[name]) for name in ("srow_x", "srow_y", "srow_z", "pixdim", "sform_code")
    )


def test_values_that_single_precision_cannot_tell_apart_are_named(tmp_path):
    path = save(tmp_path / "x.nii", VOLUME.astype(np.float64) + 1e12)
    refused(path, "differ by too little for single precision")


def test_a_name_that_hides_the_compression_is_said(tmp_path):
    plain = save(tmp_path / "x.nii", VOLUME)
    (tmp_path / "y.nii.gz").write_bytes(plain.read_bytes())
    refused(tmp_path / "y.nii.gz", "is not compressed: rename it so that it ends in .nii")
    plain.write_bytes(gzip.compress(plain.read_bytes()))
    refused(plain, "is compressed: rename it so that it ends in .nii.gz")
