"""The scripts behind the figures: what they compare, by value."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manymask.calibration.confidence import PixelCounts
from manymask.calibration.risk import RiskControl
from manymask.diffusion.samplers import DDIM
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.evaluation.promises import kept_promises
from manymask.experiments.matrix import sampling_of
from manymask.hub.model_folder import load_model
from manymask.hub.provenance import Provenance
from manymask.nn.losses import WeightedCE
from manymask.recipes import CODECS, RECIPES, Stage, name_of
from manymask.training.checkpoint import progress_of
from tests.calibration.test_calibration import made
from tests.evaluation.test_promises import exchangeable
from tests.factories import perturb

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import best_cut
import changes
import folds
import fresh_sets
import gpu
import learning
import nearest
import off_centre
import paired
import peers
import presence
import promises
import rivals
import twin
import volumes
import whole_slices


def test_windows_with_a_lesion_hold_half_of_it_and_those_without_none():
    marked = np.zeros((64, 64), dtype=bool)
    marked[20:30, 12:30] = True
    found = list(presence.windows(marked, np.random.default_rng(0)))
    assert [kind for kind, _ in found[:2]] == ["images", "largest"]
    assert [kind for kind, _ in found].count("empty") == 3 and [kind for kind, _ in found].count("held") == 2
    for kind, where in found:
        inside = marked[where].sum()
        assert inside >= 90 if kind in ("images", "held") else inside == 0
        assert 0.3 * 64 - 1 <= where[0].stop - where[0].start == where[1].stop - where[1].start


@pytest.mark.parametrize("diagonal", off_centre.DIAGONALS)
@pytest.mark.parametrize("offset", off_centre.OFFSETS)
def test_middle_of_the_window_lies_so_far_off_the_middle_of_the_crop(offset, diagonal):
    rows, columns = off_centre.window(128, offset, diagonal)
    assert rows.stop - rows.start == columns.stop - columns.start == 96
    assert (rows.start + 48 - 64, columns.start + 48 - 64) == (diagonal[0] * offset, diagonal[1] * offset)


def test_masks_that_a_window_cuts_are_left_out():
    truth = np.zeros((128, 128), dtype=bool)
    truth[64, 64] = True
    assert off_centre.inside(truth, (1, 1))
    truth[64, 98] = True  # within the middle window, whose last column is 111; cut where that ends 16 px to the left
    assert off_centre.inside(truth, (1, 1)) and not off_centre.inside(truth, (1, -1))


def test_shares_of_groups_and_neighbours_in_training():
    groups = {"1": "a", "2": "a", "3": "b", "4": "b", "5": "c"}
    assert nearest.group_seen(groups, ["1", "3"], ["2", "4", "5"]) == pytest.approx(2 / 3)
    # 2 follows 1 of its video; 3's only trained neighbour, 2, is of another; 5 has none
    assert nearest.neighbour_seen(groups, ["1"], ["2", "3", "5"]) == pytest.approx(1 / 3)
    assert nearest.neighbour_seen(groups, ["2"], ["3"]) == 0


def test_away_names_a_store_and_perhaps_its_scheme(tmp_path):
    assert promises.place(f"kvasir={tmp_path}") == ("kvasir", tmp_path, None)
    assert promises.place(f"kvasir={tmp_path}:colondb_320") == ("kvasir", tmp_path, "colondb_320")
    for wrong in ("kvasir", "=stores", "home=stores"):
        with pytest.raises(ManymaskError, match="NAME=STORE"):
            promises.place(wrong)


def test_local_images_are_fitted_to_and_the_others_tested():
    """Home's outlines promise too much; those fitted to local images keep α on average."""
    home = replace(made(), risks=(RiskControl(0.2, 0.5, 0.5),))
    seen = exchangeable(np.random.default_rng(0), 120)
    tested = [promises.mended(home, seen, count, 10, 0) for count in (20, 50)]
    for rows in tested:
        found = promises.over_draws(rows)
        assert found["missed 0.2"]["low"] <= found["missed 0.2"]["mean"] <= found["missed 0.2"]["high"]
        assert found["missed 0.2"]["mean"] <= 0.2 and 0.85 <= found["dice covered"]["mean"] <= 1
    assert promises.mended(home, seen, 20, 10, 0) == tested[0]
    assert promises.mended(home, seen, 20, 10, 1) != tested[0]


