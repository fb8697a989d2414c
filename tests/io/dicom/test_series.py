"""DICOM in: order, grey values, colours, compression, and what is refused in one line that a radiologist understands."""

import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.io.dicom.decode import inflates_beyond, stream_size
from manymask.io.dicom.file import _HEADER
from manymask.io.dicom.header import place_of
from manymask.io.dicom.pixels import frame_values
from manymask.io.dicom.series import dicom_series, is_dicom, parse_window, seen_through
from manymask.io.dicom.stacks import _TELLING, Frame, in_stacks
from manymask.io.image import Picture
from manymask.io.window import Window, fixed
from tests.dicom_files import PATIENT, dataset, pictures_of, read_dicom, save, slice_at

FILES = Path(pydicom.data.__file__).parent / "test_files"  # they come in pydicom's wheel
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (20, 24), dtype=np.uint16)


def only(made, window: str = "header") -> np.ndarray:
    (picture,) = pictures_of([made], parse_window(window))
    assert picture.pixels.dtype == np.uint8
    return picture.pixels


# --- order


def stack(count: int, series: str = "1.2.7", number: int = 4) -> list[Dataset]:
    fields = {"SeriesInstanceUID": series, "SeriesNumber": number}
    return [slice_at(5.0 * k - 20, InstanceNumber=count - k, **fields) for k in range(count)]


def content(made: Dataset) -> bytes:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


STACK = [content(made) for made in stack(5)]


