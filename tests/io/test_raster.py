"""A picture means the same whatever its container, compression, planes, bits and orientation; or it is refused."""

import io
import struct
from importlib.util import find_spec
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from manymask.errors import InputError, ManymaskError
from manymask.io.raster import SUFFIXES, claimed_size, is_raster, read_image, read_noted, read_pixels
from tests.raster_files import png, tiff

HEIGHT, WIDTH = 11, 13  # no multiple of anything
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (HEIGHT, WIDTH))
COLOUR = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3))
COMPRESSIONS = (1, 5, 8, 32773)


def read(tmp_path, content: bytes, name: str = "a.tif") -> np.ndarray:
    (tmp_path / name).write_bytes(content)
    return read_pixels(tmp_path / name)


def by_pillow(content: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    return np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK") else image)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
class TestTiff:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
    @pytest.mark.parametrize("inverted", [False, True])
    def test_grey_of_any_bits(self, tmp_path, compression, order, bits, inverted):
        stored = GREY * (2**bits - 1) // 255
        content = tiff(stored, bits, int(not inverted), compression=compression, order=order, rows=4)
        shown = 2**bits - 1 - stored if inverted else stored
        expected = shown * 255 // (2**bits - 1) if bits < 8 else shown
        found = read(tmp_path, content)
        assert (found.astype(int) * (255 if bits == 1 else 1) == expected).all()
        if bits < 12 or (bits == 16 and not inverted):  # Pillow refuses the others, but for one of 12 bits
            assert (by_pillow(content).astype(int) == found).all()

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("planar", [False, True])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_colour_of_any_planes_and_orientation(self, tmp_path, compression, order, bits, planar, orientation):
        stored = COLOUR * (2**bits - 1) // 255
        tags = {274: [orientation]}
        content = tiff(stored, bits, 2, compression=compression, order=order, planar=planar, tags=tags, rows=4)
        found = read(tmp_path, content)
        turn = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
                5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
                7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}[orientation]  # fmt: skip
        assert found.dtype.itemsize * 8 == bits and (found == turn(stored)).all()
        if bits == 8 and not (planar and order == ">"):
            assert (by_pillow(content) == found).all()

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("deep", [False, True])
    def test_palettes_with_maps_of_8_and_16_bits(self, tmp_path, compression, order, bits, deep):
        used = min(2**bits, 256)
        indices = GREY * (used - 1) // 255
        colours = RANDOM.integers(0, 256, (2**bits, 3))
        table = (colours * 257 if deep else colours).T.reshape(-1).tolist()
        content = tiff(indices, bits, 3, compression=compression, order=order, tags={320: table})
        found = read(tmp_path, content)
        assert found.dtype == np.uint8 and (found == colours[indices]).all()
        if bits in (4, 8) and deep:
            assert (by_pillow(content) == found).all()

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("planar", [False, True])
    def test_cmyk(self, tmp_path, compression, order, bits, planar):
        inks = np.concatenate([COLOUR, GREY[:, :, None] // 2], axis=2) * (2**bits - 1) // 255
        content = tiff(inks, bits, 5, compression=compression, order=order, planar=planar)
        light = 1 - inks / (2**bits - 1)
        expected = light[:, :, :3] * light[:, :, 3:] * (2**bits - 1)
        found = read(tmp_path, content)
        assert np.abs(found - expected).max() < 1
        if bits == 8 and not planar:
            assert np.abs(by_pillow(content).astype(int) - found).max() <= 1

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("planar", [False, True])
    def test_alpha_is_composed_on_white(self, tmp_path, compression, order, channels, planar):
        colours = GREY[:, :, None] if channels == 1 else COLOUR
        alpha = np.flipud(GREY)[:, :, None]
        stored = np.concatenate([colours, alpha], axis=2)
        content = tiff(stored, 8, 1 if channels == 1 else 2, compression=compression, order=order, planar=planar,
                       tags={338: [2]})  # fmt: skip
        expected = (colours * alpha + 255 * (255 - alpha)) / 255
        assert np.abs(read(tmp_path, content).reshape(expected.shape) - expected).max() <= 0.5 + 1e-3
        premultiplied = np.concatenate([colours * alpha // 255, alpha], axis=2)
        content = tiff(premultiplied, 8, 1 if channels == 1 else 2, compression=compression, order=order, planar=planar,
                       tags={338: [1]})  # fmt: skip
        assert np.abs(read(tmp_path, content).reshape(expected.shape) - expected).max() <= 1.5


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(
    ("predictor", "dtype"), [(2, np.uint8), (2, np.uint16), (3, np.float16), (3, np.float32), (3, np.float64)]
)
def test_predictors_tiles_and_floats(tmp_path, predictor, tile, dtype):
    values = (np.arange(40 * 30).reshape(40, 30) % 251).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", values, compression="zlib", predictor=predictor, tile=tile, photometric="minisblack"
    )
    found = read_pixels(tmp_path / "a.tif")
    assert (found == values).all() and found.dtype == (np.float32 if np.dtype(dtype).kind == "f" else dtype)


@pytest.mark.parametrize("compression", ["zstd", "lzma", "jpeg", "webp", "jpeg2000"])
def test_further_compressions(tmp_path, compression):
    smooth = np.stack([np.add.outer(np.arange(64), np.arange(48)) + 40 * k for k in range(3)], axis=2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, compression=compression, photometric="rgb")
    assert np.abs(read_pixels(tmp_path / "a.tif").astype(int) - smooth).max() < 8


def test_ycbcr_with_and_without_jpeg(tmp_path):
    smooth = np.stack([np.add.outer(np.arange(64), np.arange(48)) + 40 * k for k in range(3)], axis=2).astype(np.uint8)
    converted = np.asarray(Image.fromarray(smooth).convert("YCbCr"))
    found = read(tmp_path, tiff(converted, 8, 6, compression=5, tags={530: [1, 1]}))
    assert np.abs(found.astype(int) - smooth).max() <= 2
    for subsampling in ((1, 1), (2, 1), (2, 2)):
        tifffile.imwrite(tmp_path / "b.tif", smooth, compression="jpeg", photometric="rgb", subsampling=subsampling)
        assert np.abs(read_pixels(tmp_path / "b.tif").astype(int) - smooth).max() < 8
    squeezed = tiff(converted, 8, 6, tags={530: [2, 2]}, data=[bytes(HEIGHT * WIDTH * 2)])
    with pytest.raises(InputError, match="chroma subsampling"):
        read(tmp_path, squeezed)


def test_cielab_equals_what_lcms_makes_of_it(tmp_path):
    image = Image.fromarray(COLOUR.astype(np.uint8)).resize((40, 40))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    lab.save(tmp_path / "lab.tif")
    found = read_pixels(tmp_path / "lab.tif").astype(int)
    back = np.asarray(ImageCms.profileToProfile(lab, *reversed(profiles), outputMode="RGB"))
    assert np.abs(found - back).mean() < 1 and np.abs(found - np.asarray(image)).mean() < 3


def test_signed_samples_keep_their_order(tmp_path):
    for dtype in (np.int8, np.int16, np.int32):
        values = (GREY - 128).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
        assert (read_pixels(tmp_path / "a.tif") == values).all()
        tifffile.imwrite(tmp_path / "b.tif", values, photometric="miniswhite")
        shown, negative = read_image(tmp_path / "a.tif", 1), read_image(tmp_path / "b.tif", 1)
        assert np.abs(255 - negative.astype(int) - shown).max() <= 1


@pytest.mark.parametrize("photometric", [9, 10, 32803, 32844, 32845, 34892, 51177])
def test_samples_of_another_kind_are_named(tmp_path, photometric):
    with pytest.raises(InputError, match=r"a\.tif: samples of the kind \S+ are not supported"):
        read(tmp_path, tiff(COLOUR, 8, photometric))


def test_what_a_tiff_does_not_say_is_not_guessed(tmp_path):
    content = tiff(GREY, 8, 1).replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 263, 3, 1))
    with pytest.raises(InputError, match="does not say what its samples mean"):
        read(tmp_path, content)
    with pytest.raises(InputError, match="no colour map"):
        read(tmp_path, tiff(GREY, 8, 3))
    with pytest.raises(InputError, match="5 channels are neither"):
        read(tmp_path, tiff(RANDOM.integers(0, 256, (8, 8, 5)), 8, 1))
    with pytest.raises(InputError, match="inks other than CMYK"):
        read(tmp_path, tiff(RANDOM.integers(0, 256, (8, 8, 4)), 8, 5, tags={332: [2]}))
    with pytest.raises(InputError, match="colours that its colour map does not hold"):
        read(tmp_path, tiff(np.full((8, 8), 3), 8, 3, tags={320: [1, 2] * 3}))


def test_extra_channels_are_left_out_with_a_word(tmp_path):
    stored = RANDOM.integers(0, 256, (8, 8, 5))
    (tmp_path / "a.tif").write_bytes(tiff(stored, 8, 2, tags={338: [0, 0]}))
    pixels, notes = read_noted(tmp_path / "a.tif")
    assert (pixels == stored[:, :, :3]).all() and notes == ("2 extra channel(s) of the file were left out.",)


class TestPages:
    def test_the_largest_is_read_and_it_is_said(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(COLOUR[:4, :5].astype(np.uint8), photometric="rgb", subfiletype=1)
            file.write(COLOUR.astype(np.uint8), photometric="rgb")
        pixels, notes = read_noted(tmp_path / "a.tif")
        assert (pixels == COLOUR).all() and notes == ("The file holds 2 pages; the largest was read.",)

    def test_a_larger_page_in_a_sub_directory_is_found(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(COLOUR[:4, :5].astype(np.uint8), photometric="rgb", subifds=1)
            file.write(COLOUR.astype(np.uint8), photometric="rgb", subfiletype=1)
        assert (read_pixels(tmp_path / "a.tif") == COLOUR).all()

    def test_a_mask_of_transparency_is_no_page(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(COLOUR.astype(np.uint8), photometric="rgb")
            file.write(GREY > 99, photometric=4, subfiletype=4)
        assert (read_pixels(tmp_path / "a.tif") == COLOUR).all()

    @pytest.mark.parametrize(
        "options", [{}, {"imagej": True}, {"truncate": True}, {"imagej": True, "truncate": True}, {"volumetric": True}]
    )
    def test_a_stack_is_refused_with_its_number(self, tmp_path, options):
        stack = np.stack([GREY.astype(np.uint8)] * 5)
        if "volumetric" in options:
            options = {"volumetric": True, "tile": (16, 16, 16)}
        tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
        with pytest.raises(InputError, match=r"a\.tif holds 5 pages"):
            read_pixels(tmp_path / "a.tif")

    @pytest.mark.parametrize("suffix", ["png", "gif", "webp", "tif"])
    def test_an_animation_is_refused_with_its_number(self, tmp_path, suffix):
        frames = [Image.fromarray(GREY.astype(np.uint8) // (k + 1)).convert("RGB") for k in range(3)]
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match=r"3 (frames|pages)"):
            read_pixels(tmp_path / f"a.{suffix}")

    def test_of_a_jpeg_of_several_pictures_the_first_is_read(self, tmp_path):
        frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "green")]
        frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
        pixels, notes = read_noted(tmp_path / "a.jpg")
        assert pixels[0, 0, 0] > 200 and notes == ("The file holds 2 pictures; the first was read.",)


class TestDamagedJpeg:
    """Pillow fills what is missing with grey, and says nothing where an end marker stands."""

    def content(self, **options) -> bytes:
        picture = Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)).resize((240, 160))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90, **options)
        return buffer.getvalue()

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
    def test_cut_short_or_overwritten_is_refused(self, tmp_path, options):
        whole = self.content(**options)
        half = len(whole) // 2
        for broken in (
            whole[:half],
            whole[:half] + b"\xff\xd9",
            whole[:half] + whole[half + 400 :],
            whole[:half] + b"\xff\xd3" * 200 + whole[half + 400 :],
        ):
            with pytest.raises(InputError, match=r"a\.jpg is damaged"):
                read(tmp_path, broken, "a.jpg")

    def test_bytes_too_many_are_noted(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(self.content()[:-2] + bytes(9) + b"\xff\xd9")
        (note,) = read_noted(tmp_path / "a.jpg")[1]
        assert note.startswith("The JPEG may be damaged: ") and "extraneous bytes before marker 0xd9" in note

    def test_what_follows_a_whole_picture_does_not_count(self, tmp_path):
        whole = self.content()
        assert (read(tmp_path, whole + bytes(500), "a.jpg") == read(tmp_path, whole, "b.jpg")).all()

    def test_a_kind_that_is_not_supported_is_called_a_jpeg(self, tmp_path):
        content = imagecodecs.jpeg_encode(GREY.astype(np.uint16) * 16, bitspersample=12)
        with pytest.raises(InputError, match="a JPEG that is not supported"):
            read(tmp_path, content, "a.jpg")

    @pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPEG"])
    def test_other_endings_of_the_same(self, tmp_path, suffix):
        assert is_raster(tmp_path / f"a{suffix}")


class TestPng:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_grey_of_any_bits(self, tmp_path, bits):
        stored = GREY * (2**bits - 1) // 255
        found = read(tmp_path, png(stored, bits, 0), "a.png")
        assert (
            found.astype(int) * (255 if bits == 1 else 1) == (stored * 255 // (2**bits - 1) if bits < 8 else stored)
        ).all()

    @pytest.mark.parametrize("bits", [8, 16])
    def test_colour_keeps_its_depth(self, tmp_path, bits):
        stored = RANDOM.integers(0, 2**bits, (HEIGHT, WIDTH, 3))
        found = read(tmp_path, png(stored, bits, 2), "a.png")
        assert found.dtype.itemsize * 8 == bits and (found == stored).all()

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_palette(self, tmp_path, bits):
        colours = RANDOM.integers(0, 256, (2**bits, 3), dtype=np.uint8)
        indices = GREY * (2**bits - 1) // 255
        chunks = ((b"PLTE", colours.tobytes()), (b"tRNS", b"\0"))
        found = read(tmp_path, png(indices, bits, 3, chunks[:1]), "a.png")
        assert (found == colours[indices]).all()
        colours[0] = 255  # transparent, hence white
        assert (read(tmp_path, png(indices, bits, 3, chunks), "b.png") == colours[indices]).all()

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("colour", [4, 6])
    def test_alpha_is_composed_on_white(self, tmp_path, bits, colour):
        most = 2**bits - 1
        stored = RANDOM.integers(0, most + 1, (HEIGHT, WIDTH, 2 if colour == 4 else 4))
        stored[0, :2, -1] = most
        stored[0, 0, :-1] = most
        found = read(tmp_path, png(stored, bits, colour), "a.png")
        colours, alpha = stored[:, :, :-1], stored[:, :, -1:]
        expected = (colours * alpha + most * (most - alpha)) / most
        assert found.dtype.itemsize * 8 == bits and np.abs(found.reshape(expected.shape) - expected).max() <= 1

    @pytest.mark.parametrize(("bits", "colour"), [(1, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
    def test_a_transparent_colour_is_white(self, tmp_path, bits, colour):
        most = 2**bits - 1
        stored = RANDOM.integers(0, most + 1, (HEIGHT, WIDTH, 1 if colour == 0 else 3))
        stored[0, :3] = most
        stored[4:6] = key = most // 3
        chunk = (b"tRNS", struct.pack(">H", key) * stored.shape[2])
        found = read(tmp_path, png(stored, bits, colour, (chunk,)), "a.png")
        scaled = stored * (255 // most) if bits < 8 else stored
        expected = np.where((stored == key).all(axis=2, keepdims=True), 255 if bits < 8 else most, scaled)
        found = found.reshape(expected.shape).astype(int) * (255 if found.dtype == bool else 1)
        assert (found == expected).all()

    def test_orientation_counts_at_any_depth(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        for bits in (8, 16):
            stored = COLOUR * (2**bits - 1) // 255
            content = png(stored, bits, 2, ((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),))
            assert (read(tmp_path, content, "a.png") == np.rot90(stored, -1)).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "gif", "png"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "RGBA", "LA"])
def test_what_pillow_writes_is_read_as_pillow_reads_it(tmp_path, suffix, mode):
    image = Image.fromarray(COLOUR.astype(np.uint8)).convert(mode)
    path = tmp_path / f"a.{suffix}"
    try:
        image.save(path)
    except (OSError, ValueError):
        pytest.skip("cannot be written")
    with Image.open(path) as again:
        expected = np.asarray(again.convert("RGB"))
    assert (read_image(path, 3) == expected).all()


def files_of_others() -> list[Path]:
    """Pictures that other packages brought along."""
    places = (("skimage", "data"), ("matplotlib", "mpl-data"), ("gradio", "media_assets"))
    specs = [(find_spec(name), inside) for name, inside in places]
    folders = [Path(spec.origin).parent / inside for spec, inside in specs if spec and spec.origin]
    found = [p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES]
    return sorted(p for p in found if p.stat().st_size < 300_000)


def test_files_of_other_packages_look_as_pillow_shows_them():
    compared = 0
    for path in files_of_others():
        try:
            found = read_image(path, 3)
        except ManymaskError as error:
            assert "give one image per file" in str(error)
            continue
        with Image.open(path) as image:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
        assert np.abs(np.asarray(white.convert("RGB")).astype(int) - found).max() <= 1, path
        compared += 1
    assert compared > 20


def test_a_fully_transparent_picture_is_refused(tmp_path):
    Image.fromarray(COLOUR.astype(np.uint8)).convert("RGBA").save(tmp_path / "a.png")
    blank = Image.open(tmp_path / "a.png")
    blank.putalpha(0)
    blank.save(tmp_path / "b.png")
    assert (read_pixels(tmp_path / "a.png") == COLOUR).all()
    with pytest.raises(InputError, match=r"b\.png is fully transparent"):
        read_pixels(tmp_path / "b.png")


@pytest.mark.parametrize(("rows", "said"), [(0, ()), (10, "25.0%"), (40, "100.0%")])
def test_how_much_was_put_on_white_is_told(tmp_path, rows, said):
    alpha = np.full((40, 50), 255, np.uint8)
    alpha[:rows] = 254  # hardly seen, and yet not what the file holds
    Image.fromarray(np.dstack([np.full((40, 50, 3), 90, np.uint8), alpha])).save(tmp_path / "a.png")
    notes = read_noted(tmp_path / "a.png")[1]
    assert notes == (() if not said else (f"{said} of the picture is transparent and was put on white.",))


def test_the_content_decides_not_the_name(tmp_path):
    assert (read(tmp_path, tiff(COLOUR, 8, 2), "a.png") == COLOUR).all()
    assert (read(tmp_path, png(COLOUR, 8, 2), "a.tif") == COLOUR).all()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    "head", [POSTSCRIPT, b"DDS " + bytes(200), b"\x10\x02\0\0\x11\xaf" + bytes(200), b"P6 2 2 255 " + bytes(12)]
)
def test_other_formats_are_never_opened_whatever_their_name(tmp_path, head, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)
    for name in ("lesion.png", "lesion.tif"):
        with pytest.raises(InputError, match=rf"{name} is not an image that can be read \(PNG, JPEG, TIFF"):
            read(tmp_path, head, name)
        with pytest.raises(InputError, match="is not an image"):
            claimed_size(tmp_path / name)


class TestSizes:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif", "tif"])
    def test_are_claimed_without_decoding(self, tmp_path, suffix):
        Image.fromarray(COLOUR.astype(np.uint8)).save(tmp_path / f"a.{suffix}")
        content = (tmp_path / f"a.{suffix}").read_bytes()
        assert claimed_size(tmp_path / f"a.{suffix}")[:2] == (HEIGHT, WIDTH)
        if suffix in ("png", "jpg"):
            (tmp_path / f"a.{suffix}").write_bytes(content[:-50])
            assert claimed_size(tmp_path / f"a.{suffix}")[:2] == (HEIGHT, WIDTH)

    @pytest.mark.parametrize(("side", "channels", "bits", "what"), [
        (20_000, 1, 8, "million pixels"), (9_000, 4, 32, "MB decoded"), (0, 1, 8, "0×0 pixels"),
    ])  # fmt: skip
    def test_beyond_bounds_are_refused_before_decoding(self, tmp_path, side, channels, bits, what):
        tiny = np.zeros((1, 1, channels))
        photometric = 5 if channels == 4 else 1
        content = tiff(tiny, bits, photometric, compression=8, tags={256: [side], 257: [side], 278: [max(side, 1)]})
        for act in (read_pixels, claimed_size):
            (tmp_path / "a.tif").write_bytes(content)
            with pytest.raises(InputError, match=what):
                act(tmp_path / "a.tif")

    def test_a_tile_is_bounded_too(self, tmp_path):
        tiles = {322: [65_520], 323: [65_520], 324: [8], 325: [8]}
        content = tiff(np.zeros((16, 16)), 8, 1, compression=8, tags=tiles)
        with pytest.raises(InputError, match="MB decoded"):
            read(tmp_path, content)

    def test_a_jpeg_inside_a_tiff_is_bounded_by_its_place(self, tmp_path):
        large = imagecodecs.jpeg8_encode(np.zeros((2000, 2000), np.uint8))
        with pytest.raises(InputError, match="a tile claims 2000×2000 pixels"):
            read(tmp_path, tiff(np.zeros((16, 16)), 8, 1, compression=7, data=[large]))

    def test_a_cut_tiff_is_said_to_be_cut(self, tmp_path):
        content = tiff(GREY, 8, 1, compression=5, rows=2)
        strip = struct.unpack("<I", content[4:8])[0]
        with pytest.raises(InputError, match="cut short"):
            read(tmp_path, content[: strip // 2] + bytes(4))
        moved = tiff(GREY, 8, 1, compression=5).replace(
            struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 273, 4, 1, 9999)
        )
        with pytest.raises(InputError, match="is cut short"):
            read(tmp_path, moved)
        gone = tiff(GREY, 8, 1, compression=5).replace(
            struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 273, 4, 1, 0)
        )
        with pytest.raises(InputError, match="lacks some of its strips"):
            read(tmp_path, gone)
