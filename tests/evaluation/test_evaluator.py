"""The evaluator, with models whose scores are known beforehand."""

import json
from dataclasses import replace

import pytest
import torch

from manymask.data.raters import raters_consensus
from manymask.errors import ConfigError, DataLeakError
from manymask.evaluation.evaluator import EvalConfig, evaluate, results
from manymask.evaluation.held_out import check_no_leakage, held_out_cases, matched_store
from manymask.hub.model_folder import load_model
from manymask.hub.provenance import Provenance
from manymask.metrics import overlap
from manymask.models.base import MaskSampler
from manymask.runtime import git_revision


class Oracle(MaskSampler):
    """Answers with the raters themselves, or with what `change` makes of them."""

    def __init__(self, store, change=lambda masks: masks):
        super().__init__()
        self.store, self.change = store, change

    def prepare(self, batch, n, sampling):
        return self.change(self.store.batch(batch.ids).truth())

    def sample(self, common, batch, which, seed, sampling, callback=None):
        return common[:, torch.tensor(which) % common.shape[1]]


def test_consensus_as_answer_scores_one(store):
    scores = evaluate(Oracle(store, raters_consensus), store, store.ids[:6], EvalConfig(), progress=False)
    assert scores.metrics["dice"]["mean"] == scores.metrics["dice"]["pooled"] == 1
    assert scores.metrics["hd95"]["mean"] == 0


def test_raters_as_samples_have_ged_zero_and_hm_iou_one(store):
    scores = evaluate(Oracle(store), store, store.ids[:6], EvalConfig(samples=4, ged_samples=4), progress=False)
    assert scores.metrics["ged"]["mean"] == pytest.approx(0, abs=1e-6)
    assert scores.metrics["hm_iou"]["mean"] == pytest.approx(1)
    assert scores.metrics["brier"]["mean"] == pytest.approx(0, abs=1e-9) and scores.metrics["ece"]["mean"] < 1e-9


def test_one_mask_repeated_has_worse_ged_than_the_raters(store):
    repeated = evaluate(Oracle(store, raters_consensus), store, store.ids, EvalConfig(), progress=False)
    assert repeated.metrics["ged"]["mean"] > 0.02


def test_empty_answers_score_zero_and_are_skipped_by_hd95(store):
    scores = evaluate(Oracle(store, torch.zeros_like), store, store.ids[:4], EvalConfig(), progress=False)
    assert scores.metrics["dice"]["mean"] == 0
    assert scores.metrics["hd95"] == {"n": 0, "skipped": 4, "missed": 4, "false": 0}


def test_cases_that_were_trained_on_are_refused(store, trained_run):
    trained = load_model(trained_run)
    assert held_out_cases(trained, store, "test") == store.part(None, "test")
    trained.training_ids += store.part(None, "test")[:1]
    with pytest.raises(DataLeakError, match="1 of the test cases were trained on"):
        held_out_cases(trained, store, "test")


def test_cases_seen_by_what_a_model_started_from_are_refused(store, trained_run):
    trained = load_model(trained_run)
    trained.provenance = Provenance("folder", "of another", parent=trained.provenance)
    assert held_out_cases(trained, store, "test") == store.part(None, "test")
    trained.training_ids += store.part(None, "test")[:2]
    with pytest.raises(DataLeakError, match="2 of the test cases were trained on"):
        held_out_cases(trained, store, "test")


def test_names_seen_in_another_folder_of_ones_own_are_a_warning(store, monkeypatch, capsys):
    monkeypatch.setattr(store, "name", "folder")
    ids = store.part(None, "test")
    check_no_leakage(ids, "test", store, Provenance("folder", "before it was prepared anew"), ids[:1])
    assert "the scores are too good" in capsys.readouterr().err
    with pytest.raises(DataLeakError, match="trained on"):
        check_no_leakage(ids, "test", store, Provenance("folder", store.hash), ids[:1])


