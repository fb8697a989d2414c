"""Photographs of phones: HEIC and AVIF are read upright, and what is missing is one line."""

import sys

import numpy as np
import pytest
from PIL import Image, features

from manymask import Segmenter
from manymask.errors import InputError, MissingExtraError
from manymask.io import heif
from manymask.io.inputs import find_inputs, read_pictures
from manymask.io.raster import claimed_size, is_raster, read_pixels
from tests.factories import run

PHOTO = np.zeros((60, 100, 3), np.uint8)
PHOTO[:30, :50, 0], PHOTO[30:, 50:, 1], PHOTO[30:, :50, 2] = 250, 200, 220
TURNED = {1: PHOTO, 3: PHOTO[::-1, ::-1], 6: np.rot90(PHOTO, -1), 8: np.rot90(PHOTO)}


def photo(path, orientation=1):
    """As a phone writes it: the orientation is in the container, and in EXIF too."""
    if path.suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="the extra `heif` is not installed")
        heif._register()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PHOTO).save(path, exif=exif.tobytes(), quality=95)
    return path


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["heic", "avif"])
def test_a_photograph_is_turned_upright_once(tmp_path, ending, orientation):
    path = photo(tmp_path / f"IMG_0001.{ending}", orientation)
    found = read_pixels(path).astype(int)
    assert found.shape == TURNED[orientation].shape
    assert np.abs(found - TURNED[orientation]).mean() < 5
    claim = claimed_size(path)
    assert {claim.height, claim.width} == {60, 100}


@pytest.mark.parametrize("ending", ["heic", "avif"])
def test_photographs_are_found_by_name_and_by_content(tmp_path, ending):
    photo(tmp_path / f"a.{ending}").rename(tmp_path / "IMG_0002")
    photo(tmp_path / f"b.{ending.upper()}".replace(ending.upper(), ending))
    assert is_raster(tmp_path / f"b.{ending}")
    names = [picture.name for picture in read_pictures([tmp_path])]
    assert names == ["IMG_0002", "b"]


def test_segment_takes_a_photograph_and_its_bytes(tmp_path, drawing_model, monkeypatch):
    path = photo(tmp_path / "lesion.heic", 6)
    assert run(monkeypatch, "segment", path, "-m", drawing_model, "-o", tmp_path / "out", "-n", 1) == 0
    with Image.open(tmp_path / "out/lesion/consensus.png") as mask:
        assert mask.size == (60, 100)
    assert Segmenter.from_pretrained(drawing_model).segment(path.read_bytes(), 1).image.shape[:2] == (100, 60)


def test_the_main_picture_of_several_is_read_and_said(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heif` is not installed")
    file = pillow_heif.from_pillow(Image.fromarray(255 - PHOTO))
    file.add_from_pillow(Image.fromarray(PHOTO))
    file.save(tmp_path / "burst.heic", quality=95, primary_index=1)
    (picture,) = read_pictures([tmp_path / "burst.heic"])
    assert np.abs(picture.pixels.astype(int) - PHOTO).mean() < 5
    assert picture.notes == ("The file holds 2 pictures; the main one was read.",)


def test_a_damaged_photograph_is_one_line(tmp_path):
    path = photo(tmp_path / "a.heic")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"a\.heic is"):
        read_pixels(path)


def test_without_the_extra_it_is_named_once_for_a_folder(tmp_path, drawing_model, monkeypatch, capsys):
    for name in "ab":
        photo(tmp_path / "in.heic").rename(tmp_path / f"{name}.heic")
    Image.fromarray(PHOTO).save(tmp_path / "c.png")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        MissingExtraError, match=r"reading HEIC needs the extra `heif`: pip install 'manymask\[heif\]'"
    ) as caught:
        read_pixels(tmp_path / "a.heic")
    assert caught.value.extra == "heif"
    found = find_inputs([tmp_path])
    assert [entry.path.name for entry in found.inputs] == ["c.png"]
    assert found.problems == [f"{tmp_path}: 2 photograph(s) left out: {caught.value}"]
    assert run(monkeypatch, "segment", tmp_path / "a.heic", "-m", drawing_model, "-o", tmp_path / "out") == 2
    assert "reading HEIC needs the extra `heif`" in capsys.readouterr().err


def test_avif_without_a_decoder_names_the_extra_too(tmp_path, monkeypatch):
    path = photo(tmp_path / "a.avif")
    monkeypatch.setattr(heif.features, "check", lambda feature: False)
    with pytest.raises(MissingExtraError, match="reading AVIF needs the extra `heif`"):
        read_pixels(path)
