"""Stored values by one path for every transfer syntax, tables as their data are; held against GDCM."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import _expand_segmented_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from manymask.errors import InputError
from manymask.io.dicom.decode import decode
from manymask.io.dicom.pixels import frame_values, render
from manymask.io.dicom.series import load_dicom, seen_through
from manymask.io.dicom.tables import _expanded
from manymask.io.window import Window
from tests.dicom_files import dataset, pictures_of, save, slice_at

FILES = Path(pydicom.data.__file__).parent / "test_files"  # they come in pydicom's wheel
RNG = np.random.default_rng(0)
SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless)


def shown(made: Dataset) -> np.ndarray:
    (picture,) = pictures_of([made])
    return picture.pixels


def twelve_bits(stored: np.ndarray, syntax: str, **fields) -> Dataset:
    """16 bits allocated, 12 stored, written bit for bit, whatever stands above the twelve."""
    made = dataset(stored, BitsStored=16, HighBit=15)
    if syntax != ExplicitVRLittleEndian:
        made.compress(syntax)
    made.BitsStored, made.HighBit = 12, 11
    for name, value in fields.items():
        setattr(made, name, value)
    return made


# --- bits


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_are_masked_in_every_transfer_syntax(syntax, signed):
    pixels = RNG.integers(-2048 * signed, 4096 - 2048 * signed, (64, 72))
    overlay = RNG.integers(0, 16, (64, 72)) << 12
    stored = ((pixels & 0xFFF) | overlay).astype(np.uint16)
    made = twelve_bits(stored.view(np.int16) if signed else stored, syntax)
    assert (frame_values(made) == pixels).all()


@pytest.mark.parametrize("signed", [False, True])
def test_pixels_in_the_high_bits_are_shifted_down(signed):
    pixels = RNG.integers(-2048 * signed, 4096 - 2048 * signed, (16, 20)).astype(np.int16 if signed else np.uint16)
    made = dataset(pixels << 4, BitsStored=12, HighBit=15)
    assert (frame_values(made) == pixels).all()


def test_lossy_values_beyond_the_range_are_clipped_not_wrapped():
    made = twelve_bits(np.full((64, 64), 4097, np.uint16), JPEG2000Lossless, LossyImageCompression="01")
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.91"
    assert (decode(made, 1, "x").values == 4095).all()


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_is_found_however_its_value_was_written(padding):
    pixels = np.full((16, 16), -2000, np.int16)
    pixels[4:12, 4:12] = np.arange(64).reshape(8, 8)
    made = dataset(pixels)
    made.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    stored = decode(made, 1, "x")
    assert (stored.padding == (pixels == -2000)).all()


def test_padding_that_uses_the_bits_above_the_stored_ones_is_found():
    pixels = np.full((16, 16), 0x8000, np.uint16)
    pixels[4:, :] = 7
    stored = decode(twelve_bits(pixels, ExplicitVRLittleEndian, PixelPaddingValue=0x8000), 1, "x")
    assert (stored.padding == (pixels == 0x8000)).all()


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_fewer_than_eight_bits_reach_from_black_to_white(bits):
    top = (1 << bits) - 1
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16) % (top + 1)
    if bits == 1:
        packed = np.packbits(pixels.reshape(-1), bitorder="little").tobytes()
        made = dataset(pixels, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    else:
        made = dataset(pixels, BitsStored=bits, HighBit=bits - 1)
    assert (shown(made) == np.round(pixels / top * 255)).all()


@pytest.mark.parametrize("name", ["JPEG-lossy", "JPGExtended"])
def test_a_jpeg_of_twelve_bits_is_read_although_its_scan_ends_early(name):
    values = decode(load_dicom(FILES / f"{name}.dcm"), 1, name).values
    assert (values.min(), values.max()) == (0, 264)


@pytest.mark.parametrize(("photometric", "samples"), [("CMYK", 4), ("HSV", 3), ("YBR_PARTIAL_422", 3), ("RGB", 1)])
def test_colours_that_are_not_known_are_named(photometric, samples):
    made = dataset(RNG.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    made.PhotometricInterpretation, made.SamplesPerPixel = photometric, samples
    with pytest.raises(InputError, match=f"{photometric} pixels of {samples} sample"):
        pictures_of([made])


def test_one_bright_marker_does_not_squash_a_slice_without_a_window_and_the_stretch_is_told():
    plain = slice_at(0, RNG.integers(0, 4096, (64, 64)).astype(np.uint16))
    marked = slice_at(0, plain.pixel_array.copy())
    stored = plain.pixel_array.copy()
    stored[:2, :2] = 65535
    marked.PixelData = stored.tobytes()
    (without,), (picture,) = pictures_of([plain]), pictures_of([marked])
    assert np.abs(picture.pixels.astype(int) - without.pixels)[2:].max() <= 1
    assert "were stretched to 0 to 255; 4 outlying values" in picture.notes[0]
    assert not seen_through(picture, "values").notes and not seen_through(picture, "lung").notes
    assert pictures_of([marked], Window("full"))[0].pixels[2:].max() < 20


# --- tables

INDEX = np.arange(256, dtype=np.uint8).reshape(16, 16)


def with_palette(descriptor, tables, pixels=INDEX, segmented="", **fields) -> Dataset:
    made = dataset(pixels, PhotometricInterpretation="PALETTE COLOR", **fields)
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        made.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", list(descriptor))
        made.add_new(f"{segmented}{colour}PaletteColorLookupTableData", "OW", table)
    return made


RAMPS = [np.arange(256), 255 - np.arange(256), np.arange(256) // 2]
TRUTH = np.stack(RAMPS, axis=-1)[INDEX]


@pytest.mark.parametrize(
    ("bits", "written"),
    [
        (8, lambda ramp: ramp.astype(np.uint8)),  # bytes
        (8, lambda ramp: ramp.astype("<u2")),  # a word for each byte
        (16, lambda ramp: ramp.astype("<u2")),  # numbers of 8 bits, 16 announced
        (16, lambda ramp: (ramp * 257).astype("<u2")),
        (16, lambda ramp: ramp.astype(np.uint8)),  # bytes, 16 announced
    ],
)
def test_a_palette_is_taken_as_its_data_are(bits, written):
    made = with_palette([256, 0, bits], [written(ramp).tobytes() for ramp in RAMPS])
    assert (shown(made) == TRUTH).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_of_the_other_byte_order(bits):
    tables = [
        (ramp * 257).astype(">u2") if bits == 16 else ramp.astype(np.uint8).view("<u2").byteswap() for ramp in RAMPS
    ]
    made = with_palette([256, 0, bits], [table.tobytes() for table in tables])
    made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    made["PixelData"].VR = "OB"
    assert (render(made, 1, Window(), "x") == TRUTH).all()


@pytest.mark.parametrize(("first", "signed"), [(100, False), (65436, True)])
def test_values_outside_of_a_palette_have_its_ends(first, signed):
    pixels = (np.arange(256).reshape(16, 16) - 128 * signed).astype(np.int16 if signed else np.uint16)
    made = with_palette([64, first, 16], [(ramp[:64] * 257).astype("<u2").tobytes() for ramp in RAMPS], pixels)
    start = first - 65536 if signed else first
    assert (shown(made) == np.stack(RAMPS, axis=-1)[np.clip(pixels.astype(int) - start, 0, 63)]).all()


def test_a_palette_of_all_words_and_one_that_is_too_short():
    every = [np.arange(1 << 16, dtype="<u2").tobytes()] * 3
    pixels = (np.arange(256, dtype=np.uint16) * 256).reshape(16, 16)
    assert (shown(with_palette([0, 0, 16], every, pixels))[..., 0] == pixels >> 8).all()
    with pytest.raises(InputError, match="has a colour table that cannot be read"):
        pictures_of([with_palette([256, 0, 16], [b"\0" * 100] * 3)])


SEGMENTS = [0, 3, 5, 9, 200, 1, 7, 20, 0, 2, 1, 2, 1, 5, 250]


@pytest.mark.parametrize("tail", [[], [2, 2, 0, 0]])
@pytest.mark.parametrize("wide", [False, True])
def test_segments_expand_as_in_pydicom(wide, tail):
    data = SEGMENTS + (tail if wide else tail + tail[2:])
    assert _expanded(data, wide) == _expand_segmented_lut(tuple(data), "<H" if wide else "<B")


def test_a_segmented_palette_becomes_rgb_and_a_bomb_of_segments_is_refused():
    ramp = [0, 1, 0, 1, 255, 255]
    made = with_palette([256, 0, 8], [bytes(ramp)] * 3, segmented="Segmented")
    assert (shown(made) == INDEX[..., None]).all()
    bomb = np.array([0, 1, 0] + [1, 65535, 9] * 40, "<u2").tobytes()
    with pytest.raises(InputError, match="has a colour table that cannot be read"):
        pictures_of([with_palette([256, 0, 16], [bomb] * 3, segmented="Segmented")])


def lut_item(first, entries, bits, vr="US") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return Sequence([item])


def test_modality_and_voi_tables_follow_one_another():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    made = dataset(pixels, ModalityLUTSequence=lut_item(0, np.arange(256) * 4, 16))
    assert (frame_values(made) == pixels * 4.0).all()
    made.VOILUTSequence = lut_item(0, 1023 - np.arange(1024), 10)
    assert np.abs(shown(made) - (1023 - pixels * 4.0) / 1023 * 255).max() <= 0.5


@pytest.mark.parametrize(("vr", "first"), [("SS", -1024), ("US", 64512)])
def test_a_voi_table_may_begin_below_zero(vr, first):
    made = slice_at(0, np.arange(256, dtype=np.uint16).reshape(16, 16) * 4)
    made.VOILUTSequence = lut_item(first, np.arange(1024), 10, vr)
    assert np.abs(shown(made) - np.arange(256).reshape(16, 16) * 4 / 1023 * 255).max() <= 0.5


# --- GDCM

PLAIN = (
    "693_J2KI", "CT_small", "ExplVR_BigEnd", "GDCMJ2K_TextGBR", "JPEG2000", "JPEGLSNearLossless_08", "MR_small_RLE",
    "JPEGLSNearLossless_16", "MR_small_bigendian", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "SC_rgb_rle",
    "SC_jpeg_no_color_transform", "SC_rgb_jpeg", "SC_rgb_jpeg_gdcm", "SC_rgb_jls_lossy_sample", "SC_rgb_small_odd",
    "SC_rgb_small_odd_big_endian", "examples_overlay", "examples_palette", "examples_jpeg2k", "image_dfl", "JPEG-lossy",
)  # fmt: skip


def by_gdcm(path: Path) -> np.ndarray:
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm is not installed")
    rater = gdcm.ImageReader()
    rater.SetFileName(str(path))
    assert rater.Read()
    image, form = rater.GetImage(), rater.GetImage().GetPixelFormat()
    kind = f"{'i' if form.GetPixelRepresentation() else 'u'}{form.GetBitsAllocated() // 8}"
    raw = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), kind)
    (columns, rows), samples = image.GetDimensions()[:2], form.GetSamplesPerPixel()
    if samples == 1:
        return raw.reshape(rows, columns)
    planar = image.GetPlanarConfiguration() == 1
    return raw.reshape(samples, rows, columns).transpose(1, 2, 0) if planar else raw.reshape(rows, columns, samples)


@pytest.mark.parametrize("name", PLAIN)
def test_stored_values_are_those_of_gdcm(name):
    path = FILES / f"{name}.dcm"
    values, truth = decode(load_dicom(path), 1, name).values, by_gdcm(path)
    assert values.shape == truth.shape
    assert np.abs(values.astype(int) - truth).max() <= 1, "decoders of lossy JPEG may round differently"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda s: s.name)
def test_masked_bits_are_those_of_gdcm(tmp_path, syntax):
    noisy = RNG.integers(0, 1 << 16, (64, 72)).astype(np.uint16)
    path = save(tmp_path / "x.dcm", twelve_bits(noisy, syntax))
    assert (decode(dcmread(path), 1, "x").values == by_gdcm(path)).all()


GREY = np.arange(3072, dtype=np.uint16).reshape(48, 64) % 1000


@pytest.mark.parametrize("compressed", [False, True])
def test_more_pixels_than_the_header_speaks_of_are_no_single_image(compressed):
    made = dataset(GREY, NumberOfFrames=3)
    made.PixelData = GREY.tobytes() * 3
    if compressed:
        made.compress(JPEGLSLossless, encapsulate_ext=False, generate_instance_uid=False)
    del made.NumberOfFrames
    with pytest.raises(InputError, match="holds the pixels of 3 frames, but its header speaks of 1"):
        frame_values(made)


@pytest.mark.parametrize("frames", [None, 0, 2, 5])
def test_frames_that_are_described_and_not_there_or_not_counted_are_refused(frames):
    made = dataset(GREY, NumberOfFrames=frames)
    made.PixelData = GREY.tobytes() * 3
    made.PerFrameFunctionalGroupsSequence = [Dataset(), Dataset(), Dataset()]
    with pytest.raises(InputError, match=f"its header describes 3 frames, but speaks of {frames or 1}"):
        pictures_of([made])


def test_what_a_header_leaves_out_has_its_default_and_colours_have_no_sign():
    colours = np.stack([GREY // 4, 249 - GREY // 4, GREY // 8], axis=-1).astype(np.uint8)
    (seen,) = pictures_of([dataset(colours, PlanarConfiguration=None, PixelRepresentation=1)])
    assert (seen.pixels == colours).all()
    for said in (None, "monochrome2"):
        assert (frame_values(dataset(GREY, PhotometricInterpretation=said, SamplesPerPixel=None)) == GREY).all()
    with pytest.raises(InputError, match="its header lacks PixelRepresentation"):
        frame_values(dataset(GREY, PixelRepresentation=None))


def test_a_slope_of_zero_is_no_scale():
    with pytest.raises(InputError, match="its rescale slope is 0"):
        frame_values(dataset(GREY, RescaleSlope=0, RescaleIntercept=7))


@pytest.mark.parametrize("centre", [-3000, 30000])
def test_a_window_of_the_file_that_shows_nothing_is_left_aside_with_a_word(centre):
    (seen,) = pictures_of([dataset(GREY, WindowCenter=centre, WindowWidth=100)])
    assert (seen.pixels.min(), seen.pixels.max()) == (0, 255)
    assert seen.notes[-1].endswith("0 to 999 were stretched to 0 to 255. The window of the file shows none of them.")
