"""The Cornerstone adapters, with which OHIF and others read DICOM, get every pixel of what manymask writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.chest import SHAPE, chest_ct
from tests.viewers.npm import bundled, node

pytestmark = pytest.mark.npm


@pytest.fixture(scope="module")
def read(study):
    """What the adapters make of an object of the study, read beside its series in the order of a volume."""
    script = bundled(Path(__file__).with_name("adapters.mjs"))
    images = [study.folder.parent / "ct" / f"{image.InstanceNumber}.dcm" for image in study.images]

    def go(name):
        said = node(script, study.objects[name], *images, folder=script.parent)
        return json.loads(said.partition("RESULT")[2])

    return go


def filled(places):
    """Masks (slices, H, W) from the places of their pixels by slice."""
    masks = np.zeros((len(chest_ct()), SHAPE[0] * SHAPE[1]), bool)
    for k, found in places.items():
        masks[int(k), found] = True
    return masks.reshape(-1, *SHAPE)


def series(study, name):
    return np.stack([study.picture(name, k) for k in range(len(study.images))])


def test_binary_segments_have_their_labels_and_every_pixel(read, study):
    said = read("masks")
    names = ["consensus", "mask-01", "mask-02", "mask-03"]
    assert said["labels"] == [None, "Consensus (confidence >= 0.5)", *(f"Mask {k} of 3" for k in (1, 2, 3))]
    for number, name in enumerate(names, start=1):
        expected = series(study, name) > 0
        assert expected.any() and (filled(said["segments"][str(number)]) == expected).all(), name


def test_nested_levels_have_every_pixel(read, study):
    said, confidence = read("levels"), series(study, "confidence") / 65535
    for number, level in enumerate((0.25, 0.5, 0.75), start=1):
        differs = filled(said["segments"][str(number)]) != (confidence >= level)
        assert (np.abs(confidence[differs] - level) < 1e-5).all(), "but for the rounding of the picture"
        assert len(said["segments"][str(number)]) > 4


def test_labelmap_has_the_label_and_every_pixel_of_the_consensus(read, study):
    said = read("consensus")
    assert said["labels"] == ["Background", "Consensus (confidence >= 0.5)"]
    assert (filled(said["segments"]["1"]) == (series(study, "consensus") > 0)).all()


def test_parametric_map_has_the_confidence_of_every_pixel_in_the_order_of_the_volume(read, study):
    values = np.array(read("confidence")["values"]).reshape(-1, *SHAPE)
    assert np.abs(values - series(study, "confidence") / 65535).max() <= 0.5 / 65535 + 1e-6
    assert values.max() > 0.9