def test_a_share_for_which_local_images_are_too_few_is_left_out():
    home = replace(made(), risks=(RiskControl(0.02, 0.1, 0.9), RiskControl(0.2, 0.5, 0.5)))
    rows = promises.mended(home, exchangeable(np.random.default_rng(0), 60), 20, 10, 0)
    assert "missed 0.2" in rows[0] and "missed 0.02" not in rows[0]


def test_tables_name_every_store_and_number_of_local_images():
    home = replace(made(), risks=(RiskControl(0.02, 0.1, 0.9), RiskControl(0.2, 0.5, 0.5)))
    seen = exchangeable(np.random.default_rng(0), 60)
    kept = kept_promises(home, replace(seen, embeddings=[np.zeros(8)] * 60), False)
    local = {"20": promises.over_draws(promises.mended(home, seen, 20, 10, 0))}
    origin = {"cases": 40, "data": "a", "split": "val", "scheme": "b"}
    stores = {"home": {"promises": kept}, "elsewhere": {"promises": kept, "local": local}}
    text = promises.markdown({"model": "m", "calibration": origin, "protocol": {"draws": 10}, "stores": stores})
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables[0] == "|  | promised | home | elsewhere |" and "## Mended: elsewhere" in text
    assert "|  | promised | home's calibration | 20 local images |" in tables
    assert next(line for line in tables if "≤ 2 %" in line and line.endswith("– |"))  # too few for 0.02


def test_folds_are_pooled_by_case_with_intervals_over_groups():
    data = {"hash": "h", "scheme": "video/fold-1-of-2"}
    row = dict.fromkeys(folds.SCORES, 0.5)
    one = {"data": data, "protocol": {}, "cases": [row | {"id": "a", "dice": 0.9}, row | {"id": "b", "dice": 0.6}]}
    two = {"data": data | {"scheme": "video/fold-2-of-2"}, "cases": [row | {"id": "c", "dice": 0.0}]}
    found = folds.together([one, two], {"a": "p", "b": "p", "c": "q"})
    assert found["metrics"]["dice"]["mean"] == pytest.approx(0.5) and found["missed"] == 1
    assert found["groups"] == {"p": {"cases": 2, "dice": pytest.approx(0.75)}, "q": {"cases": 1, "dice": 0.0}}
    assert found["data"]["scheme"] == "video"
    with pytest.raises(InputError, match="in two folds"):
        folds.together([one, two], {"a": "p", "b": "p", "c": "p"})
    with pytest.raises(InputError, match="different data"):
        folds.together([one, two | {"data": data | {"hash": "other"}}], {"a": "p", "b": "p", "c": "q"})


def test_another_model_on_the_same_folds_is_paired_by_case():
    groups = {"a": "p", "b": "q"}
    ours = [{"cases": [{"id": "a", "dice": 0.9, "brier": 0.1}]}, {"cases": [{"id": "b", "dice": 0.5, "brier": 0.2}]}]
    theirs = [{"cases": [{"id": "b", "dice": 0.4, "brier": 0.2}, {"id": "a", "dice": 0.7, "brier": 0.3}]}]
    found = folds.differences(ours, theirs, groups)
    assert (found["dice"]["mean"], found["dice"]["low"], found["dice"]["high"]) == pytest.approx((0.15, 0.1, 0.2))
    assert found["brier"]["mean"] == pytest.approx(-0.1)
    with pytest.raises(InputError, match="different cases"):
        folds.differences(ours, [{"cases": theirs[0]["cases"][:1]}], groups)


