"""The matrix: what it holds, and that a run of it can be interrupted, fails in part, and ends in a whole report."""

import json
import shutil
from dataclasses import replace

import pytest

from manymask import runtime
from manymask.config import from_dict, to_dict
from manymask.data.case import evenly_spaced
from manymask.diffusion.process import RectifiedFlow
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.experiments import matrix as experiments
from manymask.experiments import runner
from manymask.experiments.cell import RunSpec, begin
from manymask.experiments.matrix import Budget, matrix, minutes, resized, selected
from manymask.experiments.report.collect import find
from manymask.experiments.runner import ReproduceConfig, codec_names, plan_pieces, reproduce, run_task
from manymask.io.atomic import read_json
from manymask.models.deterministic import OneToOne, ResUNet
from manymask.recipes import RECIPES, stages_of
from tests.factories import run, shortened

RULES = Budget(
    cases=3, samples=2, steps=2, most_samples=3, sweep_steps=(1, 2), sweep_cases=2, long_cases=1, guidance=(0, 2)
)


def shrink(patch, recipe):
    """The matrix with three cells that train in a second: ours, a network, and half as wide latents."""
    main = shortened(recipe, 2)
    patch.setitem(RECIPES, "phantom", main)
    patch.setitem(RECIPES, "phantom-unet", replace(main, segmenter=OneToOne(target="consensus")))
    patch.setattr(experiments, "MODELS", tuple(m for m in experiments.MODELS if m[0] in ("ours", "unet")))
    patch.setattr(experiments, "ABLATIONS", tuple(a for a in experiments.ABLATIONS if a[1] in ("factor-4", "factor-8")))


@pytest.fixture
def small(monkeypatch, recipe):
    shrink(monkeypatch, recipe)


def plan(store, out, **changes):
    return ReproduceConfig(("phantom",), out, store.folder, budget=RULES, precision="fp32", **changes)


def test_what_is_refused_leaves_nothing_that_stands_in_the_way(store, tmp_path, small):
    with pytest.raises(ConfigError, match="no such table or row"):
        reproduce(plan(store, tmp_path / "out", only=("nosuch",)))
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_size_is_not_taken_for_the_requested_one(store, tmp_path, small):
    shutil.copytree(store.folder, tmp_path / "out/phantom/data")
    asked = replace(plan(store, tmp_path / "out", only=("unet",)), data=None, size=32)
    with pytest.raises(ConfigError, match=r"was prepared at 64²: prepare it at 32²"):
        reproduce(asked)


@pytest.fixture(scope="module")
def interrupted(recipe, store, tmp_path_factory):
    """A matrix that was run in three goes, cut off twice; what stood there after the first two; and its report."""
    out = tmp_path_factory.mktemp("matrix") / "out"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, recipe)
        reproduce(plan(store, out, only=("unet",)))
        reproduce(plan(store, out, only=("ours",), codecs_only=True))
        # killed after the training of a codec, before what it took was noted
        for name in ("training.json", "result.json"):
            (out / "phantom/codecs/ours-mask" / name).unlink()
        stood = [
            "cells/unet/result.json",
            "codecs/ours-image/result.json",
            "codecs/ours-mask/mask-codec/model/config.json",
        ]
        before = {name: (out / "phantom" / name).stat().st_mtime_ns for name in stood}
        reproduce(plan(store, out))
    return out, before


def test_rows_with_equal_recipes_share_a_cell():
    rows = {row.name: row for row in matrix("phantom", 4)}
    assert {
        rows[n].run_id for n in ("ours", "factor-4", "loss-wce", "bottleneck-vq", "prediction-x0", "target-reader")
    } == {"ours"}
    assert rows["factor-8"].run_id == "factor-8" and rows["factor-8"].recipe.mask_codec.factor == 8
    assert isinstance(rows["prediction-flow"].recipe.segmenter.process, RectifiedFlow)
    assert "target-reader" not in {row.name for row in matrix("cvc_clinicdb", 1)}


@pytest.mark.parametrize("name", ["phantom", "lidc_idri_slices"])
def test_every_recipe_of_the_matrix_can_be_built_and_written(name):
    rows = matrix(name, 4, 64)
    assert {
        "ours",
        "paper",
        "unet",
        "unetpp",
        "resunet",
        "nnunet",
        "ensemblediff",
        "segdiff",
        "medsegdiff",
        "ensemblediff-x0",
        "segdiff-x0",
        "medsegdiff-x0",
        "prob-unet",
    } <= {row.name for row in rows}
    for row in rows:
        assert row.recipe.size == 64 and stages_of(row.recipe)[-1] == "segmenter"
        assert from_dict(type(row.recipe), to_dict(row.recipe)) == row.recipe


