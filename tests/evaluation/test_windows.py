"""`evaluate --tile`: large images of a folder are scored as `segment --tile` draws them."""

import json

import numpy as np
import pytest

from manymask import api
from manymask.data.datasets import phantom
from manymask.data.resize import scale_mask
from manymask.errors import ConfigError
from manymask.inference.segmenter import Segmenter
from manymask.metrics import overlap
from tests.data.test_prepare import save
from tests.factories import run, save_calibrated

QUICK = {"samples": 2, "ged_samples": 3, "progress": False}


def mosaic(first: int) -> tuple[np.ndarray, np.ndarray]:
    """Six phantoms in one image (128, 192), and the masks of two raters."""
    drawn = [[phantom.draw(first + 3 * r + c) for c in range(3)] for r in range(2)]
    image = np.block([[each.image[:, :, 0] for each in row] for row in drawn])
    masks = [np.block([[each.masks[k] for each in row] for row in drawn]) for k in range(2)]
    return image, np.stack(masks)


@pytest.fixture
def large(tmp_path):
    """Two large images and one that a window covers, each with the masks of two raters."""
    small = phantom.draw(40)
    for name, (image, masks) in {
        "a": mosaic(0),
        "b": mosaic(6),
        "c": (small.image[:, :, 0], small.masks[:2]),
    }.items():
        save(tmp_path / "in/images" / f"{name}.png", image)
        for k, mask in enumerate(masks):
            save(tmp_path / f"in/masks-{k}" / f"{name}.png", mask.astype(np.uint8) * 255)
    return tmp_path / "in"


def test_scores_are_those_of_the_masks_that_segment_draws_in_windows(drawing_model, large):
    found = api.evaluate(drawing_model, large, tile=64, **QUICK)
    segmenter = Segmenter.from_pretrained(drawing_model)
    assert found.protocol["tile"] == 64
    for case, (image, masks) in zip(found.cases, (mosaic(0), mosaic(6)), strict=False):
        drawn = segmenter.segment(image, 2, 0, tile=64)
        truth = masks.mean(axis=0) >= 0.5
        assert case["dice"] == pytest.approx(overlap(drawn.consensus.numpy(), truth)[0], abs=1e-6)
    whole = api.evaluate(drawing_model, large, **QUICK)
    assert whole.protocol["tile"] is None
    assert [a["dice"] == b["dice"] for a, b in zip(found.cases, whole.cases, strict=True)] == [False, False, True]


def test_several_raters_are_compared_at_the_scale_of_the_windows(drawing_model, large):
    found = api.evaluate(drawing_model, large, tile=64, **QUICK)
    assert found.metrics["ged"]["n"] == 3 and found.masks_per_image == 3
    case = found.cases[0]
    assert (
        case["dice_model_size"] == case["dice"]
    )  # windows of 64 pixels in a model of 64: its scale is the image's own


def test_a_mask_is_scaled_to_any_shape_and_never_vanishes():
    mask = np.zeros((60, 90), bool)
    mask[:30, :45] = True
    assert np.array_equal(scale_mask(mask, (20, 30)), np.pad(np.ones((10, 15)), ((0, 10), (0, 15))))
    mask[:] = False
    mask[7, 7] = True
    assert scale_mask(mask, (6, 9)).sum() == 1


def test_the_command_line_draws_in_windows_and_its_figure_too(drawing_model, large, tmp_path, monkeypatch, capsys):
    call = ("evaluate", "--model", drawing_model, "--data", large, "--samples", 2, "--out", tmp_path / "out")
    assert run(monkeypatch, *call, "--tile", 64) == 0
    facts = json.loads((tmp_path / "out/results.json").read_text())
    assert facts["protocol"]["tile"] == 64 and (tmp_path / "out/figure.png").stat().st_size > 10_000
    assert "all are drawn whole" not in capsys.readouterr().err
    assert run(monkeypatch, *call, "--tile", 500) == 0
    assert "no image is larger than 500 pixels: all are drawn whole" in capsys.readouterr().err


def test_nothing_is_promised_for_windows(drawing_model, large, tmp_path):
    calibrated = save_calibrated(drawing_model, tmp_path / "calibrated")
    assert "holds for whole images" in api.evaluate(calibrated, large, tile=64, **QUICK).promises["why_not"]


def test_windows_are_refused_where_there_are_none(drawing_model, store, large):
    with pytest.raises(ConfigError, match="holds images at model size alone: windows need the folder"):
        api.evaluate(drawing_model, store, tile=64, **QUICK)
    with pytest.raises(ConfigError, match="tile must lie in"):
        api.evaluate(drawing_model, large, tile=3, **QUICK)
