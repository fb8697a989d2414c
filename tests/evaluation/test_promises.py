"""Promises against what happened: by value, on exchangeable cases, and through `evaluate`."""

import json
from dataclasses import replace

import numpy as np
import pytest

from manymask import api
from manymask.calibration.confidence import Isotonic, PixelCounts
from manymask.calibration.evidence import NAMES
from manymask.calibration.quality import fit_quality
from manymask.calibration.risk import THRESHOLDS, RiskControl, control
from manymask.data.case import Batch
from manymask.diffusion.sampling import SamplingConfig
from manymask.evaluation.calibrate import sampling_record
from manymask.evaluation.observations import Drawn
from manymask.evaluation.outcomes import Outcomes, one_pass_entropy
from manymask.evaluation.promises import kept_promises, reliability, unpromised
from manymask.evaluation.promises_table import promises_rows
from manymask.experiments.report.promises import draw_promises
from manymask.hub.model_folder import load_model, save_calibration, save_model
from manymask.metrics import Reliability, auroc, near_lesion
from tests.calibration.test_calibration import made
from tests.factories import batch, build, run


def half_found(outcomes, case="a", group=None, falsely=8):
    """64 pixels, 32 of the lesion: 24 of confidence 0.9, 8 of 0.3; beside it `falsely` pixels of confidence 0.6."""
    confidence = np.zeros(64, dtype=np.float32)
    confidence[:24], confidence[24:32], confidence[32 : 32 + falsely] = 0.9, 0.3, 0.6
    truth = np.zeros(64, dtype=bool)
    truth[:32] = True
    drawn = Drawn(np.repeat(confidence.reshape(1, 8, 8), 2, axis=0), None, None)
    outcomes.add(case, group or case, drawn, truth.reshape(1, 8, 8), False, one_pass=0.5)


def promised(*risks, dice=(0.8, 0.6, 1.0, 0.1), **changes):
    return replace(made(), risks=risks, quality=lambda evidence: dice, presence=None, foreign=None, **changes)


def test_shares_and_sizes_of_outlines_by_value():
    seen = Outcomes()
    for case in "abc":
        half_found(seen, case)
    wide, narrow = kept_promises(promised(RiskControl(0.1, 0.2, 0.8), RiskControl(0.2, 0.5, 0.5)), seen, True)[
        "outlines"
    ]
    assert wide["outer"]["share"]["mean"] == 0 and wide["inner"]["share"]["mean"] == 0
    assert wide["outer"]["area_to_consensus"] == 40 / 32 and wide["inner"]["area_to_consensus"] == 24 / 32
    assert wide["outer"]["area_of_image"] == 40 / 64 and wide["outer"]["kept"]
    assert narrow["outer"]["share"]["mean"] == narrow["inner"]["share"]["mean"] == 0.25
    assert narrow["outer"]["area_to_consensus"] == narrow["outer"]["area_to_lesion"] == 1
    assert not narrow["outer"]["kept"] and narrow["outer"]["broken"]  # 0.25 in every case, at most 0.2 promised


def test_a_share_above_the_promise_with_an_interval_that_holds_it_is_not_broken():
    seen = Outcomes()
    for k in range(12):
        half_found(seen, str(k), falsely=8 if k < 2 else 0)  # false shares of 0.25 in two of twelve cases
    (entry,) = kept_promises(promised(RiskControl(0.04, 0.5, 0.5)), seen, True)["outlines"]
    assert entry["inner"]["share"]["mean"] == pytest.approx(0.5 / 12)
    assert not entry["inner"]["kept"] and not entry["inner"]["broken"]


def test_a_threshold_of_all_pixels_and_one_of_none():
    seen = Outcomes()
    half_found(seen)
    (entry,) = kept_promises(promised(RiskControl(0.1, 0.0, 2.0)), seen, True)["outlines"]
    assert entry["outer"]["area_of_image"] == 1 and entry["outer"]["share"]["mean"] == 0
    assert entry["inner"]["area_of_image"] == 0 and entry["inner"]["share"]["mean"] == 0