def test_matrix_compares_models_of_one_data_set():
    """The paper's LIDC-IDRI is whole slices, ours crops: its recipe stands in no table of crops."""
    assert {row.recipe.dataset for row in matrix("lidc_idri", 4)} == {"lidc_idri"}


def test_a_models_time_is_the_budget_whatever_it_trains():
    for row in matrix("phantom", 4):
        assert sum(minutes(row.recipe, stage, 10.0) for stage in stages_of(row.recipe)) == pytest.approx(10)
    assert minutes(RECIPES["phantom"], "segmenter", 10.0) == pytest.approx(7)
    assert minutes(RECIPES["phantom-unet"], "segmenter", 10.0) == 10


def test_codecs_are_shared_where_their_settings_are_equal(store):
    rows = matrix("phantom", 4)
    named = {row.name: codec_names(rows, row.recipe) for row in rows}
    assert (
        named["prediction-v"] == named["ours"] == {"image-codec": "codecs/ours-image", "mask-codec": "codecs/ours-mask"}
    )
    assert named["loss-mse"] == {"image-codec": "codecs/ours-image", "mask-codec": "codecs/loss-mse-mask"}
    assert named["unet"] == named["segdiff"] == {}
    pieces = plan_pieces(rows, rows, store, None, RULES, "fp32")
    assert len(pieces) == len({row.run_id for row in rows}) + len(
        {p for names in named.values() for p in names.values()}
    )
    order = list(pieces)
    for place, task in pieces.items():
        assert all(order.index(codec.removeprefix("../../")) < order.index(place) for codec in task.codecs)


def test_only_chooses_tables_and_rows_and_refuses_strangers():
    rows = matrix("phantom", 4)
    assert [row.name for row in selected(rows, ("factor",))] == ["factor-4", "factor-8", "factor-16"]
    assert {row.run_id for row in selected(rows, ("loss-mse", "unet"))} == {"loss-mse", "unet"}
    with pytest.raises(ManymaskError, match="no such table or row"):
        selected(rows, ("nonsense",))


def test_a_resized_recipe_keeps_its_factor():
    assert resized(RECIPES["cvc_clinicdb"], 64).mask_codec.factor == RECIPES["cvc_clinicdb"].mask_codec.factor
    assert resized(RECIPES["cvc_clinicdb-medsegdiff"], 64).segmenter.denoiser.size == 64


def test_cases_are_spread_evenly():
    assert evenly_spaced(list("abcdef"), 3) == ["a", "c", "e"] and evenly_spaced(list("ab"), 5) == ["a", "b"]


def test_interrupted_matrix_goes_on_where_it_stopped(interrupted):
    out, before = interrupted
    assert before == {name: (out / "phantom" / name).stat().st_mtime_ns for name in before}
    assert read_json(out / "phantom/codecs/ours-mask/training.json")["images"] == 8
    assert len(list(out.rglob("result.json"))) == 3 + 4 and not list(out.rglob("failed.json"))