def test_sample_count_of_ged_is_its_own(store):
    few = evaluate(Oracle(store), store, store.ids[:3], EvalConfig(samples=4, ged_samples=4), progress=False)
    many = evaluate(Oracle(store), store, store.ids[:3], EvalConfig(samples=7, ged_samples=4), progress=False)
    assert few.metrics["ged"]["mean"] == many.metrics["ged"]["mean"] == pytest.approx(0, abs=1e-6)


def test_results_are_json_and_name_their_origin(store, trained_run):
    trained, protocol = load_model(trained_run), EvalConfig(samples=2, ged_samples=2)
    ids = held_out_cases(trained, store, "test")
    scores = evaluate(trained.model, store, ids, protocol, progress=False)
    found = json.loads(json.dumps(results(trained, store, "test", protocol, scores).to_dict(), allow_nan=False))
    assert found["data"]["hash"] == store.hash and found["protocol"]["seed"] == 0 and found["git"] == git_revision()
    assert {"mean", "low", "high", "pooled"} <= set(found["metrics"]["dice"])
    assert [case["id"] for case in found["cases"]] == ids
    assert {"ged", "hm_iou", "ece", "brier", "hd95"} <= set(found["metrics"])


def test_evaluating_twice_gives_the_same(store, trained_run):
    trained = load_model(trained_run)
    twice = [
        evaluate(trained.model, store, store.ids[:3], EvalConfig(batch_size=b), progress=False).cases for b in (1, 3)
    ]
    for first, second in zip(*twice, strict=True):
        assert first["dice"] == pytest.approx(second["dice"], abs=0.01)


def test_batches_drawn_at_once_score_as_one_by_one(drawing_model, store):
    trained, threads = load_model(drawing_model), torch.get_num_threads()
    found = []
    try:
        for cores in (1, 3):
            torch.set_num_threads(cores)
            found.append(evaluate(trained.model, store, store.ids[:5], EvalConfig(batch_size=2), "cpu", progress=False))
    finally:
        torch.set_num_threads(threads)
    assert [case["id"] for case in found[1].cases] == list(store.ids[:5])
    for one, three in zip(found[0].cases, found[1].cases, strict=True):
        for name in ("dice", "hd95", "brier", "relative_std", "ged"):
            assert one[name] == pytest.approx(three[name], abs=1e-5), name
    assert all(scores.throughput_s_per_image > 0 for scores in found)


def test_codec_scores_are_those_of_table_one(store, trained_run):
    codec = load_model(trained_run / "mask-codec").model
    scores = evaluate(codec, store, store.ids[:4], EvalConfig(), progress=False)
    assert set(scores.metrics) == {"dice", "iou", "dice_unquantized", "ssim", "psnr"}
    assert codec.validation_metric(4) == "dice"
    original = codec.reconstruct(store.batch(store.ids[:1]))[0]
    unsnapped = codec.decode(codec.encode(original))[0, 0].detach().numpy() >= 0.5
    assert scores.cases[0]["dice_unquantized"] == overlap(unsnapped, original[0, 0].numpy() >= 0.5)[0]
    assert load_model(trained_run / "image-codec").model.validation_metric(4) == "psnr"


def test_a_window_shows_the_stored_pixels_off_the_middle(store):
    inner = store.window(16, (3, -2))
    case, margin = store.ids[0], (store.stored[0] - 16) // 2
    rows, columns = slice(margin + 3, margin + 19), slice(margin - 2, margin + 14)
    whole = store.batch([case])
    assert torch.equal(inner.batch([case]).image, whole.image[..., rows, columns])
    assert torch.equal(inner.batch([case]).truth(), whole.truth()[..., rows, columns])
    if store.native_masks(case).shape[1:] == store.stored:
        assert (inner.native_masks(case) == store.native_masks(case)[:, rows, columns]).all()
    with pytest.raises(ConfigError, match="no window of 16²"):
        store.window(16, (margin + 1, 0))


def test_a_model_with_a_margin_sees_the_middle_of_what_is_stored(store, recipe):
    row = replace(recipe, size=store.stored[0] - 8, margin=4)
    assert matched_store(row, store).images.shape[-1] == store.stored[0] - 8
    with pytest.raises(ConfigError, match="windows of larger crops"):
        matched_store(replace(row, size=store.stored[0], margin=0), store, (1, 1))
