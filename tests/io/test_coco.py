"""Outlines from COCO and labelme: the very pixels that pycocotools and labelme mean."""

import base64
import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from manymask.errors import InputError
from manymask.io.coco import coco_mask, decode_run_lengths, read_coco
from manymask.io.labelme import labelme_file, labelme_record
from manymask.io.polygons import fill_polygons, polygons

SHAPE = (37, 53)


def smooth(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).random(shape), 3)
    return noise > np.quantile(noise, 0.7)


def record(*annotations: dict, **image) -> dict:
    images = [{"id": 7, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]} | image]
    objects = [{"image_id": 7, "category_id": 1} | each for each in annotations]
    return {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "polyp"}, {"id": 2, "name": "ulcer"}],
    }


def read(tmp_path, content: dict, categories=None) -> np.ndarray:
    path = tmp_path / "coco.json"
    found = read_coco(path, content)
    return coco_mask(path, found.images[0], SHAPE, categories)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_pycocotools(tmp_path, seed):
    tool = pytest.importorskip("pycocotools.mask")
    mask = smooth(seed) if seed else np.zeros(SHAPE, bool)
    packed = tool.encode(np.asfortranarray(mask.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    assert (decode_run_lengths(tmp_path, packed, SHAPE) == mask).all()
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *([0] if flat[0] else []), *changes, len(flat)]).tolist()
    assert (decode_run_lengths(tmp_path, {"size": list(SHAPE), "counts": runs}, SHAPE) == mask).all()


def test_polygons_of_coco_are_close_to_those_of_pycocotools_and_ours_are_exact(tmp_path):
    tool = pytest.importorskip("pycocotools.mask")
    for seed in range(10):
        outlines = [np.array(points, dtype=float) for points in polygons(smooth(seed), 0)]
        flat = [points.ravel().tolist() for points in outlines]
        ours = read(tmp_path, record({"segmentation": flat}))
        theirs = tool.decode(tool.merge(tool.frPyObjects(flat, *SHAPE))) > 0
        assert (ours == fill_polygons(SHAPE, outlines)).all()
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.97


def test_a_pixel_is_inside_where_its_middle_is():
    triangle = np.array([(0, 0), (8, 0), (0, 8)])
    mask = fill_polygons((8, 8), [triangle])
    y, x = np.indices((8, 8)) + 0.5
    assert (mask == (x + y < 8)).all()
    assert (fill_polygons((4, 4), [np.array([(-5, -5), (9, -5), (9, 9), (-5, 9)])])).all()
    ring = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (3, 6), (6, 6), (6, 3), (3, 3)]
    assert fill_polygons((9, 9), [np.array(ring)]).sum() == 81 - 9


def test_objects_are_joined_and_categories_chosen(tmp_path):
    square, other = [0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 12, 10, 12]
    content = record({"segmentation": [square]}, {"segmentation": [other], "category_id": 2})
    assert [read(tmp_path, content, chosen).sum() for chosen in (None, (1,), (2,), (3,), ())] == [24, 16, 8, 0, 0]
    assert not read(tmp_path, record()).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (record({"segmentation": [], "bbox": [1, 2, 3, 4]}), "a box but no outline"),
        (record({"segmentation": [[1, 2, 3, 4]]}), "fewer than three corners"),
        (record({"segmentation": {"size": [3, 3], "counts": [9]}}), "run lengths for 3×3 do not fit 53×37"),
        (record({"segmentation": {"size": list(SHAPE), "counts": "~"}}), "do not fit|damaged"),
        (record(width=50), r"says that a\.png is 50×37, it is 53×37"),
        (record({"image_id": 9, "segmentation": []}), "of image 9, which is not listed"),
        ({"images": [{"id": 1}], "annotations": []}, "damaged"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, content, said):
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value) and "coco.json" in str(caught.value)


# --- labelme


@pytest.mark.parametrize("seed", range(10))
def test_what_was_written_as_polygons_is_read_as_the_same_mask(tmp_path, seed):
    mask = smooth(seed)
    filled = fill_polygons(SHAPE, [np.array(points) for points in polygons(mask, 0)])
    content = labelme_record("../images/a.png", SHAPE, mask, "lesion", tolerance=0)
    found = labelme_file(tmp_path / "a.json", content)
    assert found.image == "a.png" and (found.mask(SHAPE) == filled).all() and (filled | ~mask).all()
    assert set(found.labels) == {"lesion"} and not found.mask(SHAPE, {"other"}).any()


