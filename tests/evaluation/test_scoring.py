"""The evaluator by value, on a store of four small cases whose every score is worked out by hand.

Masks of 8 × 8 pixels, stored at 4 × 4, three raters a case:
  a  two raters mark the left half, the third marks nothing
  b  all three mark the left half
  c  one rater marks the left half
  d  nobody marks anything
a, b and c are of one patient.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from manymask.data.case import Case, Source, evenly_spaced
from manymask.data.store import Store, prepare
from manymask.diffusion.samplers import DDIM, DDPM
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ManymaskError
from manymask.evaluation.evaluator import EvalConfig, Scores, evaluate, resize_map, results
from manymask.evaluation.held_out import held_out_cases, split_of
from manymask.evaluation.plots import metrics_table
from manymask.hub.model_folder import TrainedModel
from manymask.hub.provenance import Provenance
from manymask.inference.preprocess import View
from manymask.metrics import summary
from manymask.models.base import MaskSampler
from manymask.models.deterministic import OneToOne
from manymask.training.validation import validation_score

RATERS = {"a": (1, 1, 0), "b": (1, 1, 1), "c": (1, 0, 0), "d": (0, 0, 0)}
SIDE, NATIVE = 4, 8


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Store:
    def case(name: str) -> Case:
        image = np.random.default_rng(ord(name)).integers(0, 255, (NATIVE, NATIVE, 1), dtype=np.uint8)
        masks = np.zeros((3, NATIVE, NATIVE), bool)
        for k, marks in enumerate(RATERS[name]):
            masks[k, :, :4] = bool(marks)
        return Case(name, "other" if name == "d" else "patient", lambda: (image, masks))

    source = Source("phantom", [case(n) for n in RATERS], {"all": {"train": list("abc"), "val": [], "test": ["d"]}}, "")
    return prepare(source, tmp_path_factory.mktemp("small") / "store", SIDE, 1)


class Answers(MaskSampler):
    """Draws the given probability maps (n, 4, 4) of each case, over and over."""

    def __init__(self, **maps: torch.Tensor) -> None:
        super().__init__()
        self.maps, self.asked = maps, []

    def prepare(self, batch, n, sampling):
        self.asked.append(n)
        return self.maps

    def sample(self, common, batch, which, seed, sampling, callback=None):
        return torch.stack([common[case][torch.tensor(which) % len(common[case])] for case in batch.ids])


def halves(*values: float) -> torch.Tensor:
    """One map per value, which it takes in the left half; 0 on the right."""
    maps = torch.zeros(len(values), SIDE, SIDE)
    for k, value in enumerate(values):
        maps[k, :, :2] = value
    return maps


def quarter(value: float) -> torch.Tensor:
    """One map that has the value in its upper left quarter."""
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, :2, :2] = value
    return maps


LEFT, NOTHING = halves(1.0), halves(0.0)


def scores(store: Store, ids: str, protocol: EvalConfig = EvalConfig(), **maps: torch.Tensor) -> Scores:
    return evaluate(Answers(**maps), store, list(ids), protocol, progress=False)


def values(found: Scores, name: str) -> list:
    return [case[name] for case in found.cases]


def test_truth_is_the_consensus_of_those_who_marked_something(small):
    """Of c one rater of three marked: the majority is empty, the consensus is not."""
    found = scores(small, "abcd", a=LEFT, b=LEFT, c=LEFT, d=LEFT)
    assert values(found, "dice") == values(found, "iou") == [1, 1, 1, 0]
    assert values(found, "dice_model_size") == [1, 1, 1, 0]
    assert values(found, "raters") == [2, 3, 1, 0]


def test_majority_is_scored_where_two_or_more_marked_and_all_slots_where_all_did(small):
    found = scores(small, "abcd", a=LEFT, b=quarter(1.0), c=NOTHING, d=NOTHING)
    quarters = resize_map(quarter(1.0)[0].numpy(), (8, 8)) >= 0.5
    dice = 2 * quarters[:, :4].sum() / (quarters.sum() + 32)  # against the left half
    assert values(found, "dice_majority") == [1, pytest.approx(dice), None, None]
    assert found.metrics["dice_majority"]["n"] == 2 and found.metrics["dice_majority"]["skipped"] == 2
    full = found.metrics["dice_all_raters"]
    assert full["n"] == 1 and full["mean"] == found.cases[1]["dice"] < 1


def test_intervals_resample_patients_not_images(small):
    """Dice 1, 1, 1 of one patient and 0 of another: half of all resamplings hold one patient alone."""
    found = scores(small, "abcd", a=LEFT, b=LEFT, c=LEFT, d=LEFT).metrics["dice"]
    assert (found["mean"], found["low"], found["high"], found["n"]) == (0.75, 0, 1, 4)
    assert summary([1.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"])["low"] == 0.25


def test_pooled_scores_divide_sums_of_areas(small):
    """a: 32 px of 32; d: 32 px where there are none."""
    found = scores(small, "ad", a=LEFT, d=LEFT).metrics
    assert found["dice"]["pooled"] == pytest.approx(2 * 32 / (64 + 32))
    assert found["iou"]["pooled"] == pytest.approx(32 / 64)


def test_brier_score_is_the_mean_square_against_the_share_of_raters(small):
    """At native size a map that is ½ everywhere: (½ − 2/3)² on the left, ½² on the right; and an exact one."""
    found = scores(small, "ad", a=torch.full((1, 4, 4), 0.5), d=NOTHING)
    assert values(found, "brier") == pytest.approx([(1 / 36 + 1 / 4) / 2, 0])


def test_spread_is_the_deviation_over_samples_per_area(small):
    """Probabilities 1 and 0, …, drawn five times: mean 0.6, deviation √0.24, both on half of the pixels."""
    found = scores(small, "bd", b=halves(1.0, 0.0), d=NOTHING)
    assert values(found, "relative_std") == pytest.approx([0.24**0.5 / 0.6, 0])


def test_missed_and_false_answers_stand_beside_the_surface_distance(small):
    found = scores(small, "abcd", a=NOTHING, b=LEFT, c=LEFT, d=LEFT)
    assert values(found, "hd95") == [None, 0, 0, None]
    assert {k: found.metrics["hd95"][k] for k in ("mean", "n", "skipped", "missed", "false")} == {
        "mean": 0, "n": 2, "skipped": 2, "missed": 1, "false": 1,
    }  # fmt: skip
    assert "mean" not in scores(small, "a", EvalConfig(native=False), a=LEFT).metrics["hd95"]


def test_table_says_over_how_many_cases_a_surface_distance_is(small):
    found = scores(small, "abcd", a=NOTHING, b=LEFT, c=LEFT, d=LEFT).metrics
    cells = dict(zip(*(column._cells for column in metrics_table(found, "").columns[::4]), strict=True))
    assert (cells["dice"], cells["hd95"], cells["ece"]) == ("4", "2 of 4, 1 missed, 1 false", "")


def test_confidence_of_one_half_counts_as_lesion(small):
    found = scores(small, "b", b=halves(0.5))
    assert values(found, "dice_model_size") == [1]


def test_several_raters_get_sixteen_samples_of_which_five_make_the_answer(small):
    """The first five of b say all, the other eleven nothing."""
    model = Answers(b=torch.cat([LEFT.repeat(5, 1, 1), NOTHING.repeat(11, 1, 1)]))
    found = evaluate(model, small, ["b"], EvalConfig(), progress=False)
    assert model.asked == [16] and values(found, "dice") == [1]
    cross, within = 1 - 5 / 16, 2 * 5 * 11 / 16**2
    assert values(found, "ged") == pytest.approx([2 * cross - within])
    assert values(found, "hm_iou") == pytest.approx([5 / 16])
    assert 0 < found.throughput_s_per_image < 60
    assert [EvalConfig().drawn(raters) for raters in (1, 2)] == [5, 16]
    assert EvalConfig(samples=20).drawn(2) == 20


def test_calibration_is_over_all_pixels_and_near_what_raters_marked(small):
    """Nothing is said of b, whose left half all marked: wrong by 1 on 32 of 64 px, all of which lie near; of d the
    answer is everywhere, and near a lesion there is nothing to be wrong about."""
    found = scores(small, "bd", b=NOTHING, d=torch.ones(1, 4, 4))
    assert found.metrics["ece"] == {
        "mean": pytest.approx((32 + 64) / 128),
        "near_lesion": pytest.approx(0.5),
        "bins": 15,
    }
    assert sum(found.reliability["near_lesion"]["count"]) == 64
    assert sum(found.reliability["everywhere"]["count"]) == 128


def test_a_map_is_scored_as_it_is_shown():
    """One function enlarges maps for `segment` and for `evaluate`: what is shown, written and scored is one mask."""
    small = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    view = View(np.zeros((17, 20, 1), np.uint8), [])
    shown = view.paste(torch.from_numpy(small)[None, None])[0].numpy()
    assert np.array_equal(resize_map(small, (17, 20)), shown)
    assert resize_map(shown, (17, 20)) is shown


def test_cases_are_spread_evenly():
    assert evenly_spaced(list("abcdefgh"), 4) == list("aceg") and evenly_spaced(list("abcde"), 2) == list("ac")
    assert evenly_spaced(list("abc"), 3) == evenly_spaced(list("abc"), None) == list("abc")


def trained(recipe, **provenance) -> TrainedModel:
    model = replace(recipe, segmenter=replace(recipe.segmenter, sampler=DDIM(7))).build("segmenter")
    seen = Provenance(**({"data": "phantom"} | provenance))
    return TrainedModel(model, replace(recipe, size=SIDE), "segmenter", seen, ["a", "b"])


def test_held_out_cases_are_of_the_models_own_split_and_none_that_it_saw(small, recipe):
    model = trained(recipe, data_hash=small.hash, scheme="all")
    assert (split_of(model, small), held_out_cases(model, small, "test")) == ("all", ["d"])
    assert held_out_cases(model, small, "train") == ["a", "b", "c"]
    model.training_ids.append("d")
    with pytest.raises(ManymaskError, match="1 of the test cases were trained on"):
        held_out_cases(model, small, "test")
    with pytest.raises(ManymaskError, match="prepared at 4² with 1"):
        held_out_cases(replace(model, recipe=recipe), small, "test")


def test_split_of_other_data_is_the_default_of_the_store(small, recipe):
    assert split_of(trained(recipe, data_hash="another", scheme="mine"), small) == small.default_scheme == "all"
    assert split_of(trained(recipe, data_hash=small.hash, scheme="mine"), small) == "mine"
    assert split_of(trained(recipe), small, "asked") == "asked"


def test_results_name_the_sampler_that_drew(small, recipe):
    model = trained(recipe)
    for given, expected in ((None, {"kind": "DDIM", "steps": 7, "eta": 0.0}), (DDPM(3), {"kind": "DDPM", "steps": 3})):
        protocol = EvalConfig(sampling=SamplingConfig(given))
        found = results(model, small, "test", protocol, scores(small, "d", d=NOTHING)).to_dict()
        assert found["protocol"]["sampler"] == expected and found["protocol"]["split"] == "test"
        assert found["masks_per_image"] == 16 and found["data"]["scheme"] == "all"


def test_baselines_hold_the_disk_of_radius_four_and_each_rater_against_the_rest(small):
    """Of 49 pixels of the disk in 8 × 8 (its top row and left column are one pixel each), b's left half holds 22."""
    y, x = np.ogrid[:8, :8]
    disk = (y - 4) ** 2 + (x - 4) ** 2 <= 16
    expected = 2 * disk[:, :4].sum() / (disk.sum() + 32)
    found = scores(small, "bd", b=LEFT, d=NOTHING).baselines
    assert found["disk"]["dice"]["mean"] == pytest.approx(expected / 2)
    assert found["one_rater_against_the_others"]["dice"] == {"mean": 1, "low": 1, "high": 1, "n": 1}


def test_checkpoints_are_compared_by_what_the_model_is_for(recipe):
    found = Scores({"ged": {"mean": 0.3}, "dice": {"mean": 0.8}}, [])
    assert validation_score(found, "1 - ged") == pytest.approx(0.7) and validation_score(found, "dice") == 0.8
    for target, raters, metric in (("rater", 4, "1 - ged"), ("rater", 1, "dice"), ("consensus", 4, "dice")):
        model = replace(recipe, segmenter=replace(recipe.segmenter, target=target)).build("segmenter")
        assert model.validation_metric(raters) == metric
    # of one network's views no masks are drawn: GED² would take them for a sample
    for target, raters, metric in (("rater", 4, "1 - brier"), ("rater", 1, "dice"), ("consensus", 4, "dice")):
        network = replace(recipe, segmenter=OneToOne(target=target)).build("segmenter")
        assert network.validation_metric(raters) == metric
