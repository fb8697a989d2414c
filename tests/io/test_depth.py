"""How deep pixels become bytes: from darkest to brightest, with isolated outliers left aside."""

import numpy as np
import pytest

from manymask.errors import InputError
from manymask.io.depth import shown_range, single, stretch_note, to_bytes
from manymask.io.window import fixed, stretch

SMOOTH = np.linspace(720, 3296, 160 * 240).reshape(160, 240).astype(np.uint16)


def plain(pixels):
    low, high = float(pixels.min()), float(pixels.max())
    return np.round((pixels.astype(np.float32) - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_ordinary_pictures_run_from_darkest_to_brightest(dtype):
    heavy = np.random.default_rng(0).gamma(2, 300, (160, 240)).clip(0, 4095)
    for pixels in (SMOOTH.astype(dtype), heavy.astype(dtype), np.stack([heavy.astype(dtype)] * 3, axis=2)):
        assert (to_bytes(pixels) == plain(pixels)).all()
        assert "cut off" not in stretch_note(pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("value", [65535, 20000, 5000, 0])
@pytest.mark.parametrize("number", [1, 12, 150])
def test_a_few_outliers_do_not_squash_the_rest(dtype, value, number):
    offset = 30000 if value == 0 else 0
    pixels = (SMOOTH.astype(np.int64) + offset).astype(dtype)
    marked = pixels.copy()
    marked.reshape(-1)[1000 : 1000 + number] = value
    rest = np.delete(to_bytes(marked).reshape(-1), np.arange(1000, 1000 + number))
    expected = np.delete(plain(pixels).reshape(-1), np.arange(1000, 1000 + number))
    assert (rest == expected).all()
    assert (to_bytes(marked).reshape(-1)[1000 : 1000 + number] == (0 if value == 0 else 255)).all()
    assert f"{number} outlying values" in stretch_note(marked)


def test_a_marker_with_soft_edges_neither():
    marked = SMOOTH.copy()
    marked.reshape(-1)[1000:1150] = np.linspace(4000, 65535, 150)
    low, high = shown_range(marked)
    assert low == 720 and high < 4000


def test_a_small_bright_thing_on_black_is_no_outlier():
    pixels = np.random.default_rng(0).integers(0, 20, (200, 200)).astype(np.uint16)
    pixels[50:55, 50:55] = 3000
    assert (to_bytes(pixels) == plain(pixels)).all()


def test_bytes_and_bits_stay_and_need_no_note():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert to_bytes(pixels) is pixels and stretch_note(pixels) is None
    assert set(np.unique(to_bytes(pixels > 9))) == {0, 255} and stretch_note(pixels > 9) is None


def test_the_note_says_from_where_to_where():
    assert stretch_note(SMOOTH) == "The grey values 720 to 3296 were stretched to 0 to 255."


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    pixels = SMOOTH.astype(np.float32)
    pixels[0, 0] = value
    with pytest.raises(InputError, match=r"x\.tif holds values that are not numbers"):
        to_bytes(pixels, "x.tif")


def test_a_flat_picture_stays_flat():
    assert (to_bytes(np.full((8, 8), 900, np.uint16)) == 0).all()


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.float64])
def test_values_far_from_zero_keep_their_steps(dtype):
    """Whole numbers of 32 bits do not fit into single precision: their offset is taken off before."""
    far = (2_000_000_000 + np.arange(256).reshape(16, 16)).astype(dtype)
    assert (to_bytes(far).ravel() == np.arange(256)).all()
    assert (stretch(far).ravel() == np.arange(256)).all()
    assert len(np.unique(fixed(far, 2_000_000_128.0, 256.0))) > 250


def test_single_precision_is_used_only_where_it_tells_values_apart(tmp_path):
    kept = single(np.array([0.1, np.nan, 7.0]), tmp_path)
    assert kept.dtype == np.float32 and np.isnan(kept[1]) and kept[2] == 7
    with pytest.raises(InputError, match="differ by too little for single precision"):
        single(1e9 + np.arange(256.0), tmp_path)
    with pytest.raises(InputError, match="too large for a grey value"):
        single(np.array([0.0, 1e300]), tmp_path)