def test_predicted_dice_is_held_against_the_dice_of_the_consensus():
    seen = Outcomes()
    half_found(seen, "a")  # Dice 0.75: 24 of 32 and 32 pixels
    half_found(seen, "b", falsely=32)  # 48 / 88
    found = kept_promises(promised(RiskControl(0.1, 0.2, 0.8)), seen, True)["dice"]
    assert seen.dice == pytest.approx([0.75, 48 / 88])
    assert found["absolute_error"]["mean"] == pytest.approx(0.8 - (0.75 + 48 / 88) / 2) == found["excess"]
    assert found["covered"]["count"] == 1 and found["covered"]["of"] == 2 and found["width"] == pytest.approx(0.4)
    assert found["covered"]["promised"] == 0.9 and not found["covered"]["kept"] and not found["covered"]["broken"]


class BySize:
    """Predicts what a row of evidence says by its first number."""

    def __call__(self, evidence):
        return evidence[0], 0.0, 1.0, 1 - evidence[0]


def ranked(dice, agreement, groups=None):
    """Outcomes with this Dice whose predicted failure and agreement are the given numbers."""
    seen = Outcomes()
    for k in range(len(dice)):
        half_found(seen, str(k), groups and groups[k])
    seen.dice = list(dice)
    seen.evidence = [np.array([value] + [0.0] * (len(NAMES) - 1)) for value in agreement]
    return kept_promises(replace(promised(RiskControl(0.1, 0.2, 0.8)), quality=BySize()), seen, True)["ranking"]


def test_the_right_order_finds_all_failures_and_the_reverse_none():
    dice = np.linspace(0.05, 1, 20)
    right, wrong = ranked(dice, dice), ranked(dice, 1 - dice)
    assert right["failures"] == 13 and right["excess_aurc"] == pytest.approx(0)
    assert right["auroc"]["predicted_failure"]["auroc"] == 1 and wrong["auroc"]["predicted_failure"]["auroc"] == 0
    assert right["tenth"] == {"reviewed": 2, "found": 2, "of": 13} | {
        name: right["tenth"][name] for name in ("share", "low", "high")
    }
    assert wrong["tenth"]["found"] == 0 and wrong["excess_aurc"] > 0.2
    assert right["risk_coverage"][-1] == pytest.approx(1 - dice.mean()) == right["aurc_of_random_order"]
    assert wrong["best_risk_coverage"] == right["risk_coverage"]


def test_a_rival_that_says_nothing_has_half_the_area_and_the_lead_is_paired():
    dice = np.linspace(0.05, 1, 20)
    found = ranked(dice, dice)["auroc"]
    assert found["one_pass_entropy"]["auroc"] == 0.5  # 0.5 bits everywhere
    assert found["one_pass_entropy"]["lead"] == {"low": pytest.approx(0.5), "high": pytest.approx(0.5)}
    assert found["disagreement"]["lead"] == {"low": 0, "high": 0}  # the same order here


def test_without_failures_there_is_no_area_and_nothing_to_find():
    found = ranked(np.full(12, 0.9), np.linspace(0, 1, 12))
    assert found["failures"] == 0 and found["auroc"] == {} and found["tenth"]["of"] == 0


def test_diagrams_from_fine_bins_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 0.6, size=200_000)
    marked = (rng.random(len(p)) < p**2).astype(float)
    direct = Reliability()
    direct.add(p, marked)
    counts = PixelCounts.of(p, marked)
    assert reliability(counts).error == pytest.approx(direct.error, abs=0.002)
    assert reliability(counts).count.sum() == len(p)
    assert reliability(counts, lambda x: x**2).error < 0.005 < 0.05 < direct.error