def test_rivals_are_scored_on_the_same_cases_and_paired():
    cases = [
        {"id": k, "dice": d, "brier": 0.1, "ged": g, "hm_iou": 0.5, "level_sets": {"ged": g + 0.1, "hm_iou": 0.4}}
        for k, d, g in (("a", 0.9, 0.2), ("b", 0.5, 0.4))
    ]
    ours = {case["id"]: rivals.rows_of(case) for case in cases}
    theirs = {k: row | {"ged": row["ged"] + 0.05} for k, row in reversed(ours.items())}
    found = rivals.compared(ours, theirs, {"a": "p", "b": "q"})
    assert found["ged"]["mean"] == pytest.approx(0.35)
    assert found["ged"]["difference"]["mean"] == found["ged"]["difference"]["high"] == pytest.approx(-0.05)
    assert found["ged, cut at levels"]["mean"] == pytest.approx(0.4) and found["dice"]["difference"]["mean"] == 0
    with pytest.raises(InputError, match="different cases"):
        rivals.compared(ours, {"a": theirs["a"]}, {"a": "p", "b": "q"})
    one_rater = rivals.rows_of({"id": "a", "dice": 0.5, "brier": 0.1})
    assert one_rater == {"dice": 0.5, "brier": 0.1}


def test_changes_share_codecs_and_are_held_against_the_main_recipe_seed_by_seed(
    trained_run, recipe, store, tmp_path, monkeypatch
):
    monkeypatch.setattr("manymask.experiments.matrix.RECIPES", {"tiny": recipe})
    monkeypatch.setattr("manymask.experiments.matrix.get_recipe", {"tiny": recipe}.get)
    options = changes.Options(
        store.folder, "tiny", tmp_path / "found.json", ("training-dice", "training-ours"), runs=tmp_path / "runs",
        codecs=trained_run, steps=2, seeds=2, samples=2, sampler_steps=1,
    )  # fmt: skip
    changes.main(options)
    found = json.loads(options.out.read_text())
    assert list(found["rows"]) == ["ours", "training-dice"], "what equals the main recipe is the main recipe"
    ours, dice = found["rows"].values()
    gaps = [b["brier"] - a["brier"] for a, b in zip(ours["seeds"], dice["seeds"], strict=True)]
    assert [each["brier"] for each in dice["minus_main_by_seed"]] == pytest.approx(gaps)
    assert dice["minus_main"]["brier"]["mean"] == pytest.approx(sum(gaps) / 2) and "minus_main" not in ours
    assert found["protocol"]["split"] == "val" and found["protocol"]["cases"] == len(store.part("random", "val"))
    weights = {(tmp_path / "runs" / f"{n}/mask-codec/model/codec.safetensors").read_bytes()
               for n in ("ours-0", "ours-1", "training-dice-0", "training-dice-1")}  # fmt: skip
    assert len(weights) == 1
    with pytest.raises(ConfigError, match="loss-mse has other codecs"):
        changes.main(replace(options, only=("loss-mse",)))


def test_codecs_are_charged_to_a_model_before_its_first_validation(trained_run):
    found = learning.learnt(trained_run)
    codecs = sum(progress_of(trained_run / stage).seconds for stage in CODECS) / 60
    segmenter = progress_of(trained_run / Stage.SEGMENTER).seconds / 60
    charged = [codecs + segmenter * step / max(found["steps"]) for step in found["steps"]]
    assert found["minutes"] == pytest.approx(charged, rel=1e-9) and found["minutes"][0] > codecs > 0
    assert found["minutes"] == sorted(found["minutes"]) and len(found["minutes"]) == len(found["steps"])
    assert len(found["dice"]) == len(found["steps"]) and all(0 <= dice <= 1 for dice in found["dice"])
    model = load_model(trained_run)
    parts = replace(model.provenance, minutes=10, image_codec=Provenance(minutes=2), mask_codec=Provenance(minutes=3))
    assert rivals.described(replace(model, provenance=parts))["minutes"] == 15
    earlier = Provenance(minutes=40, steps=9)
    both = replace(parts, image_codec=Provenance(parent=earlier), mask_codec=Provenance(minutes=3, parent=earlier))
    assert rivals.described(replace(model, provenance=both))["minutes"] == 53  # of which one model gave both codecs


