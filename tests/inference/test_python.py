"""What Python callers have: lists, tensors, bytes, and a result that shows, saves and measures itself."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.inference.asked import centres
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from tests.data.test_prepare import photo

KEY = {"samples": 3, "seed": 1}


@pytest.fixture(scope="module")
def segmenter(drawing_model) -> Segmenter:
    return Segmenter.from_pretrained(drawing_model, device="cpu")


@pytest.fixture(scope="module")
def found(segmenter) -> Segmentation:
    return segmenter.segment(photo(0, (90, 70)), **KEY)


def grey(seed: int) -> np.ndarray:
    return photo(seed, (90, 70))[:, :, 0]


# --- images


def test_every_way_to_give_an_image_gives_the_same_masks(segmenter, found, tmp_path):
    pixels = photo(0, (90, 70))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    tensor = torch.from_numpy(pixels.copy())
    ways = {
        "path": tmp_path / "a.png", "name": str(tmp_path / "a.png"), "bytes": content, "file": io.BytesIO(content),
        "pillow": Image.fromarray(pixels), "channels first": pixels.transpose(2, 0, 1), "tensor": tensor.permute(2, 0, 1),
        "sparse": tensor.to_sparse(),
        "tensor, channels last": tensor, "floats": pixels / 255, "float tensor": tensor.permute(2, 0, 1).float() / 255,
    }  # fmt: skip
    for name, image in ways.items():
        assert torch.equal(segmenter.segment(image, **KEY).masks, found.masks), name
    half = segmenter.segment((tensor.permute(2, 0, 1) / 255).bfloat16(), **KEY)
    assert (half.confidence - found.confidence).abs().mean() < 0.1
    one = segmenter.segment(grey(1), **KEY).masks
    assert torch.equal(segmenter.segment(torch.from_numpy(grey(1).copy())[None], **KEY).masks, one)
    with (tmp_path / "a.png").open("rb") as file:
        assert torch.equal(segmenter.segment(file, **KEY).masks, found.masks)


def test_bytes_of_dicom_are_read_as_the_file_is(segmenter, tmp_path):
    pytest.importorskip("pydicom")
    from tests import dicom_files as dicom

    place = dicom.save(tmp_path / "a.dcm", dicom.slice_at(0, grey(3).astype(np.uint16) + 900))
    result, same = segmenter.segment(place, **KEY), segmenter.segment(place.read_bytes(), **KEY)
    assert torch.equal(result.masks, same.masks) and same.spacing == (0.7, 0.8)
    assert result.areas("mm2") == pytest.approx(result.areas() * 0.56) and result.summary()["unit"] == "mm2"


def test_floats_beyond_one_are_stretched_and_said_so(segmenter):
    result = segmenter.segment(grey(0).astype(float) * 9, samples=1)
    assert any("were stretched" in sentence for sentence in result.warnings)
    assert not any("were stretched" in sentence for sentence in segmenter.segment(grey(0) / 255, samples=1).warnings)


def test_a_list_gives_a_list_of_the_same_results(segmenter):
    images = [photo(k, (40 + 10 * k, 70)) for k in range(6)]
    results = segmenter.segment(images, **KEY)
    assert len(results) == 6 and segmenter.segment([]) == []
    for image, result in zip(images, results, strict=True):
        alone = segmenter.segment(image, **KEY)
        assert result.masks.shape == alone.masks.shape and (result.masks - alone.masks).abs().max() < 1e-4
        assert result.record == alone.record or result.record.source == alone.record.source


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"samples": "5"}, "samples must be a whole number, not '5'"),
        ({"samples": None}, "samples must be a whole number, not None"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"threshold": 2}, "threshold must lie between 0 and 1, not 2"),
        ({"sampler": "nope"}, "'nope' is none of ddim"),
        ({"steps": "3"}, "steps must be a whole number"),
        ({"sampling": "ddim"}, "sampling must be a SamplingConfig, not 'ddim'"),
    ],
)
def test_bad_arguments_are_one_clear_error(segmenter, asked, said):
    with pytest.raises(ConfigError, match=said):
        segmenter.segment(grey(0), **asked)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "an image is a path, bytes.*not a NoneType"),
        (3, "not a int"),
        (b"no image", "the image is not an image that can be read"),
        (np.zeros((4, 5, 6, 7)), "not one grey or colour image"),
        (np.zeros((8, 8), complex), "holds real numbers"),
        (np.zeros((0, 3)), "holds real numbers"),
        (np.ma.array(np.zeros((8, 8)), mask=np.eye(8)), "numpy mask hides"),
        (torch.full((3, 8, 8), float("nan")), "not numbers"),
    ],
)
def test_what_is_no_image_is_one_clear_error(segmenter, image, said):
    with pytest.raises(InputError, match=said) as caught:
        segmenter.segment(image)
    assert "\n" not in str(caught.value) and "/tmp" not in str(caught.value)


def test_a_segmenter_says_what_it_is_and_moves(segmenter):
    assert repr(segmenter) == "Segmenter('model': whole images at 64×64, grey, not calibrated, on cpu)"
    assert segmenter.to("cpu") is segmenter
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        segmenter.to("gpu")


def test_sampler_and_steps_are_given_by_name(segmenter):
    assert segmenter.segment(grey(0), samples=1, sampler="ddim", steps=4).record.sampler["steps"] == 4


# --- results


def test_masks_are_pasted_one_by_one_and_equal_all_of_them(found):
    assert len(found) == 3 == len(found.drawn) and found.drawn.drawn.shape[-2:] == (64, 64)
    assert all(torch.equal(found.drawn[k], found.masks[k]) for k in range(3))
    assert torch.equal(found.drawn[-1], found.masks[2])
    with pytest.raises(IndexError):
        found.drawn[3]
    assert (found.confidence - found.masks.mean(0)).abs().max() < 1e-6
    assert (found.disagreement - found.masks.std(0, correction=0)).abs().max() < 1e-5
    assert torch.equal(found.votes, (found.masks >= 0.5).float().mean(0))


def test_repr_is_one_short_line_and_notebooks_see_a_picture(found):
    share = float(found.consensus.float().mean())
    assert (
        repr(found).startswith(f"Segmentation(3 masks of 70×90 pixels, consensus {share:.1%}")
        and len(repr(found)) < 120
    )
    with Image.open(io.BytesIO(found._repr_png_())) as picture:
        assert picture.size == (70, 90) and np.array_equal(np.asarray(picture), found.overlay())
    page = found._repr_html_()
    assert (
        page.startswith("<img") and "pairwise_iou" in page and all(word not in page for word in ("<script", "tensor("))
    )


def test_areas_and_summary_are_those_of_the_masks(found):
    areas = (found.masks >= 0.5).sum(dim=(1, 2)).numpy()
    assert (found.areas() == areas).all()
    summary = found.summary()
    assert summary["area_mean"] == pytest.approx(areas.mean()) and summary["area_std"] == pytest.approx(
        areas.std(ddof=1)
    )
    assert summary["area_consensus"] == int(found.consensus.sum()) and 0 <= summary["pairwise_iou"] <= 1
    with pytest.raises(InputError, match="spacing of pixels is not known"):
        found.areas("mm2")
    with pytest.raises(ConfigError, match="unit must be px or mm2"):
        found.areas("inch")


def test_contours_are_the_outlines_of_the_masks(found):
    from scipy.ndimage import binary_fill_holes

    from manymask.io.polygons import fill_polygons

    for number in (None, 0, 2):
        mask = found.consensus.numpy() if number is None else found.masks[number].numpy() >= 0.5
        drawn = fill_polygons(mask.shape, found.contours(number))
        assert (drawn[mask]).all() and not (drawn & ~binary_fill_holes(mask)).sum() > mask.size // 50


def test_saved_files_are_those_of_the_command(found, tmp_path):
    place = found.save(tmp_path / "result")
    assert {"mask-01.png", "mask-03.png", "confidence.png", "consensus.png", "overlay.png", "result.json"} <= {
        path.name for path in place.iterdir()
    }
    content = json.loads((place / "result.json").read_text())
    assert content["areas"] == found.areas().tolist() and content["samples"] == 3
    assert content["pairwise_iou"] == pytest.approx(found.summary()["pairwise_iou"])
    with Image.open(place / "mask-02.png") as file:
        assert (np.asarray(file) > 0).tolist() == (found.masks[1] >= 0.5).tolist()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(ManymaskError):
        found.save(tmp_path / "mine")


def test_a_result_is_plotted_and_pickled(found):
    pytest.importorskip("matplotlib")
    assert [axes.get_title() for axes in found.plot().axes[:3]] == [
        "3 masks, consensus in white",
        "confidence",
        "disagreement",
    ]
    assert torch.equal(pickle.loads(pickle.dumps(found)).masks, found.masks)


SCRIPT = """
import ctypes, sys
from pathlib import Path
import numpy as np
from manymask.inference.segmenter import Segmenter