@given(st.permutations(range(5)))
@settings(max_examples=10)
def test_any_permutation_of_file_names_gives_the_same_order(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("series")
    paths = [folder / f"{name}.dcm" for name in range(5)]
    for path, k in zip(paths, order, strict=True):
        path.write_bytes(STACK[k])
    heights = [p.origin.dataset.ImagePositionPatient[2] for p in read_dicom(paths)]
    assert heights == [5.0 * k - 20 for k in range(5)]


def test_slices_are_sorted_along_their_normal_whatever_its_direction():
    coronal = [1, 0, 0, 0, 0, -1]  # rows to the left, columns to the feet: the normal points to the back
    slices = [slice_at(0, ImageOrientationPatient=coronal, ImagePositionPatient=[0, y, 50 - y]) for y in (3, 1, 2)]
    assert [p.origin.dataset.ImagePositionPatient[1] for p in pictures_of(slices)] == [1, 2, 3]


def test_series_come_one_after_the_other_by_their_numbers():
    mixed = stack(3, "1.2.9", 7) + stack(3, "1.2.8", 2)
    random.Random(0).shuffle(mixed)
    found = [p.origin.dataset.SeriesNumber for p in pictures_of(mixed)]
    assert found == [2, 2, 2, 7, 7, 7]


def test_photographs_are_sorted_by_instance_number_and_may_differ_in_size():
    photos = [dataset(RNG.integers(0, 255, (16 + n, 16, 3), dtype=np.uint8), InstanceNumber=n) for n in (3, 1, 2)]
    assert [p.pixels.shape[0] for p in pictures_of(photos)] == [17, 18, 19]


def test_pictures_are_named_by_numbers_never_by_patient_or_file(tmp_path):
    path = save(tmp_path / f"{PATIENT}.dcm", slice_at(1, InstanceNumber=12))
    (picture,) = read_dicom([path])
    assert picture.name == "series-0004-image-0012" and picture.spacing == (0.7, 0.8)
    assert [p.name for p in pictures_of([dataset(GREY), dataset(GREY)])] == ["image-0001", "image-0002"]


def enhanced(heights: list[float]) -> Dataset:
    pixels = np.stack([np.full((16, 16), 1000 + round(z), np.uint16) for z in heights])
    pixels[:, 0, 0] = 0
    made = dataset(pixels[0], SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(heights), SeriesNumber=3,
                   InstanceNumber=1, PixelData=pixels.tobytes())  # fmt: skip
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, turn.ImageOrientationPatient = [0.5, 0.6], [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([turn])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    made.PerFrameFunctionalGroupsSequence = Sequence([])
    for z in heights:
        frame, place, values, voi = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, z]
        values.RescaleSlope, values.RescaleIntercept = 2, -1000 - z
        voi.WindowCenter, voi.WindowWidth = 1000 + z, 401
        frame.PlanePositionSequence, frame.FrameVOILUTSequence = Sequence([place]), Sequence([voi])
        frame.PixelValueTransformationSequence = Sequence([values])
        made.PerFrameFunctionalGroupsSequence.append(frame)
    return made


def test_enhanced_frames_are_sorted_and_rescaled_and_windowed_each_by_its_own_group():
    pictures = pictures_of([enhanced([30.0, 10.0, 20.0])])
    assert [p.origin.number for p in pictures] == [2, 3, 1]
    assert [p.name for p in pictures] == [f"series-0003-image-0001-frame-000{n}" for n in (2, 3, 1)]
    for picture, z in zip(pictures, (10, 20, 30), strict=True):
        values = frame_values(picture.origin.dataset, picture.origin.number)
        assert picture.spacing == (0.5, 0.6) and values[5, 5] == 2 * (1000 + z) - 1000 - z
        assert picture.pixels[5, 5] in (127, 128) and picture.pixels[0, 0] == 0


def test_every_frame_of_a_colour_loop_is_a_picture():
    pictures = read_dicom([FILES / "examples_ybr_color.dcm"])
    assert len(pictures) == 30 and all(p.pixels.shape == (240, 320, 3) for p in pictures)
    assert [p.origin.number for p in pictures] == list(range(1, 31))


# --- grey values


@pytest.mark.parametrize(
    ("name", "centre", "width"), [("lung", -600, 1500), ("mediastinum", 40, 400), ("bone", 400, 1800)]
)
def test_named_windows_run_from_black_to_white_over_their_width(name, centre, width):
    edges = np.array([centre - width / 2 - 50, centre - width / 2, centre, centre + width / 2, centre + width / 2 + 50])
    stored = np.zeros((8, 8), np.int16)
    stored[0, :5] = edges + 1024
    assert only(slice_at(0, stored), name)[0, :5].tolist() in ([0, 0, 128, 255, 255], [0, 0, 127, 255, 255])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@given(st.integers(-500, 500), st.integers(2, 3000))
@settings(max_examples=20)
def test_windows_equal_pydicoms(function, centre, width):
    made = dataset(GREY, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function, RescaleSlope=1,
                   RescaleIntercept=-1024)  # fmt: skip
    values = GREY.astype(np.float64) - 1024
    truth = apply_windowing(values, made)
    share = (truth + 1024) / 65535 * 255
    assert np.abs(only(made).astype(float) - share).max() <= 0.51


def test_first_of_several_header_windows_is_taken_and_nonsense_falls_back_to_the_full_range():
    assert (only(slice_at(0, GREY, WindowCenter=[40, 400], WindowWidth=[400, 1800]))
            == only(slice_at(0, GREY), "40,400")).all()  # fmt: skip
    full = only(slice_at(0, GREY), "full")
    assert full.min() == 0 and full.max() == 255
    for width in (0, -5):
        assert (only(slice_at(0, GREY, WindowCenter=40, WindowWidth=width)) == full).all()
    assert (only(slice_at(0, GREY)) == full).all()


def test_eight_bits_without_a_window_are_shown_as_they_are():
    pixels = RNG.integers(30, 90, (20, 24), dtype=np.uint8)
    assert (only(dataset(pixels)) == pixels).all()
    assert only(dataset(pixels), "full").max() == 255


def test_monochrome1_is_inverted():
    one, two = (only(slice_at(0, GREY, PhotometricInterpretation=p), "lung") for p in ("MONOCHROME1", "MONOCHROME2"))
    assert (one == 255 - two).all() and one.min() != one.max()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth_and_sign_keeps_its_values(bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    pixels = np.linspace(low, high, 256).round().astype(kind).reshape(16, 16)
    made = dataset(pixels, BitsStored=bits, HighBit=bits - 1, RescaleSlope=2, RescaleIntercept=-7)
    assert (frame_values(made) == pixels.astype(np.float32) * 2 - 7).all()
    assert (only(made, "full") == np.arange(256).reshape(16, 16)).mean() > 0.99


def test_padding_is_black_and_takes_no_part_in_the_stretch():
    pixels = np.full((16, 16), -2000, np.int16)
    pixels[4:12, 4:12] = np.arange(64).reshape(8, 8) * 10
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        made = dataset(pixels, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
        shown = only(made)
        assert (shown[pixels == -2000] == 0).all() and shown[4:12, 4:12].max() == 255
    pixels[0, 0] = -1990
    ranged = only(dataset(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980))
    assert ranged[0, 0] == 0 and ranged[4, 5] == round(10 / 630 * 255)


def test_voi_table_of_the_header_is_applied():
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], [255 - i for i in range(256)]
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (only(dataset(pixels, VOILUTSequence=Sequence([table]))) == 255 - pixels).all()


@pytest.mark.parametrize("text", ["brain", "40", "40,0", "40,-3", "nan,3", "40,400,3", ""])
def test_a_window_that_is_none_is_said(text):
    with pytest.raises(ConfigError, match="is no window"):
        parse_window(text)


def test_windows_are_read_from_text():
    assert parse_window("40, 400.5") == Window("fixed", 40, 400.5) and parse_window(" Lung ") == Window(
        "fixed", -600, 1500
    )
    assert parse_window("header") == Window() and parse_window("full").kind == "full"
    assert fixed(np.array([[0.0, 1.0]]), 1, 1).tolist() == [[0, 255]]


# --- colour: pydicom's bars (rows 5, 15 … hold red, green, blue, …) as published in its tests

BARS = {5: (255, 0, 0), 15: (255, 128, 128), 25: (0, 255, 0), 35: (128, 255, 128), 45: (0, 0, 255), 55: (128, 128, 255),
        65: (0, 0, 0), 75: (64, 64, 64), 85: (192, 192, 192), 95: (255, 255, 255)}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm",
     "SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_dcmtk_+eb+cy+s2", "SC_rgb_gdcm_KY",
     "SC_ybr_full_422_uncompressed", "SC_rgb_jls_lossy_line"],
)  # fmt: skip
def test_colour_photographs_have_their_colours_however_they_are_stored(name):
    (picture,) = read_dicom([FILES / f"{name}.dcm"])
    assert picture.pixels.shape == (100, 100, 3) and picture.pixels.dtype == np.uint8
    for row, colour in BARS.items():
        assert np.abs(picture.pixels[row, 50].astype(int) - colour).max() <= 12


