"""What a review of the most doubtful images is expected to find, by value."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymask.errors import ConfigError
from manymask.inference.review import POINTS, Review, parse_budget, promised, unlike

EXAMPLE = Review(np.array([0.5, 0.25, 0.125, 0.125]))
PROBABILITIES = st.lists(st.floats(1e-4, 1), min_size=1, max_size=300)


def test_first_images_hold_the_sum_of_their_probabilities():
    assert EXAMPLE.expected == 1.0
    assert [EXAMPLE.found(k) for k in range(5)] == [0, 0.5, 0.75, 0.875, 1.0]
    assert EXAMPLE.share(2) == 0.75


@pytest.mark.parametrize(("share", "images"), [(0.01, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.9, 4), (1.0, 4)])
def test_needed_is_the_least_number_that_reaches_the_share(share, images):
    assert EXAMPLE.needed(share) == images


@pytest.mark.parametrize(("budget", "images"), [(1, 1), (3, 3), (99, 4), (0.1, 1), (0.25, 1), (0.26, 2), (1.0, 4)])
def test_budget_is_a_count_or_a_share_rounded_up(budget, images):
    assert EXAMPLE.within(budget) == images


@given(PROBABILITIES, st.floats(0.01, 1))
def test_reviewing_the_needed_images_finds_the_share_and_one_less_does_not(probabilities, share):
    review = Review(np.sort(probabilities)[::-1])
    k = review.needed(share)
    assert review.share(k) >= share - 1e-6
    assert review.share(k - 1) < share + 1e-6


@given(PROBABILITIES)
def test_curve_rises_from_nothing_to_all_and_lies_above_chance(probabilities):
    review = Review(np.sort(probabilities)[::-1])
    curve = np.array(review.curve())
    assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == [1, 1] and len(curve) <= POINTS + 1
    assert (np.diff(curve, axis=0) >= 0).all()
    assert (curve[:, 1] >= curve[:, 0] - 1e-3).all()


def test_the_promise_holds_on_average_when_the_probabilities_are_right():
    """Over many folders whose images fail with the stated probability: the failures found are those expected."""
    rng = np.random.default_rng(0)
    p = np.sort(rng.beta(0.5, 3, 200))[::-1]
    review = Review(p)
    fails = rng.random((4000, 200)) < p
    assert fails[:, :20].sum(axis=1).mean() == pytest.approx(review.found(20), rel=0.02)
    assert fails[:, :20].sum() / fails.sum() == pytest.approx(review.share(20), abs=0.01)


def test_small_numbers_of_failures_are_not_said_to_be_none():
    origin = SimpleNamespace(cases=range(260), data="isic2018", failures=20)
    calibration = SimpleNamespace(origin=origin, foreign=object())
    one, *rest = promised(Review(np.array([0.0096, 0.0057, 0.0057, 0.0057])), 1, calibration, 0)
    assert one.startswith("Review this 1 of 4 images: it is expected to hold 0.01 of 0.03 failures (36 %).")
    assert rest[0] == "Less than one failure is expected in all of them."
    two, *_ = promised(Review(np.array([0.75, 0.5, 0.25])), 2, calibration, 0)
    assert two.startswith("Review these 2 of 3 images: they are expected to hold 1.2 of 1.5 failures (83 %).")


def test_no_images_need_no_review():
    empty = Review(np.zeros(0))
    assert (empty.needed(0.9), empty.within(0.1), empty.share(0)) == (0, 0, 1.0)


@pytest.mark.parametrize(
    ("text", "budget"), [("12", 12), ("0.1", 0.1), ("10%", 0.1), ("1", 1), ("1.0", 1.0), ("100 %", 1.0)]
)
def test_budgets_are_read(text, budget):
    found = parse_budget(text)
    assert found == budget and type(found) is type(budget)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "150%", "many", "", "nan", "inf"])
def test_budgets_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="a budget is") as error:
        parse_budget(text)
    assert error.value.parameter == "budget"


def test_as_many_foreign_images_as_false_alarms_explain_are_no_news():
    assert unlike(0, 100) == "" and unlike(6, 100) == "" and unlike(1, 3) == ""
    assert unlike(20, 100).startswith("20 of 100 images are unlike the training images (about 5 %")