def test_curves_of_different_data_are_not_drawn_together(trained_run, tmp_path, monkeypatch):
    seen = iter("ab")
    monkeypatch.setattr(learning, "learnt", lambda run: {"data": next(seen), "scheme": ""})
    with pytest.raises(ConfigError, match="different data"):
        learning.main(learning.Options(("a=one", "b=two"), tmp_path / "learning"))
    with pytest.raises(ConfigError, match="one label"):
        learning.main(learning.Options(("a=one", "a=two"), tmp_path / "learning"))
    assert not list(tmp_path.iterdir())


def test_no_rivals_row_takes_the_place_of_another(trained_run, store, tmp_path):
    options = rivals.Options(trained_run, (trained_run, trained_run), store.folder, tmp_path / "rivals.json")
    with pytest.raises(ConfigError, match="of one recipe"):
        rivals.main(options)
    assert not list(tmp_path.iterdir())


def test_rivals_of_one_table_draw_alike(trained_run, tmp_path):
    """By DDIM of so many steps on the image as it is, or each as its recipe says."""
    model = load_model(trained_run)
    options = rivals.Options(trained_run, (), tmp_path, tmp_path)
    assert rivals.entrant(model, options).sampling == SamplingConfig()
    assert rivals.entrant(model, replace(options, steps=7)).sampling == SamplingConfig(DDIM(7), orientations=1)


def test_a_mask_head_is_a_rival_of_its_own_model(trained_run, store, tmp_path):
    """It answers once: the map of each view is what the model's head says of it, whatever is drawn."""
    plain = load_model(trained_run)
    assert rivals.own_head(plain) == []
    recipe = replace(plain.recipe, segmenter=replace(plain.recipe.segmenter, auxiliary=WeightedCE(1)))
    model = perturb(recipe.build("segmenter"))
    (head,) = rivals.own_head(replace(plain, recipe=recipe, model=model))
    assert rivals.passes(head, 5, 1) == [1, 5] and rivals.passes(head, 5, 4) == [5]
    batch = store.batch(store.ids[:2])
    drawn = model.sample_all(batch, 1, 0, head.sampling)
    with torch.no_grad():
        logits = model._encode(batch.image, None)[1]
    assert torch.allclose(drawn[:, 0], logits.sigmoid()[:, 0], atol=1e-6)


def test_what_was_made_to_draw_in_one_step_is_scored_in_one():
    one, many = (sampling_of(RECIPES[f"cvc_clinicdb-{name}"], 20) for name in ("sdseg", "ldseg"))
    assert (one, many) == (SamplingConfig(DDIM(1), orientations=1), SamplingConfig(DDIM(20), orientations=1))


@pytest.mark.parametrize("name", ["cvc_clinicdb-sdseg", "cvc_clinicdb-ldseg"])
def test_row_is_named_after_its_recipe_however_it_draws(name):
    row = RECIPES[name]
    assert name_of(replace(row, segmenter=replace(row.segmenter, sampler=DDIM(3)))) == name


def test_crops_lie_in_slices_four_times_as_small():
    """Median nodules have 55 px at native scale, and 4 in a slice of 128²."""

    class Crops:
        images, index = np.full((1, 1, 128, 128), 200, np.uint8), {"a": 0}

        def native_masks(self, case):
            masks = np.zeros((4, 128, 128), dtype=bool)
            masks[1, 60:76, 60:76] = True
            return masks

    image, masks = whole_slices.placed(Crops(), "a")
    assert image.shape == (128, 128, 1) and masks.shape == (4, 128, 128) and masks.dtype == bool
    assert masks.any(axis=(1, 2)).tolist() == [False, True, False, False] and 9 <= masks.sum() <= 25
    assert 31**2 <= (image == 200).sum() <= 32**2 and (image > 0).sum() <= 33**2
    assert (whole_slices.placed(Crops(), "a")[1] == masks).all(), "the place is that of the name"


def test_codecs_are_compared_slice_by_slice_over_their_seeds():
    groups = {"a": "p", "b": "q"}
    mse, wce = [{"a": 0.0, "b": 0.4}, {"a": 0.2, "b": 0.0}], [{"a": 0.3, "b": 0.6}, {"a": 0.5, "b": 0.2}]
    row = whole_slices.row_of(mse, mse, groups)
    assert row["seeds"] == pytest.approx([0.2, 0.1]) and row["dice"]["mean"] == pytest.approx(0.15)
    assert row["lost"] == 0.5
    gap = whole_slices.row_of(wce, mse, groups)["minus_mse"]
    assert (gap["mean"], gap["low"], gap["high"]) == pytest.approx((0.25, 0.2, 0.3))


