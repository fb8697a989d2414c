"""Colours of masks: many, distinct, the same however many there are."""

import numpy as np
import pytest

from manymask.inference.outputs import overlay
from manymask.io.palette import PALETTE, colour_of, colours, seen


def nearest(count: int) -> np.ndarray:
    """The smallest distance between two of the colours, as seen with normal vision, protanopia and deuteranopia."""
    places = seen(np.array(colours(count)))
    apart = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
    apart[:, range(count), range(count)] = np.inf
    return apart.min(axis=(1, 2))


def test_the_first_seven_are_okabe_and_itos_and_the_others_go_on_from_them():
    assert colours(5) == PALETTE[:5] and colours(7) == PALETTE
    assert colours(50)[:20] == colours(20) and colour_of(20) == colours(50)[19]
    assert colours(0) == ()


@pytest.mark.parametrize(("count", "least"), [(16, 0.14), (24, 0.11), (50, 0.06)])
def test_colours_of_many_masks_differ(count, least):
    assert len(set(colours(count))) == count
    assert nearest(count)[0] >= least
    if count == 16:  # with a deficiency, hardly less than in Okabe and Ito's seven
        assert (nearest(16)[1:] >= 0.9 * nearest(7)[1:].min()).all()


def test_no_colour_is_that_of_the_consensus_or_its_edge():
    places = seen(np.array([*colours(50), (255, 255, 255), (0, 0, 0)]))[0]
    assert np.linalg.norm(places[:50, None] - places[50:], axis=-1).min() > 0.06


def test_distances_are_those_of_oklab():
    """Ottosson's values of pure red, and of white."""
    assert seen(np.array([[255, 0, 0], [255, 255, 255]]))[0] == pytest.approx(
        np.array([[0.6280, 0.2249, 0.1258], [1, 0, 0]]), abs=1e-3
    )


def test_more_colours_than_there_are_start_again():
    assert len(colours(300)) == 300 and colours(300)[256:] == colours(44)


def test_the_overlay_gives_every_mask_a_colour_of_its_own():
    masks = np.zeros((12, 60, 60), bool)
    for k in range(12):
        masks[k, 5 * k : 5 * k + 4, 5:55] = True
    drawn = overlay(np.zeros((60, 60, 1), np.uint8), masks, np.zeros((60, 60), bool))
    assert [tuple(int(v) for v in drawn[5 * k, 10]) for k in range(12)] == list(colours(12))
