"""`segment --fast`: one mask in one step, said to be that, and refused where it would mean nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.errors import ConfigError
from manymask.inference.asked import one_pass
from tests.factories import build, run, save_calibrated


def test_fast_draws_the_only_mask_in_one_step_of_the_upright_image(monkeypatch, drawing_model, tmp_path):
    image = tmp_path / "a.png"
    Image.fromarray(phantom.draw(0).image[:, :, 0]).save(image)
    model = save_calibrated(drawing_model, tmp_path / "model")
    assert run(monkeypatch, "segment", image, "--model", model, "--out", tmp_path / "out", "--fast") == 0
    found = json.loads((tmp_path / "out/a/result.json").read_text())
    assert (found["samples"], found["sampler"]["steps"], found["orientations"]) == (1, 1, 1)
    assert found["pairwise_iou"] is None and "off the calibration" in found["promises"]["why_not"]
    segmenter = Segmenter.from_pretrained(model)
    expected = segmenter.segment(image, 1, steps=1, sampling=one_pass(segmenter.model)).consensus.numpy()
    written = np.asarray(Image.open(tmp_path / "out/a/consensus.png")) > 0
    assert expected.any() and (written == expected).all()
    assert not (tmp_path / "out/a/mask-02.png").exists()


@pytest.mark.parametrize("flags", [("--samples", 3), ("--steps", 2), ("--sampler", "ddim"), ("--alpha", 0.1)])
def test_fast_goes_with_no_flag_that_says_how_several_are_drawn(monkeypatch, drawing_model, tmp_path, capsys, flags):
    image = tmp_path / "a.png"
    Image.fromarray(phantom.draw(0).image[:, :, 0]).save(image)
    flags = ("--fast", *flags)
    assert run(monkeypatch, "segment", image, "--model", drawing_model, "--out", tmp_path / "out", *flags) == 2
    said = capsys.readouterr().err
    assert f"give it without {flags[1]}" in said and not (tmp_path / "out").exists()


def test_models_whose_first_step_is_no_consensus_are_refused():
    for name, why in (("concat-epsilon", "predicts the noise"), ("presence", "by chance"), ("unet", "no steps")):
        with pytest.raises(ConfigError, match=why) as raised:
            one_pass(build(name))
        assert raised.value.parameter == "fast"
    assert one_pass(build("pyramid-x0")).steps == one_pass(build("flow-euler")).steps == 1
