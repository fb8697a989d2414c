"""The demonstration: what is compared with what, by value."""

import numpy as np
import pytest
import torch

from manymask.calibration.confidence import Isotonic
from manymask.data.case import Batch
from manymask.data.datasets import phantom
from manymask.experiments.demo import RIVAL, best_single_mask, halo_agreement, nested_masks, table_rows
from manymask.experiments.true_calibration import rows_of, true_calibration
from manymask.nn.losses import WeightedCE
from manymask.recipes import get_recipe

IDS = [f"phantom-{i:05}" for i in range(24)]


class Phantoms:
    """A store of phantoms that are drawn when they are wanted."""

    def batch(self, ids):
        drawn = [phantom.draw(phantom.case_index(case)) for case in ids]
        return Batch(list(ids), torch.stack([torch.from_numpy(one.image).permute(2, 0, 1) / 255 for one in drawn]))


class Map:
    """A network that answers every phantom of a batch with the same function of its truth."""

    def __init__(self, answer):
        self.answer = answer

    def sample_all(self, batch, n, seed):
        assert n == 1
        maps = [self.answer(phantom.draw(phantom.case_index(case))) for case in batch.ids]
        return torch.from_numpy(np.stack(maps)).float()[:, None]


def test_one_map_that_knows_the_share_of_raters_beats_every_single_mask():
    share = halo_agreement(nested_masks(Map(lambda one: one.halo_probability * one.halo_ring)), Phantoms(), IDS)
    assert share["mean_absolute_error"] < 1 / 48 + 1e-6  # half a level of 24
    assert share["rank_correlation"] > 0.98 and share["undecided_with_both_answers"] == 1
    best = best_single_mask(IDS)
    assert best["mean_absolute_error"] > 0.1 and best["undecided_with_both_answers"] == 0


def test_halo_counts_only_where_more_than_half_of_its_ring_is_marked():
    def part(share):
        def answer(one):
            ring = np.flatnonzero(one.halo_ring.ravel())
            marked = np.zeros(one.halo_ring.size)
            marked[ring[: round(share * len(ring))]] = 1
            return marked.reshape(one.halo_ring.shape)

        return halo_agreement(nested_masks(Map(answer)), Phantoms(), IDS)["mean_absolute_error"]

    truths = np.array([phantom.draw(phantom.case_index(case)).halo_probability for case in IDS])
    assert part(0.4) == pytest.approx(truths.mean()) and part(0.6) == pytest.approx((1 - truths).mean())


def test_the_rival_learns_one_rater_at_random_by_plain_cross_entropy():
    setting = get_recipe(RIVAL).segmenter
    assert setting.target == "rater" and setting.loss == WeightedCE(1)


def test_table_names_steps_and_seconds_of_each_column():
    halo = {"mean_absolute_error": 0.1, "rank_correlation": 0.9, "undecided_with_both_answers": 1.0}
    scores = {"metrics": {"dice": {"mean": 0.8}, "ged": {"mean": 0.2}}, "halo": halo}
    stages = {"image-codec": {"steps": 5, "seconds": 10.0}, "segmenter": {"steps": 70, "seconds": 40.0}}
    rival = {**scores, "training": {"steps": 90, "seconds": 30.0}}
    rows = table_rows({**scores, "training": stages, "rival": rival, "best_single_mask": {"halo": halo}})
    assert rows[0][1:] == ["70", "90", "–"] and rows[1][1:] == ["50", "30", "–"]
    assert rows[4] == ["share of 24 masks with the halo: mean absolute error", "0.100", "0.100", "0.100"]


def over_sure(ids, count=24):
    """Masks of a model that draws the core always, and the halo in a share of masks that is too extreme."""
    drawn = {}
    for case in ids:
        one = phantom.draw(phantom.case_index(case))
        logit = 3 * np.log(one.halo_probability / (1 - one.halo_probability))
        with_halo = round(count / (1 + np.exp(-logit)))
        core = one.pixel_probability > one.halo_probability + 0.5 * (1 - one.halo_probability)
        masks = np.repeat(core[None].astype(np.float32), count, axis=0)
        masks[:with_halo] = np.maximum(masks[:with_halo], one.halo_ring)
        drawn[case] = masks[np.random.default_rng(phantom.case_index(case)).permutation(count)]
    return drawn


def test_over_sure_shares_come_nearer_to_the_truth_when_calibrated_on_raters():
    fitted_on = over_sure([f"phantom-{i:05}" for i in range(100, 200)])
    found = true_calibration(Isotonic(np.array([0.0, 1.0]), np.array([0.0, 1.0])), over_sure(IDS), fitted_on, 5)
    before, after = found["halo"]["before"], found["halo"]["after"]
    assert before["mean_absolute_error"] > 0.08 and after["mean_absolute_error"] < 0.6 * before["mean_absolute_error"]
    assert found["pixels_near_lesion"]["before"] == found["pixels_near_lesion"]["after"]  # the map changes nothing
    assert found["tested_on"] == 24 and found["fitted_on"] == 100


def test_maps_that_are_the_truth_have_no_error_until_they_are_changed():
    drawn = {case: phantom.draw(phantom.case_index(case)).pixel_probability[None] for case in IDS}
    halved = Isotonic(np.array([0.0, 1.0]), np.array([0.0, 0.5]))
    found = true_calibration(halved, drawn, drawn, 1)
    for part in ("pixels_near_lesion", "pixels_everywhere"):
        assert found[part]["before"] == {"ece": 0, "mean_absolute_error": 0}
    truths = np.concatenate([next(iter(masks)).ravel() for masks in drawn.values()])
    assert found["pixels_everywhere"]["after"]["ece"] == pytest.approx(truths.mean() / 2)
    assert len(rows_of(found)) == 6 and rows_of(found)[0][1].startswith("0.000 → ")