def test_only_pixels_near_the_lesion_count_there():
    seen = Outcomes()
    truth = np.zeros((1, 32, 32), dtype=bool)
    truth[0, :4] = True
    seen.add("a", "a", Drawn(np.full((2, 32, 32), 0.25, dtype=np.float32), None, None), truth, False)
    assert seen.near[0].count.sum() == near_lesion(truth).sum() == 9 * 32 and seen.counts[0].count.sum() == 32 * 32
    mapped = promised(RiskControl(0.1, 0.2, 0.8), confidence=Isotonic(np.array([0.0, 1.0]), np.array([0.5, 0.5])))
    found = kept_promises(mapped, seen, True)["reliability"]
    assert [found["near_lesion"][when]["ece"] for when in ("before", "after")] == pytest.approx([4 / 9 - 1 / 4, 1 / 18])
    assert found["in_doubt"] == found["near_lesion"]  # no mask marks anything
    assert [found["everywhere"][when]["ece"] for when in ("before", "after")] == pytest.approx([1 / 8, 3 / 8])


def test_pixels_near_what_a_mask_marks_are_in_doubt():
    seen = Outcomes()
    truth = np.zeros((1, 32, 32), dtype=bool)
    truth[0, :4] = True
    masks = np.zeros((2, 32, 32), dtype=np.float32)
    masks[1, 28:] = 1.0
    seen.add("a", "a", Drawn(masks, None, None), truth, False)
    assert seen.near[0].count.sum() == 9 * 32 and seen.doubt[0].count.sum() == (9 + 9) * 32
    assert seen.doubt[0].frequency.sum() == 4 * 32


def exchangeable(rng, n):
    """Cases whose Dice, evidence and losses follow one law, with the Dice only partly foretold by the evidence."""
    seen = Outcomes()
    skill = rng.random(n)
    seen.cases = [str(k) for k in range(n)]
    seen.groups = seen.cases
    seen.evidence = list(np.column_stack([skill, *rng.random((len(NAMES) - 1, n))]))
    seen.dice = (0.5 + 0.4 * skill + 0.1 * rng.uniform(-1, 1, n)).tolist()
    seen.held = [1.0] * n
    lost = rng.beta(1, 6, n)  # share of the lesion that lies at a random confidence
    at, wrongly = rng.random(n), rng.random(n)
    seen.missed = list(np.where(at[:, None] < THRESHOLDS, lost[:, None], 0.0))
    seen.false = list(np.where(wrongly[:, None] >= THRESHOLDS, lost[:, None], 0.0))
    seen.counts = seen.near = seen.doubt = [PixelCounts.of(np.array([0.2, 0.8]), np.array([0.0, 1.0]))] * n
    seen.area = [np.arange(len(THRESHOLDS))[::-1]] * n
    seen.embeddings, seen.one_pass = [None] * n, [None] * n
    return seen


def test_promises_are_kept_on_average_over_exchangeable_cases():
    """A single calibration may fall short; the mean over many is what is promised."""
    missed, false, covered = [], [], []
    for draw in range(60):
        rng = np.random.default_rng(draw)
        seen, new = exchangeable(rng, 40), exchangeable(rng, 40)
        risk = control(np.array(seen.missed), np.array(seen.false), 0.1)
        quality = fit_quality(np.array(seen.evidence), np.array(seen.dice), np.arange(40) % 10)
        found = kept_promises(replace(promised(risk), quality=quality), new, True)
        missed.append(found["outlines"][0]["outer"]["share"]["mean"])
        false.append(found["outlines"][0]["inner"]["share"]["mean"])
        covered.append(found["dice"]["covered"]["share"])
    for shares in (missed, false):
        assert np.mean(shares) <= 0.1 + 3 * np.std(shares) / np.sqrt(len(shares))
    assert 0.88 <= np.mean(covered) <= 0.99
    assert max(missed) > 0.1 or max(false) > 0.1 or min(covered) < 0.9  # and not each time


def test_some_rows_are_those_rows():
    seen = exchangeable(np.random.default_rng(0), 6)
    few = seen.rows([4, 1])
    assert few.cases == ["4", "1"] and few.dice == [seen.dice[4], seen.dice[1]]
    assert isinstance(few, Outcomes) and len(few.area) == len(few.one_pass) == 2


