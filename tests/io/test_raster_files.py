"""Images in, results out, and what happens to files that are not what they say."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from manymask.ensemble import fuse
from manymask.errors import InputError
from manymask.inference import preprocess
from manymask.inference.outputs import Output, outline, overlay, pairwise_agreement, write_result
from manymask.inference.preprocess import PastedMasks, View
from manymask.inference.segmentation import Segmentation
from manymask.io.atomic import Ours, atomic_file, atomic_folder, read_json, write_json
from manymask.io.masks import read_mask
from manymask.io.raster import read_image, write_png


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_come_back_exactly(tmp_path, suffix, channels):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(tmp_path / f"x{suffix}")
    assert (read_image(tmp_path / f"x{suffix}", channels) == pixels).all()


def test_sixteen_bits_are_stretched(tmp_path):
    pixels = np.linspace(1000, 3000, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", pixels)
    tifffile.imwrite(tmp_path / "c.tif", np.repeat(pixels[:, :, None], 3, axis=2), photometric="rgb")
    for name in ("a.png", "b.tif", "c.tif"):
        grey = read_image(tmp_path / name, 1)
        assert grey.min() == 0 and grey.max() == 255 and grey.dtype == np.uint8


def test_transparency_palette_and_rotation_are_dealt_with(tmp_path):
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    colour.convert("RGBA").save(tmp_path / "rgba.png")
    colour.convert("P").save(tmp_path / "palette.png")
    exif = colour.getexif()
    exif[274] = 6  # turned by a quarter
    colour.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "rgba.png", 3).shape == read_image(tmp_path / "palette.png", 3).shape == (20, 30, 3)
    assert read_image(tmp_path / "turned.jpg", 3).shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("text.png", b"hello"),
        ("cut.png", None),
        ("text.tif", b"hello"),
        ("cut.jpg", None),
        ("cut.tif", None),
    ],
)
def test_bad_files_get_one_line_naming_them(tmp_path, name, content):
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()[:300]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        read_image(tmp_path / name, 1)
    assert "\n" not in str(caught.value)


def test_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "nothing.png", 1)


def test_decompression_bomb_is_refused_before_decoding(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="more than 100 million pixels"):
        read_image(tmp_path / "bomb.png", 1)


def test_nan_in_a_float_image_is_said(tmp_path):
    pixels = np.ones((8, 8), np.float32)
    pixels[3, 3] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", pixels)
    with pytest.raises(InputError, match=r"nan\.tif holds values that are not numbers"):
        read_image(tmp_path / "nan.tif", 1)
    with pytest.raises(InputError, match=r"nan\.tif: the mask holds values that are not numbers"):
        read_mask(tmp_path / "nan.tif")


@pytest.mark.parametrize("value", [1, 255])
def test_binary_masks_of_either_convention(tmp_path, value):
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = value
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == (mask > 0)).all()


def test_many_pages_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((4, 16, 16), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="holds 4 pages"):
        read_image(tmp_path / "stack.tif", 1)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as beside:
        beside.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as beside:
        (beside / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / "out"):
        pass


def test_only_a_folder_of_ours_is_replaced(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / "theirs", Ours("result.json")):
        pass
    assert (tmp_path / "theirs" / "thesis.tex").exists()
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "ours", Ours("result.json")) as beside:
            (beside / "result.json").write_text(content)
    assert (tmp_path / "ours" / "result.json").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours", "theirs"]
    with (
        pytest.raises(InputError, match="exists already"),
        atomic_folder(tmp_path / "ours", Ours("result.json", "manymask")),
    ):
        pass  # the name is ours, what it holds is not


def test_json_refuses_nan_and_names_damage(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match=r"b\.json is not readable JSON"):
        read_json(tmp_path / "b.json")


def fused(image, masks):
    """A result that is not calibrated."""
    drawn = torch.from_numpy(masks)
    masks = PastedMasks(drawn[None], View(image, []))
    return Segmentation(**vars(fuse(drawn)), drawn=masks, image=image, seconds={}, uncalibrated="There is no model.")


def test_result_folder_holds_what_is_promised(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 1), dtype=np.uint8)
    masks = np.zeros((3, 40, 50), np.float32)
    masks[:, 10:30, 10:30] = 0.75
    masks[2, 20:30] = 0.1
    write_result(tmp_path / "case", Output(fused(image, masks), image, {"seed": 0}))
    names = {p.name for p in (tmp_path / "case").iterdir()}
    assert names == {
        "mask-01.png",
        "mask-02.png",
        "mask-03.png",
        "confidence.png",
        "consensus.png",
        "overlay.png",
        "result.json",
    }
    confidence = np.asarray(Image.open(tmp_path / "case/confidence.png"))
    assert confidence.dtype == np.uint16 and confidence.max() == round(0.75 * 65535)
    content = json.loads((tmp_path / "case/result.json").read_text())
    assert content["promises"] == {"calibrated": False, "why_not": "There is no model."}
    assert content["areas"] == [400, 400, 200] and content["seed"] == 0
    assert content["pairwise_iou"] == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_outline_lies_inside_and_overlay_keeps_the_rest():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    line = outline(mask)
    assert line.sum() == 36 and (line & ~mask).sum() == 0
    image = np.full((20, 20, 1), 90, np.uint8)
    drawn = overlay(image, mask[None], mask)
    assert (drawn[0, 0] == 90).all() and (drawn[5, 5] == 255).all()


def test_agreement_of_one_mask_is_undefined():
    assert pairwise_agreement(np.ones((1, 4, 4), bool)) is None
    assert pairwise_agreement(np.zeros((2, 4, 4), bool)) == 1


def test_masks_are_written_black_and_white(tmp_path):
    write_png(tmp_path / "m.png", np.eye(4, dtype=bool))
    assert set(np.unique(np.asarray(Image.open(tmp_path / "m.png")))) == {0, 255}


def test_masks_that_are_cut_one_by_one_leave_the_same_result(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image, masks = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), rng.random((3, 20, 30), dtype=np.float32)
    found = fused(image, masks)
    for name, at_once in (("whole", 10**9), ("cut", 0)):
        monkeypatch.setattr(preprocess, "_AT_ONCE", at_once)
        write_result(tmp_path / name, Output(found, image, {}))
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes(), path.name
    written = np.asarray(Image.open(tmp_path / "cut/confidence.png"))
    assert (written == np.round(found.confidence.numpy() * 65535).astype(np.uint16)).all()