def test_fresh_sets_become_folders_of_binary_masks(tmp_path):
    slices = tmp_path / "ACDC" / "patient007"
    slices.mkdir(parents=True)
    labels = np.array([[0, 1, 2, 3]], dtype=np.uint8)
    Image.fromarray(labels).save(slices / "patient007_frame01_slice_02_gt.png")
    Image.fromarray(labels).save(slices / "patient007_frame01_slice_02.png")
    assert fresh_sets.lay_out("acdc-slices", tmp_path, tmp_path / "out") == 1
    (mask,) = (tmp_path / "out/masks").iterdir()
    assert mask.name == "patient007__frame01_slice_02.png"
    assert np.asarray(Image.open(mask)).tolist() == [[0, 0, 0, 255]]
    with pytest.raises(InputError, match="holds nothing of wbc"):
        fresh_sets.lay_out("wbc", tmp_path / "out/none", tmp_path / "other")


def test_mask_that_follows_itself_is_told_from_one_that_follows_another():
    """Two masks, left and right, on three slices: each follows itself, and the volumes differ by the larger one."""
    masks = np.zeros((3, 2, 1, 6), dtype=bool)
    masks[:, 0, :, :2] = masks[:, 1, :, 2:] = True
    assert volumes.follow(masks) == 1.0 and volumes.follow(masks, 1) == 0.0
    assert volumes.spread(masks) == pytest.approx(np.std([6, 12], ddof=1) / 9)
    masks[1] = masks[1, ::-1]
    assert volumes.follow(masks) == 0.0 and volumes.follow(masks[:, :, :, :0]) is None
    cases = [f"p/nodule-{n}/slice-{k}" for n in (0, 1) for k in range(12 if n else 2)]
    assert volumes.nodules(cases) == {"p/nodule-1/slice-": [f"p/nodule-1/slice-{k}" for k in range(12)]}


def test_ratios_of_peers_are_of_the_same_round():
    row = peers.summary([(2.0, 1.0), (9.0, 3.0), (4.0, 2.0)], [(1.0, 1.0), (3.0, 1.0), (4.0, 1.0)], 100.0)
    assert row["ratio"] == 2.0  # the median of 2, 3 and 1; that of the medians would be 4 / 3
    assert (row["seconds"], row["least"], row["most"], row["cpu_seconds"], row["runs"]) == (4.0, 2.0, 9.0, 2.0, 3)
    assert peers.summary([(2.0, 1.0)], [], 1.0)["ratio"] is None


def test_what_takes_too_long_is_one_step_and_the_page_says_so():
    row = peers.summary([(8.0, 8.0)], [(2.0, 2.0)], 512.4)
    text = "\n".join(peers.table({"pixel-space DDPM": row, peers.BASE: row}, "entrant"))
    assert "| pixel-space DDPM | 8 ×1000 | 8 | 4 | 512 | " + "█" * 12 in text
    assert f"| {peers.BASE} | 8  | 8 |" in text
    assert [len(peers.bar(seconds)) for seconds in (0.001, 0.1, 10.0)] == [1, 4, 12]


def test_comparison_says_how_a_ratio_changed():
    last, new = ({"inference": {"128²": {"a": {"ratio": ratio}, "b": {"ratio": None}}}} for ratio in (2.0, 1.0))
    assert peers.against(last, new) == ["128², a: ratio 2 → 1 (-50%)"]


def test_entrants_run_in_turn_in_processes_of_their_own():
    names = [peers.BASE, "latent diffusion, codecs"]
    found = peers.compare(128, 1, 2, names)
    assert list(found) == names and found[peers.BASE]["ratio"] == 1.0
    assert all(row["runs"] == 2 and row["peak_mb"] > 50 and row["seconds"] > 0 for row in found.values())