def test_jpeg_2000_colour_transform_is_undone():
    (picture,) = read_dicom([FILES / "examples_jpeg2k.dcm"])
    stream = get_frame(picture.origin.dataset.PixelData, 0, number_of_frames=1)
    truth = np.asarray(Image.open(BytesIO(stream)).convert("RGB")).astype(int)
    assert np.abs(picture.pixels.astype(int) - truth).mean() < 1


def test_palette_colour_becomes_rgb():
    made = dataset(np.arange(256, dtype=np.uint8).reshape(16, 16), PhotometricInterpretation="PALETTE COLOR")
    for name, table in (("Red", np.arange(256)), ("Green", 255 - np.arange(256)), ("Blue", np.full(256, 7))):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(made, f"{name}PaletteColorLookupTableData", table.astype(np.uint8).tobytes())
    shown = only(made)
    assert shown.shape == (16, 16, 3) and (shown[3, 5] == (53, 202, 7)).all()


# --- compression


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda s: UID(s).name)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_compression_changes_nothing(syntax, signed):
    grey = RNG.integers(0, 4096, (64, 72))
    pixels = (grey - 2048 * signed).astype(np.int16 if signed else np.uint16)
    plain, packed = (dataset(pixels, BitsStored=12, HighBit=11) for _ in range(2))
    packed.compress(syntax)
    assert packed.file_meta.TransferSyntaxUID == syntax
    assert (frame_values(packed) == frame_values(plain)).all() and (frame_values(plain) == pixels).all()


def test_all_encodings_of_one_image_are_one_picture():
    plain = read_dicom([FILES / "MR_small.dcm"])[0].pixels
    for name in ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"):
        assert (read_dicom([FILES / f"MR_small_{name}.dcm"])[0].pixels == plain).all(), name