def test_the_report_of_a_whole_matrix_is_filled(interrupted):
    text = (interrupted[0] / "report/report.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
    filled = ("f = 4 (ours)", "f = 8", "U-Net, one pass", "U-Net, 2 passes", "manymask (fast), 2 samples")
    assert not [name for name in filled if "not run" in rows[name] or "failed" in rows[name]]
    assert (interrupted[0] / "report/figure-1-forward-phantom.png").exists()


def test_a_finished_matrix_is_skipped_and_other_rules_are_refused(interrupted, small, store):
    out, _ = interrupted
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    reproduce(plan(store, out))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    with pytest.raises(ManymaskError, match="other settings"):
        reproduce(replace(plan(store, out), budget=replace(RULES, samples=3)))


def test_a_failing_cell_is_recorded_and_the_others_go_on(monkeypatch, small, recipe, store, tmp_path, capsys):
    models = (experiments.MODELS[0], ("unet", "U-Net", "-unet"), ("resunet", "ResUNet", "-resunet"))
    monkeypatch.setattr(experiments, "MODELS", models)
    too_deep = OneToOne(ResUNet((8,) * 9), target="consensus")  # nothing is left of 64² after eight halvings
    monkeypatch.setitem(RECIPES, "phantom-unet", replace(RECIPES["phantom"], segmenter=too_deep))
    fine = OneToOne(ResUNet((8, 8)), target="consensus")
    monkeypatch.setitem(RECIPES, "phantom-resunet", replace(RECIPES["phantom"], segmenter=fine))
    with pytest.raises(InputError, match=r"1 of 2 run\(s\) failed: unet; the same command tries them again"):
        reproduce(plan(store, tmp_path / "out", only=("unet", "resunet")))
    out = tmp_path / "out/report"
    failed = read_json(tmp_path / "out/phantom/cells/unet/failed.json")
    assert failed["phase"] == "train" and "ended with status 1: ValueError" in failed["error"]
    assert (tmp_path / "out/phantom/cells/resunet/result.json").exists()
    text = (out / "report.md").read_text()
    assert "## Failed" in text and "`phantom/unet`" in text
    assert "failed unet" in capsys.readouterr().out


def test_damaged_results_are_set_aside_and_made_again(recipe, store, tmp_path):
    task = RunSpec("x", "mask-codec", shortened(recipe, 2), store.hash, "random", None, RULES, "fp32")
    folder = tmp_path / "codecs/x"
    begin(task, folder)
    run_task(folder, task, store)
    whole = (folder / "result.json").read_bytes()
    for name in ("result.json", "training.json"):
        (folder / name).write_bytes(b'{"status": "done"')
    run_task(folder, task, store)
    assert find(folder).status == "done" and not (folder / "failed.json").exists()
    assert read_json(folder / "training.json")["steps"] == json.loads(whole)["training"]["steps"]
    assert {p.name for p in folder.glob("damaged-*")} == {"damaged-result.json", "damaged-training.json"}


@pytest.mark.parametrize("content", ["[]", '{"recipe": "phantom"}', "{"])
def test_a_damaged_experiment_is_named(store, tmp_path, small, content):
    (tmp_path / "out/phantom").mkdir(parents=True)
    (tmp_path / "out/phantom/experiment.json").write_text(content)
    with pytest.raises(InputError, match=r"experiment\.json"):
        reproduce(plan(store, tmp_path / "out", only=("unet",)))


def test_a_model_without_its_codec_fails_with_a_word(recipe, store, tmp_path):
    task = RunSpec("x", "segmenter", recipe, store.hash, "random", None, RULES, "fp32", ("../../codecs/none",))
    begin(task, tmp_path / "cells/x")
    run_task(tmp_path / "cells/x", task, store)
    assert read_json(tmp_path / "cells/x/failed.json")["error"] == "its codec none failed"


def test_results_hold_what_the_tables_need(interrupted):
    folder = interrupted[0] / "phantom"
    found = read_json(folder / "cells/ours/result.json")
    assert [row["n"] for row in found["curve"]] == [1, 2, 3]
    assert {(row["sampler"], row["steps"]) for row in found["steps"]} == {
        (s, n) for s in ("DDPM", "DDIM", "PLMS", "DPMSolver") for n in (1, 2)
    }
    assert found["curve"][1]["dice"]["mean"] == pytest.approx(found["metrics"]["dice"]["mean"])
    assert found["peak_memory"]["process"] > 2**26 and found["latency_s"] > 0 and found["training"]["images"] == 8
    assert found["promises"]["why_not"].startswith("3 cases are too few to calibrate"), "validation has three"
    assert "promises" not in read_json(folder / "cells/unet/result.json")
    codec = read_json(folder / "codecs/ours-mask/result.json")
    assert set(codec["threshold"]) == {"biased", "unbiased"} and codec["threshold"]["unbiased"] == codec["metrics"]
    assert set(codec["invariance"]) == {"flip", "shift", "rotation", "noise"}


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_every_cell_of_a_one_minute_matrix_is_filled(monkeypatch, tmp_path):
    few = ("--budget-minutes", 1, "--cases", 32, "--sweep-cases", 8)
    assert run(monkeypatch, "reproduce", "phantom", *few, "--out", tmp_path / "out") == 0
    text = (tmp_path / "out/report/report.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(tables) > 80 and not [line for line in tables if "not run" in line or "failed" in line]
    swept = (
        "DDPM | 1,000",
        "PLMS | 50",
        "flow: Heun | 1,000",
        "as the paper: DDPM | 1,000",
        "classifier-free | 2",
        "classifier | 4",
    )
    assert not [start for start in swept if f"\n| {start} | 0." not in text]
    assert {path.name for path in (tmp_path / "out/report").glob("*.png")} == {
        "figure-1-forward-phantom.png", "figure-2-pipeline-phantom.png", "figure-3-samples.png", "figure-4-samples-phantom.png",
        "reliability-phantom.png", "steps-phantom.png", "front-phantom.png", "guidance-phantom.png",
    }  # fmt: skip


@pytest.mark.parametrize("chosen", [[], ["cpu"]])
def test_the_processes_of_tasks_run_on_the_chosen_device(store, tmp_path, monkeypatch, chosen):
    begun = []

    class Context:
        def set_forkserver_preload(self, names):
            pass

        def Process(self, target, args):  # noqa: N802
            begun.append(args)
            return type("Child", (), {"start": int, "join": int, "is_alive": bool, "exitcode": 0})

    monkeypatch.setattr(runtime, "_chosen", chosen)
    monkeypatch.setattr(runner.multiprocessing, "get_context", lambda start: Context())
    assert runner._process("train", tmp_path, store) == 0
    assert begun == [("train", tmp_path.resolve(), store.folder.resolve(), *(chosen or [None]))]