def test_presence_is_tested_only_where_there_are_both_classes():
    calibration = replace(promised(RiskControl(0.1, 0.2, 0.8)), presence=lambda rows: rows[:, 0])
    seen = exchangeable(np.random.default_rng(0), 4)
    probability = np.array([0.9, 0.4, 0.8, 0.2])
    seen.evidence = list(np.column_stack([probability, np.zeros((4, len(NAMES) - 1))]))
    found = kept_promises(calibration, seen, True)["presence"]
    assert "every case holds a lesion" in found["why_not"] and found["doubted"]["found"] == 2
    seen.held = [1.0, 1.0, 0.0, 0.0]
    found = kept_promises(calibration, seen, True)["presence"]
    assert found["auroc"] == auroc(probability, np.array([1, 1, 0, 0]) > 0) == 0.75
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.64 + 0.04) / 4) and found["without_lesion"] == 2
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.8 + 0.2) / 4) and "why_not" not in found


def test_share_of_foreign_images_is_held_against_its_false_alarms():
    seen = exchangeable(np.random.default_rng(0), 4)
    seen.embeddings = [np.zeros(8)] * 3 + [np.full(8, 50.0)]
    flagged = kept_promises(replace(made(), quality=BySize()), seen, False)["foreign"]["flagged"]
    assert (flagged["count"], flagged["of"], flagged["promised"]) == (1, 4, 0.05)
    assert not flagged["kept"] and not flagged["broken"]  # one of four may be chance
    unknown = kept_promises(promised(RiskControl(0.1, 0.2, 0.8)), seen, False)["foreign"]
    assert "not calibrated" in unknown["why_not"]