def test_deflated_and_implicit_and_bare_files_are_read(tmp_path):
    truth = only(slice_at(0, GREY))
    for syntax in (DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian):
        made = slice_at(0, GREY, syntax=syntax)
        (picture,) = read_dicom([save(tmp_path / "x.dcm", made)])
        assert (picture.pixels == truth).all()
    data = save(tmp_path / "bare", slice_at(0, GREY, syntax=ImplicitVRLittleEndian)).read_bytes()
    start = data.index(struct.pack("<HH", 8, 0x16))  # without preamble and meta information
    (tmp_path / "bare").write_bytes(data[start:])
    assert is_dicom(tmp_path / "bare") and (read_dicom([tmp_path / "bare"])[0].pixels == truth).all()


def test_what_is_dicom_is_told_by_its_content(tmp_path):
    assert is_dicom(save(tmp_path / "IM0001", slice_at(0)))
    for name, content in {"a.png": b"\x89PNG", "b": b"", "c": b"\x08\0\x16\0" + b"x" * 300}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name)
    assert not is_dicom(tmp_path / "nowhere") and not is_dicom(tmp_path)


# --- what is refused, and how


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dicom([path])
    text = str(caught.value)
    assert "\n" not in text and path.name in text and len(text) < 400
    assert not any(word in text for word in ("Muster", "4711", "19640812", "Traceback"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtstruct", "this is an RT Structure Set, not an image"),
        ("rtplan", "this is an RT Plan, not an image"),
        ("rtdose", "this is an RT Dose, not an image"),
        ("liver_1frame", r"this is a DICOM Segmentation \(SEG\), not an image"),
        ("reportsi", "this is a Basic Text SR, not an image"),
        ("test-SR", "this is a Comprehensive SR, not an image"),
        ("waveform_ecg", "this is a 12-lead ECG Waveform, not an image"),
        ("MR_truncated", "is damaged: its pixel data .* are cut short"),
        ("SC_rgb_rle_32bit", "32 bits a pixel"),
        ("SC_rgb_small_odd", "3×3 pixels: too small"),
    ],
)
def test_what_is_no_image_says_what_it_is(name, message):
    refused(FILES / f"{name}.dcm", message)


def test_other_objects_and_missing_pixels_are_named(tmp_path):
    for uid, name in (("1.2.840.10008.5.1.4.1.1.104.1", "an Encapsulated PDF"),
                      ("1.2.840.10008.5.1.4.1.1.11.1", "a Grayscale Softcopy Presentation State"),
                      ("1.2.840.10008.5.1.4.1.1.88.59", "a Key Object Selection Document")):  # fmt: skip
        refused(save(tmp_path / "x.dcm", dataset(SOPClassUID=uid)), f"this is {name}, not an image")
    refused(save(tmp_path / "y.dcm", dataset()), "this is a CT Image without pixel data")
    bare = slice_at(0)
    del bare.PixelData
    refused(save(tmp_path / "z.dcm", bare), "has no pixel data")


def test_a_dicomdir_is_a_table_of_contents():
    refused(FILES / "dicomdirtests" / "DICOMDIR", "this is a DICOMDIR, a table of contents")


def test_unsupported_transfer_syntax_is_named(tmp_path):
    made = slice_at(0)
    made.compress(RLELossless)
    made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")  # MPEG-4
    refused(save(tmp_path / "film.dcm", made), r"MPEG-4 AVC/H\.264 High Profile.* is not supported")


@pytest.mark.parametrize(
    ("rows", "columns", "message"), [(1, 1, "1×1 pixels: too small"), (20_000, 20_000, "100 million")]
)
def test_size_is_refused_before_decoding(tmp_path, rows, columns, message):
    made = slice_at(0, Rows=rows, Columns=columns, PixelData=b"\0\0")
    refused(save(tmp_path / "x.dcm", made), message)


@pytest.mark.parametrize("frames", [20_000, 10_000_000])
def test_more_frames_than_memory_holds_are_refused(tmp_path, frames):
    refused(save(tmp_path / "x.dcm", slice_at(0, NumberOfFrames=frames)), "too many to read at once")