def test_shapes_of_every_kind_are_read_and_points_have_no_area(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(buffer, "PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[10, 6], [4, 2]]},
        {"label": "disc", "shape_type": "circle", "points": [[30, 18], [36, 18]]},
        {"label": "mask", "shape_type": "mask", "points": [[40, 30], [43, 33]], "mask": png},
        {"label": "tip", "shape_type": "point", "points": [[1, 1]]},
        {"label": "flat", "points": [[0, 20], [5, 20], [5, 22], [0, 22]]},
    ]  # fmt: skip
    content = {"imagePath": "D:\\scans\\a.png", "shapes": shapes, "imageHeight": None, "imageWidth": None}
    found = labelme_file(tmp_path / "a.json", content)
    areas = [int(found.mask(SHAPE, {label}).sum()) for label in ("box", "mask", "tip", "flat")]
    assert areas == [24, 4, 0, 10] and found.image == "a.png" and "tip" not in found.labels
    y, x = np.indices(SHAPE) + 0.5
    disc = np.hypot(x - 30, y - 18) < 6
    assert (found.mask(SHAPE, {"disc"}) ^ disc).sum() <= 4


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"points": [[1, 1], [2, 2]]}, "damaged.*a polygon of 2 points"),
        ({"points": [["a", 1]]}, "damaged"),
        ({"points": [[1, 1], [2, float("nan")], [3, 3]]}, "a point is no number"),
        ({"shape_type": "mask", "points": [[50, 30], [53, 33]], "mask": "AAAA"}, "damaged"),
    ],
)
def test_a_damaged_shape_is_one_line_that_names_the_file(tmp_path, shape, said):
    found = labelme_file(tmp_path / "a.json", {"imagePath": "a.png", "shapes": [{"label": "x"} | shape]})
    with pytest.raises(InputError, match=rf"a\.json.*{said}"):
        found.mask(SHAPE)


def test_outlines_of_an_image_of_another_size_are_refused(tmp_path):
    content = labelme_record("a.png", (20, 20), np.ones((20, 20), bool), "x")
    with pytest.raises(InputError, match=r"was drawn on an image of 20×20, a\.png is 53×37"):
        labelme_file(tmp_path / "a.json", content).mask(SHAPE)


def test_outlines_beside_the_image_and_shapes_of_unknown_kinds_are_refused(tmp_path):
    corners = [[60, 5], [80, 5], [80, 20]]
    with pytest.raises(InputError, match=r"a polygon lies outside of a.png, 53×37"):
        read(tmp_path, record({"segmentation": [[value for point in corners for value in point]]}))
    shape = {"label": "polyp", "points": corners, "shape_type": "polygon"}
    path = tmp_path / "a.json"
    file = labelme_file(path, {"imagePath": "a.png", "shapes": [shape]})
    with pytest.raises(InputError, match="a polygon lies outside of the image"):
        file.mask(SHAPE)
    odd = shape | {"shape_type": "rotation", "points": [[1, 1], [9, 1], [9, 9], [1, 9]]}
    file = labelme_file(path, {"imagePath": "a.png", "shapes": [odd, {"shape_type": "linestrip", "points": [[1, 1]]}]})
    assert file.labels == ["polyp"]
    with pytest.raises(InputError, match="a shape of the kind 'rotation'"):
        file.mask(SHAPE)
    assert not file.mask(SHAPE, {"ulcer"}).any(), "what is not chosen needs no outline"


def test_labels_are_the_same_in_both_forms_of_unicode():
    one, other = (unicodedata.normalize(form, "Läsion") for form in ("NFC", "NFD"))
    assert one != other
    shape = {"label": other, "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    assert labelme_file(Path("a.json"), {"imagePath": "a.png", "shapes": [shape]}).mask(SHAPE, {one}).any()
    content = record({"segmentation": [[1, 1, 9, 1, 9, 9]]}) | {"categories": [{"id": 1, "name": other}]}
    assert read_coco(Path("a.json"), content).names == {1: one}