def test_every_line_of_the_table_and_the_figure(tmp_path):
    seen = exchangeable(np.random.default_rng(0), 30)
    found = kept_promises(replace(made(), quality=BySize()), seen, False)
    json.dumps(found, allow_nan=False)
    rows = promises_rows(found)
    assert [row.promised for row in rows[:5]] == ["≤ 10 %", "≤ 10 %", "≤ 20 %", "≤ 20 %", "≥ 90 %"]
    assert {row.kept for row in rows} <= {"yes", "no", "within chance", ""}
    draw_promises(found, tmp_path / "promises.png")
    assert (tmp_path / "promises.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["pyramid-x0", "flow-euler", "presence", "classifier-free"])
def test_one_pass_depends_on_the_image_alone(name):
    model = build(name)
    together = one_pass_entropy(model, batch(3), 0)
    alone = [
        one_pass_entropy(model, Batch([i], x[None]), 0)[0] for i, x in zip(batch(3).ids, batch(3).image, strict=True)
    ]
    assert together == pytest.approx(alone, rel=1e-3) and min(together) > 0


def test_a_network_without_a_sampler_has_no_single_pass():
    assert one_pass_entropy(build("twin"), batch(2), 0) == [None, None]


@pytest.fixture(scope="module")
def on_validation(drawing_model, store, tmp_path_factory):
    """A model folder that is calibrated on all cases but the test part."""
    folder = tmp_path_factory.mktemp("on_validation") / "model"
    trained = load_model(drawing_model)
    save_model(trained, folder)
    found = api.calibrate(trained, store, split="all", samples=3, alphas=(0.2,), progress=False)
    kept = tuple(case for case in store.ids if case not in store.part(None, "test"))
    save_calibration(trained, folder, replace(found, origin=replace(found.origin, cases=kept)))
    return folder


def test_evaluate_scores_and_promises_from_the_same_masks(on_validation, drawing_model, store):
    found = api.evaluate(on_validation, store, samples=3, ged_samples=4, progress=False)
    plain = api.evaluate(drawing_model, store, samples=3, ged_samples=4, progress=False)
    assert found.metrics == plain.metrics and "not calibrated" in plain.promises["why_not"]
    promises = json.loads(json.dumps(found.to_dict(), allow_nan=False))["promises"]
    assert promises["home"] and promises["cases"] == len(found.cases) and promises["calibrated"]
    risk = np.mean([1 - case["dice"] for case in found.cases])
    assert promises["ranking"]["aurc_of_random_order"] == pytest.approx(risk)
    ece = found.metrics["ece"]
    assert promises["reliability"]["everywhere"]["before"]["ece"] == pytest.approx(ece["mean"], abs=0.01)
    assert promises["reliability"]["near_lesion"]["before"]["ece"] == pytest.approx(ece["near_lesion"], abs=0.01)


def test_a_codec_promises_nothing_and_says_nothing(trained_run, store):
    found = api.evaluate(trained_run / "mask-codec", store, limit=2, progress=False)
    assert found.promises is None and "promises" not in found.to_dict()


def reason(model, store, **asked):
    return api.evaluate(model, store, ged_samples=1, limit=1, progress=False, **asked).promises["why_not"]


def test_other_masks_than_the_calibration_s_promise_nothing(on_validation, store):
    assert reason(on_validation, store, samples=2).endswith("unlike the calibration's: samples 2 instead of 3.")
    said = reason(on_validation, store, samples=3, sampling=SamplingConfig(steps=2))
    assert "sampler DDIM 2 0.0 instead of DDIM 3 0.0" in said


def test_a_share_that_the_calibration_had_and_the_model_has_not_promises_nothing(on_validation, store):
    trained = load_model(on_validation)
    origin = trained.calibration.origin
    origin = replace(origin, sampling=origin.sampling | {"head_share": 0.4})
    trained.calibration = replace(trained.calibration, origin=origin)
    drawn_as = sampling_record(trained.segmenter, 3, None)
    assert unpromised(trained, store, [], "test", drawn_as).endswith("head_share None instead of 0.4.")


def test_the_calibration_s_own_cases_test_nothing(on_validation, store):
    assert reason(on_validation, store, samples=3, split="val") == (
        "Nothing is tested: the calibration was fitted on 1 of these 1 cases."
    )
    assert "trained on" in reason(on_validation, store, samples=3, split="train")


def test_equal_names_are_other_images_in_another_folder_of_ones_own(on_validation, store, monkeypatch):
    trained = load_model(on_validation)
    origin = replace(trained.calibration.origin, data="folder", data_hash="sha256:other")
    trained.calibration = replace(trained.calibration, origin=origin)
    drawn_as = sampling_record(trained.segmenter, 3, None)
    assert unpromised(trained, store, store.ids, "test", drawn_as) == ""  # of another data set
    monkeypatch.setattr(store, "name", "folder")
    assert unpromised(trained, store, store.ids, "test", drawn_as) == ""


def test_command_line_prints_the_second_table_and_draws_it(on_validation, store, monkeypatch, tmp_path, capsys):
    flags = ("--model", on_validation, "--data", store.folder, "--ged-samples", 1)
    assert run(monkeypatch, "evaluate", *flags, "--samples", 3, "--out", tmp_path) == 0
    said = capsys.readouterr().out
    assert "promised" in said and "happened" in said and "promises.png" in said
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "figure.png", "promises.png"}
    assert run(monkeypatch, "evaluate", *flags, "--samples", 2, "--out", tmp_path) == 0
    assert not (tmp_path / "promises.png").exists(), "it belongs to the results that were replaced"
    capsys.readouterr()
    assert run(monkeypatch, "evaluate", *flags, "--samples", 2) == 0
    said = capsys.readouterr().out
    assert "happened" not in said and "unlike the calibration's" in said


def test_masks_beyond_the_calibration_s_number_do_not_count(on_validation, store):
    few = api.evaluate(on_validation, store, samples=3, ged_samples=1, progress=False)
    many = api.evaluate(on_validation, store, samples=3, ged_samples=6, progress=False)
    assert few.promises["outlines"] == many.promises["outlines"]
    assert few.promises["ranking"]["aurc"] == pytest.approx(many.promises["ranking"]["aurc"])