@pytest.mark.slow
def test_entrant_in_8_bits_draws_five_masks_beside_the_others():
    name = "ours, onnx, 8 bits"
    found = peers.compare(128, 1, 1, [name])
    assert found[name]["runs"] == 1 and 0 < found[name]["seconds"] < 60
    assert peers.ours_in_8_bits(128, "cpu")()[0].shape == (1, peers.MASKS, 128, 128)


def test_check_of_a_gpu_keeps_what_each_part_found(tmp_path, monkeypatch):
    """Rehearsed on the CPU in processes of their own: one part draws and compares, one has no time left."""
    options = gpu.Options(tmp_path, "cpu", 1.0, quick=True, only=("masks as on the CPU", "tests"))
    monkeypatch.setitem(gpu.PARTS, "tests", gpu.Part(gpu.tests, 1, "tests"))
    gpu.main(options)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [part["status"] for part in parts.values()] == ["done", "not run"]
    (row,) = parts["masks as on the CPU"]["rows"]
    assert row["max_difference"] <= row["limit"] == 2e-3 and row["consensus_dice"] == 1.0


def test_part_that_fails_or_hangs_ends_no_check(tmp_path):
    options = gpu.Options(tmp_path, "nowhere", quick=True)
    failed = gpu.ran("export", 60, options)
    assert failed["status"] == "failed" and "nowhere" in failed["end"] and failed["rows"] == []
    cut = gpu.ran("export", 0.3, options)
    assert cut["status"] == "cut off" and cut["seconds"] < 30


def test_masks_of_a_device_are_held_against_the_cpus():
    here = torch.zeros(2, 5, 8, 8)
    here[:, :, 2:4] = 0.9
    there = here.clone()
    there[1, :, 2] -= 0.7
    assert gpu.against(here, here) == {"max_difference": 0.0, "consensus_dice": 1.0}
    found = gpu.against(here, there)
    assert found["max_difference"] == pytest.approx(0.7)
    assert found["consensus_dice"] == pytest.approx(2 / 3)  # 8 of 16 pixels are left


def test_variants_set_precision_and_layout_of_a_model():
    model = torch.nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
    with gpu.variant(model, "bf16, contiguous", "cpu"):
        assert model(torch.zeros(1, 8, 4, 4)).dtype == torch.bfloat16
        assert model.weight.is_contiguous()
    with gpu.variant(model, "tf32", "cpu"):
        assert torch.backends.cudnn.allow_tf32
    with gpu.variant(model, "fp32", "cpu"):
        assert not torch.backends.cudnn.allow_tf32
        assert model(torch.zeros(1, 8, 4, 4)).dtype == torch.float32


def arm(dice: list[float], doubt: list[float], confidence: float) -> twin.Arm:
    """Cases in pairs of one group; 100 pixels in doubt each, half of them marked."""
    counts = [PixelCounts.of(np.full(100, confidence), np.arange(100) % 2) for _ in dice]
    scores = np.array(dice), 1 - np.array(dice), np.array(doubt), np.array(doubt)
    return twin.Arm([f"{k // 2}" for k in range(len(dice))], *scores, counts)


def test_doubt_of_a_rival_stands_beside_its_scores():
    ours, theirs = (
        arm([0.9, 0.6, 0.8, 0.9], [0.1, 0.9, 0.3, 0.2], 0.5),
        arm([0.7, 0.4, 0.8, 0.9], [0.9, 0.1, 0.1, 0.1], 0.9),
    )
    found = rivals.doubted(ours, theirs)
    # its one failure is doubted at 0.1, its successes at 0.9, 0.1 and 0.1
    assert found["auroc_entropy"]["mean"] == pytest.approx(1 / 3)
    assert found["auroc_entropy"]["difference"]["mean"] == pytest.approx(2 / 3)
    assert found["ece_in_doubt"]["difference"]["mean"] == pytest.approx(-0.4, abs=1e-3)
    once = replace(theirs, disagreement=np.zeros(4))
    assert "auroc_disagreement" in found and "auroc_disagreement" not in rivals.doubted(ours, once)
    good = arm([0.9] * 4, [0.1] * 4, 0.5)
    assert set(rivals.doubted(ours, good)) == {"ece_in_doubt"}, "where nothing failed there is no AUROC"


