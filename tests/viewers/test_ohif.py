"""OHIF itself, in a real browser: what manymask wrote lies on the nodule, seen by the pixels of screenshots."""

import time
from contextlib import contextmanager

import numpy as np
import pytest

from tests.chest import SHAPE, nodule
from tests.viewers.npm import ohif
from tests.viewers.ohif import Viewer, hosting

pytestmark = [pytest.mark.browser, pytest.mark.archive, pytest.mark.npm, pytest.mark.timeout(600)]

SLICES = (2, 6)  # the nodule lies elsewhere on each
LUNG = np.zeros(SHAPE, bool)
LUNG[35:110, 60:150] = True  # around the nodule: no text of the viewer is written there


@pytest.fixture(scope="module")
def address(archive):
    with hosting(ohif(), archive) as found:
        yield found


@contextmanager
def opened(browser, address, study):
    """OHIF with the study; at the end: no error in its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    yield Viewer(page, address, study.images)
    context.close()
    assert not errors


@pytest.fixture
def viewer(browser, address, study):
    with opened(browser, address, study) as found:
        yield found


def changed(viewer, plain, k, expected, least):
    """Turns to image k, waits until what an object changes there is `expected`, bool (H, W), by an IoU of `least`, and gives
    what is on the screen, int (H, W, 3)."""
    viewer.turn_to(k)
    for _ in range(40):
        shown = viewer.pixels()
        difference = (np.abs(shown - plain[k]).max(axis=2) > 25) & LUNG
        overlap = iou(difference, expected & LUNG)
        if overlap >= least:
            return shown
        time.sleep(0.5)
    raise AssertionError(f"image {k}: {difference.sum()} pixels change, {expected.sum()} should; IoU {overlap:.3f}")


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def colourfulness(shown, where):
    """How far from grey a part of the screen is, 0 to 255."""
    return (shown.max(axis=2) - shown.min(axis=2))[where].mean()


@pytest.fixture(scope="module")
def plain(browser, address, study):
    """What is on the screen without any object, by image. The nodule is where it was drawn, or no other test could be
    trusted."""
    with opened(browser, address, study) as viewer:
        found = {}
        for k in SLICES:
            viewer.turn_to(k)
            viewer.settle()
            found[k] = viewer.pixels()
            assert iou((found[k].max(axis=2) > 60) & LUNG, nodule(k)) > 0.93
    return found


@pytest.mark.parametrize("series", ["masks", "consensus", "levels"])
def test_segments_lie_on_the_nodule_in_their_colours(viewer, plain, study, series):
    viewer.open(f"lidc_idri: {series}")
    viewer.agree()
    for k in SLICES:
        agreed = study.picture("consensus", k) > 0
        expected = {
            "masks": agreed | np.any([study.picture(f"mask-{n:02}", k) > 0 for n in (1, 2, 3)], axis=0),
            "consensus": agreed,
            "levels": study.picture("confidence", k) / 65535 >= 0.25,
        }[series]
        assert expected.sum() > 100
        shown = changed(viewer, plain, k, expected, 0.98)
        if series == "consensus":  # white over the grey nodule
            assert colourfulness(shown, agreed) < 5 and (shown[agreed] - plain[k][agreed]).mean() > 40
        else:
            assert colourfulness(shown, agreed) > 30


def test_confidence_map_lies_on_the_nodule_and_has_other_colours_in_doubt(viewer, plain, study):
    viewer.open("lidc_idri: confidence")
    viewer.wait_for_map()
    for k in SLICES:
        confidence = study.picture("confidence", k) / 65535
        shown = changed(viewer, plain, k, confidence > 0.05, 0.9)
        sure, doubtful = shown[confidence > 0.95], shown[(confidence > 0.2) & (confidence < 0.6)]
        assert np.abs(sure.mean(axis=0) - doubtful.mean(axis=0)).max() > 40