def kilobytes(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
segmenter = Segmenter.from_pretrained(sys.argv[1], device="cpu")
ramp = (np.add.outer(np.arange(3000), np.arange(4000)) // 28).astype(np.uint8)
segmenter.segment(ramp[:64, :64], samples=2).save(sys.argv[2])
before = kilobytes("VmRSS")
result = segmenter.segment(ramp, samples=50)
result.summary(), result.overlay(), result.contours(), repr(result)
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")
def test_fifty_masks_of_twelve_megapixels_take_less_than_a_gigabyte(drawing_model, tmp_path):
    arguments = [sys.executable, "-c", SCRIPT, str(drawing_model), str(tmp_path / "small")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1_000_000


# --- mistakes


@pytest.mark.parametrize("rois", [(210, 145), [(100.5, 90)], [(1, 2, 3)], ["ab"], 7])
def test_regions_that_are_none_are_one_line(segmenter, rois):
    with pytest.raises(ConfigError, match=r"rois must be centres in whole pixels, such as \[\(210, 145\)\]"):
        segmenter.segment(grey(0), rois=rois)
    with pytest.raises(ConfigError, match="rois must be centres"):
        segmenter.look(grey(0), rois)


def test_regions_may_be_an_array():
    assert centres(np.array([[30, 20], [10, 15]])) == ((30, 20), (10, 15)) == centres([(30.0, 20.0), (10, 15)])
    assert centres(()) == centres(np.zeros((0, 2))) == ()


def test_an_engine_that_there_is_not_is_one_line(drawing_model):
    with pytest.raises(ConfigError, match="no engine 'foo': choose auto, torch, onnx, openvino"):
        Segmenter.from_pretrained(drawing_model, engine="foo")