def test_twin_is_compared_on_means_over_seeds():
    ours = [arm([0.9, 0.6, 0.8, 0.9], [0.1, 0.9, 0.3, 0.2], 0.5), arm([0.7, 0.6, 0.8, 0.9], [0.1, 0.9, 0.3, 0.2], 0.6)]
    theirs = [arm([0.7, 0.4, 0.6, 0.7], [0.9, 0.1, 0.1, 0.1], 0.9)] * 2
    found = twin.compared(ours, theirs)
    assert found["dice"]["mean"] == pytest.approx((0.8 + 0.75) / 2 - 0.6)
    assert found["brier"]["mean"] == pytest.approx(-found["dice"]["mean"])
    assert found["ece_in_doubt"]["mean"] == pytest.approx((0.0 + 0.1) / 2 - 0.4, abs=1e-3)
    # one failure of four, found first, in both seeds; the twin's two failures doubted at 0.1, its successes at 0.9 and 0.1
    assert found["auroc_entropy"]["mean"] == pytest.approx(1.0 - 0.25)
    assert found["dice"]["low"] <= found["dice"]["mean"] <= found["dice"]["high"]
    nothing = twin.compared(ours, ours)
    assert all(gap["mean"] == gap["low"] == gap["high"] == 0 for gap in nothing.values())


def test_the_cut_for_masks_is_the_level_that_agrees_best_with_them():
    rows = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], dtype=bool)[:, None]
    # shares 0.6, 0.4, 0.2, 0.4: at a half one pixel is left, with a mean Dice of (1 + 2/3 + 2/3 + 0 + 0) / 5
    assert best_cut.cuts_of(rows.astype(float))["half"].tolist() == [[True, False, False, False]]
    assert best_cut.cut_for_masks(rows).tolist() == [[True, True, False, True]]
    assert not best_cut.cut_for_masks(np.zeros((5, 2, 2), dtype=bool)).any()


def test_masks_that_do_not_overlap_get_an_answer_where_one_half_has_none():
    apart = np.eye(5, dtype=bool)[:, None]
    found = best_cut.cuts_of(apart.astype(float))
    assert not found["half"].any() and found["masks"].any() and found["map"].any()


def test_the_cut_for_a_map_has_the_highest_expected_dice_of_all_level_sets():
    for seed in range(5):
        p = np.random.default_rng(seed).beta(0.3, 1.0, size=(6, 6))
        expected = {level: 2 * p[p >= level].sum() / ((p >= level).sum() + p.sum()) for level in p.ravel()}
        assert np.array_equal(best_cut.cut_for_map(p), p >= max(expected, key=expected.__getitem__))


def test_cuts_are_compared_in_pairs():
    rows = [{"half": 0.0, "masks": 0.5, "map": 0.25}, {"half": 1.0, "masks": 1.0, "map": 0.75}]
    found = best_cut.compare(rows, ["a", "b"])
    assert (found["masks"]["minus_half"]["mean"], found["map"]["minus_half"]["mean"]) == (0.25, 0.0)
    assert (found["half"]["missed"], found["masks"]["missed"]) == (1, 0)


def test_two_results_are_compared_case_by_case(tmp_path, store):
    """By value, of the cases of a scheme alone, and never of different cases."""
    ids = store.ids[:4]
    found = {name: {"model": {}, "git": "", "cases": [{"id": c, "dice": d, "n": 3} for c, d in zip(ids, dice, strict=True)]}
             for name, dice in (("new", (0.9, 0.8, 0.7, 0.6)), ("old", (0.8, 0.8, 0.8, 0.2)))}  # fmt: skip
    for name, results in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    options = paired.Options(tmp_path / "new.json", tmp_path / "old.json", store.folder, tmp_path / "out.json")
    paired.main(options)
    gap = json.loads((tmp_path / "out.json").read_text())["all"]
    assert gap.keys() == {"dice"} and gap["dice"]["mean"] == pytest.approx(0.1) and gap["dice"]["n"] == 4
    found["old"]["cases"].pop()
    (tmp_path / "old.json").write_text(json.dumps(found["old"]))
    with pytest.raises(InputError, match="different cases"):
        paired.main(options)
