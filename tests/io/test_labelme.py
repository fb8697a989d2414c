"""Masks as polygons: exact without simplification, close with it."""

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, gaussian_filter, label

from manymask.io.labelme import labelme_record
from manymask.io.polygons import polygons

draw = pytest.importorskip("skimage.draw")


def drawn(points, shape):
    """The pixels whose middles lie inside of any polygon."""
    mask = np.zeros(shape, bool)
    for each in points:
        mask |= draw.polygon2mask(shape, [(y - 0.5, x - 0.5) for x, y in each])
    return mask


def filled(mask):
    parts, count = label(binary_fill_holes(mask))
    found = np.zeros(mask.shape, bool)
    for number in range(1, count + 1):
        found |= binary_fill_holes(parts == number)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_polygons_give_the_mask_back(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 18, 2)) > rng.random()
    assert (drawn(polygons(mask, 0), mask.shape) == filled(mask)).all()


def test_square_is_its_four_corners_clockwise():
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:7] = True
    assert list(polygons(mask)) == [[(2, 1), (7, 1), (7, 3), (2, 3)]]


def test_smooth_outlines_take_few_points_and_stay_close():
    mask = gaussian_filter(np.random.default_rng(0).random((256, 256)), 20)
    mask = mask > np.quantile(mask, 0.8)
    exact, simple = list(polygons(mask, 0)), list(polygons(mask))
    assert sum(map(len, simple)) < sum(map(len, exact)) / 4
    found, true = drawn(simple, mask.shape), filled(mask)
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.98


def test_single_pixels_stay():
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = mask[4, 0] = True
    assert (drawn(polygons(mask), mask.shape) == mask).all()


def test_record_names_the_image_and_its_size():
    mask = np.ones((2, 3), bool)
    record = labelme_record("../images/a.png", (2, 3), mask, "lesion")
    assert (record["imagePath"], record["imageHeight"], record["imageWidth"]) == ("../images/a.png", 2, 3)
    (shape,) = record["shapes"]
    assert (shape["label"], shape["shape_type"]) == ("lesion", "polygon")
    assert shape["points"] == [[0, 0], [3, 0], [3, 2], [0, 2]]
    assert labelme_record("a.png", (2, 3), ~mask, "lesion")["shapes"] == []