def test_a_stream_larger_than_its_header_is_refused(tmp_path):
    for syntax in (JPEG2000Lossless, JPEGLSLossless):
        made = slice_at(0, np.zeros((300, 400), np.uint16))
        made.compress(syntax)
        made.Rows, made.Columns = 16, 16
        refused(save(tmp_path / "x.dcm", made), "not the image that the header describes")
    assert stream_size(b"\xff\xd8\xff\xff") is stream_size(b"") is stream_size(b"\xff\xd8\xff\xe0\0\0") is None


def test_a_deflate_bomb_is_refused_without_unpacking_it(tmp_path, monkeypatch):
    monkeypatch.setattr("manymask.io.dicom.file._DEFLATED_LIMIT", 20 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    megabyte = b"\0" * (1 << 20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(21)) + packer.flush()
    assert inflates_beyond(bomb, 20 << 20) and not inflates_beyond(bomb, 22 << 20)
    path = save(tmp_path / "x.dcm", slice_at(0, syntax=DeflatedExplicitVRLittleEndian))
    plain = path.read_bytes()
    meta = 144 + dcmread(path, stop_before_pixels=True).file_meta.FileMetaInformationGroupLength
    for name, head in {"bomb.dcm": plain[:meta], "bare.dcm": plain[132:meta]}.items():
        (tmp_path / name).write_bytes(head + bomb)
        refused(tmp_path / name, "unpacks to more than an image may hold")


AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImageOrientationPatient": SAGITTAL}, "of another orientation"),
        ({"ImageOrientationPatient": SAGITTAL, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a scout"),
        ({"PixelSpacing": [0.9, 0.9]}, "of another pixel spacing"),
        ({"Rows": 18, "PixelData": bytes(2 * 18 * 16)}, "of another image size"),
        ({"ImagePositionPatient": None}, "has no position in the patient"),
    ],
)
def test_an_odd_image_of_a_series_is_left_out_by_name_and_read_alone(tmp_path, change, message):
    odd = save(tmp_path / "a_odd.dcm", slice_at(5, **change))
    paths = [odd, *(save(tmp_path / f"b{z}.dcm", slice_at(z)) for z in (0, 5))]
    listing = dicom_series(paths)
    (problem,) = listing.problems
    assert "a_odd.dcm" in problem and message in problem and "left out" in problem
    (series,) = listing.series
    assert [picture.origin.dataset.ImagePositionPatient[2] for picture in series.pictures()] == [0, 5]
    assert len(read_dicom([odd])) == 1
    with pytest.raises(InputError, match=message):
        read_dicom(paths)


def test_stacks_of_several_orientations_in_one_series_are_all_taken(tmp_path):
    paths = [
        save(tmp_path / f"{name}{k}.dcm", slice_at(k, ImageOrientationPatient=turn))
        for name, turn in (("axial", AXIAL), ("sagittal", SAGITTAL))
        for k in range(2)
    ]
    listing = dicom_series(paths)
    assert [len(series) for series in listing.series] == [2, 2] and not listing.problems
    assert "2 stacks of different orientation" in listing.remarks[0]


def test_a_series_of_scouts_alone_is_taken_whole(tmp_path):
    scouts = [
        slice_at(z, ImageOrientationPatient=way, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        for way in (AXIAL, SAGITTAL)
        for z in (0.0, 5.0)
    ]
    listing = dicom_series([save(tmp_path / f"{k}", made) for k, made in enumerate(scouts)])
    assert [len(entry) for entry in listing.series] == [2, 2] and not listing.problems


@pytest.mark.parametrize("field", ["EchoTime", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", None])
def test_phases_and_echoes_at_one_position_are_stacks_of_their_own(tmp_path, field):
    paths = []
    for z in (2, 0, 1):
        for phase in (30, 9):
            told = {field: phase} if field else {}
            number = 10 * phase + z
            paths.append(save(tmp_path / f"{z}-{phase}.dcm", slice_at(z, InstanceNumber=number, **told)))
    listing = dicom_series(paths)
    assert not listing.problems and "up to 2 images at one position" in listing.remarks[0]
    found = [[frame.header.InstanceNumber for frame in series.frames] for series in listing.series]
    assert found == [[90, 91, 92], [300, 301, 302]]
    assert ("which mix phases or echoes" in listing.remarks[0]) == (field is None)
    assert field is None or field in listing.remarks[0]


def test_one_repeated_slice_does_not_mix_b_values(tmp_path):
    taken = [(z, b) for z in range(4) for b in (0, 800)] + [(2, 800)]
    random.Random(1).shuffle(taken)
    paths = [
        save(tmp_path / f"{k}", slice_at(z, DiffusionBValue=b, InstanceNumber=k)) for k, (z, b) in enumerate(taken)
    ]
    listing = dicom_series(paths)
    found = [{frame.header.DiffusionBValue for frame in series.frames} for series in listing.series]
    assert found == [{0}, {800}, {800}] and [len(series) for series in listing.series] == [4, 4, 1]
    assert "told apart by DiffusionBValue, and 1 of equal values" in listing.remarks[0]


def test_echoes_of_phases_are_told_apart_by_both(tmp_path):
    taken = [(z, echo, phase) for z in range(3) for echo in (1, 2) for phase in (1, 2, 3)]
    random.Random(2).shuffle(taken)
    paths = [
        save(tmp_path / f"{k}", slice_at(z, EchoNumbers=echo, TemporalPositionIdentifier=phase, InstanceNumber=k))
        for k, (z, echo, phase) in enumerate(taken)
    ]
    listing = dicom_series(paths)
    found = [
        {(frame.header.EchoNumbers, frame.header.TemporalPositionIdentifier) for frame in series.frames}
        for series in listing.series
    ]
    assert [len(series) for series in listing.series] == [3] * 6 and all(len(kinds) == 1 for kinds in found)
    assert "TemporalPositionIdentifier and EchoNumbers" in listing.remarks[0] and "mix" not in listing.remarks[0]


@pytest.mark.parametrize("moved", [0.0, 0.006, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("field", ["TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "KVP"])
def test_a_phase_that_lies_a_little_aside_is_a_stack_of_its_own(tmp_path, field, moved):
    taken = [(2 * z + moved * phase, phase) for z in range(8) for phase in range(2)]
    random.Random(4).shuffle(taken)
    paths = [
        save(tmp_path / f"{k}", slice_at(z, InstanceNumber=k, **{field: 70 + 70 * phase}))
        for k, (z, phase) in enumerate(taken)
    ]
    listing = dicom_series(paths)
    assert [{int(getattr(frame.header, field)) for frame in one.frames} for one in listing.series] == [{70}, {140}]
    assert [len(one) for one in listing.series] == [8, 8] and f"told apart by {field}" in listing.remarks[0]


def test_what_tells_stacks_apart_is_read_from_files():
    assert set(_TELLING) <= set(_HEADER)


def test_a_field_that_changes_half_way_does_not_cut_stacks_into_pieces(tmp_path):
    paths = [
        save(tmp_path / f"{k}", slice_at(k // 2, AcquisitionNumber=1 + (k > 7), InstanceNumber=k)) for k in range(16)
    ]
    assert [len(series) for series in dicom_series(paths).series] == [8, 8]


@pytest.mark.parametrize(
    "sequence, field, values",
    [
        ("MRDiffusionSequence", "DiffusionBValue", [0.0, 50.0, 800.0]),
        ("FrameContentSequence", "TemporalPositionIndex", [1, 2, 3]),
        ("MREchoSequence", "EffectiveEchoTime", [2.3, 4.6, 90.0]),
        (
            "MRImageFrameTypeSequence",
            "FrameType",
            [["ORIGINAL", "PRIMARY", "DIXON", part] for part in ("FAT", "IP", "W")],
        ),
    ],
)
def test_frames_of_one_object_are_told_apart_by_their_own_groups(sequence, field, values):
    order = [(z, value) for value in range(3) for z in range(4)]
    random.Random(3).shuffle(order)
    made = enhanced([float(z) for z, _ in order])
    for frame, (_, value) in zip(made.PerFrameFunctionalGroupsSequence, order, strict=True):
        own = Dataset()
        setattr(own, field, values[value])
        setattr(frame, sequence, Sequence([own]))
    frames = [Frame(made, k + 1, None, "x", place_of(made, k + 1)) for k in range(len(order))]
    found = in_stacks(frames)
    assert [[order[f.number - 1] for f in stack] for stack in found.stacks] == [
        [(z, value) for z in range(4)] for value in range(3)
    ]
    assert "mix" not in found.remarks[0]


def test_a_second_image_at_one_position_is_taken_on_its_own(tmp_path):
    paths = [save(tmp_path / f"{k}.dcm", slice_at(z, InstanceNumber=k)) for k, z in enumerate((0, 1, 2, 1))]
    assert [len(series) for series in dicom_series(paths).series] == [3, 1]


def test_a_copy_is_left_out_and_another_image_of_the_same_uid_is_a_problem(tmp_path):
    first = save(tmp_path / "IM1", slice_at(0))
    (tmp_path / "IM1 (1)").write_bytes(first.read_bytes())
    listing = dicom_series([first, tmp_path / "IM1 (1)"])
    assert not listing.problems and "IM1 (1) is a copy of" in listing.remarks[0] and len(listing.series[0]) == 1
    other = save(tmp_path / "IM2", slice_at(3, SOPInstanceUID=dcmread(first).SOPInstanceUID))
    listing = dicom_series([first, other])
    assert "IM2 has the same SOP Instance UID as" in listing.problems[0] and len(listing.series[0]) == 1


def test_patients_whose_series_share_their_uid_stay_apart(tmp_path):
    paths = [save(tmp_path / f"{k}", slice_at(k, StudyInstanceUID=f"1.2.{k}")) for k in range(2)]
    assert [len(series) for series in dicom_series(paths).series] == [1, 1]


WHOLE = (
    "CT_small",
    "MR_small_RLE",
    "SC_rgb_jpeg_gdcm",
    "JPEG2000",
    "JPEGLSNearLossless_16",
    "examples_palette",
    "rtstruct",
)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_anywhere_is_one_line(tmp_path, name):
    content = (FILES / f"{name}.dcm").read_bytes()
    for share in np.linspace(0, 0.98, 25):
        (tmp_path / "cut.dcm").write_bytes(content[: int(len(content) * share)])
        refused(tmp_path / "cut.dcm", r"cut\.dcm")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_a_damaged_file_is_one_line_or_an_image(tmp_path_factory, seed):
    generator = random.Random(seed)
    content = bytearray((FILES / f"{generator.choice(WHOLE)}.dcm").read_bytes())
    for _ in range(generator.randint(1, 30)):
        content[generator.randrange(min(len(content), 3000))] = generator.randrange(256)
    path = tmp_path_factory.mktemp("damaged") / "x.dcm"
    path.write_bytes(content)
    try:
        pictures = read_dicom([path])
    except ManymaskError as error:
        assert "\n" not in str(error)
    else:
        assert all(p.pixels.dtype == np.uint8 for p in pictures)


def test_big_endian_keeps_its_values():
    made = slice_at(0, GREY)
    swapped = slice_at(0, GREY, syntax=ExplicitVRBigEndian, PixelData=GREY.byteswap().tobytes())
    assert (only(made) == only(swapped)).all()


def test_values_are_hounsfield_units_whatever_window_people_look_through():
    made = slice_at(0, GREY, RescaleSlope=2, RescaleIntercept=-1000)
    (picture,) = pictures_of([made], parse_window("lung"))
    assert (seen_through(picture, "values").pixels == GREY.astype(np.float32) * 2 - 1000).all()
    assert (seen_through(picture, "mediastinum").pixels == only(made, "mediastinum")).all()
    assert seen_through(picture, "header") is picture
    raster = Picture(np.zeros((8, 8), np.uint8), "photograph")
    assert seen_through(raster, "values") is raster


def test_values_keep_bright_bright_and_padding_dark():
    padded = GREY.copy()
    padded[:2] = 5000
    made = slice_at(0, padded, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=0, PixelPaddingValue=5000)
    (picture,) = pictures_of([made])
    values = seen_through(picture, "values").pixels
    assert (values[2:] == -padded[2:].astype(np.float32)).all() and (values[:2] == values[2:].min()).all()
