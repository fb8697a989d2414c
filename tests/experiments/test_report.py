"""The report: tables from small results whose every figure is known."""

import json
import re
import shutil
from pathlib import Path

import pytest

from manymask.calibration.risk import RiskControl
from manymask.data.case import Source, random_scheme
from manymask.data.datasets import phantom
from manymask.data.store import prepare
from manymask.errors import InputError
from manymask.evaluation.outcomes import Outcomes
from manymask.evaluation.promises import kept_promises
from manymask.experiments.figures import draw_figures
from manymask.experiments.matrix import matrix
from manymask.experiments.report.collect import collect
from manymask.experiments.report.table import Column, Table, format_count, format_share
from manymask.experiments.report.tables import table_1, table_2
from manymask.experiments.report.write import write_report
from manymask.hub.model_folder import load_model
from tests.evaluation.test_promises import half_found, promised


def interval(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.02, "n": 3}


def result(dice, steps=100):
    """A model's result.json with the least that the tables read."""
    return {
        "status": "done",
        "task": {"recipe": {"mask_codec": {"loss": {"weight": 5.0}}}},
        "training": {
            "steps": steps,
            "images": 16 * steps,
            "minutes": 1.0,
            "git": "abc",
            "peak_memory": {"process": 2**30},
        },
        "git": "def",
        "metrics": {"dice": interval(dice), "iou": interval(dice - 0.1), "ece": {"mean": 0.01, "near_lesion": 0.05}},
        "model": {"parameters": 1_500_000},
        "latency_s": 0.25,
        "latency_one_mask_s": 0.05,
        "peak_memory": {"process": 3 * 2**29},
        "curve": [{"n": 1, "dice": interval(dice - 0.05), "iou": interval(dice - 0.2)}],
        "hardware": {"processor": "x", "threads": 1, "gpu": None, "torch": "2"},
        "cases": [{}] * 3,
        "reliability": {"everywhere": {"count": [30.0], "confidence": [15.0], "frequency": [10.0]}},
    }


@pytest.fixture
def run(tmp_path):
    """An experiment on CVC-ClinicDB in which the main model and the U-Net were run, and U-Net++ failed."""
    folder = tmp_path / "run/cvc_clinicdb"
    rows = [{"table": r.table, "name": r.name, "label": r.label, "run_id": r.run_id,
             "codecs": {"image-codec": "codecs/ours-image", "mask-codec": f"codecs/{r.name}-mask"}}
            for r in matrix("cvc_clinicdb", raters=1, size=64)]  # fmt: skip
    data = {"name": "cvc_clinicdb", "hash": "sha256:0", "scheme": "pranet", "size": 64, "raters": 1, "remark": ""}
    budget = {"minutes": 10.0, "samples": 5, "steps": 20}
    facts = {"recipe": "cvc_clinicdb", "git": "abc", "precision": "fp32", "rows": rows, "budget": budget, "data": data}
    put(folder / "experiment.json", facts)
    ours = result(0.8)
    ours["oriented"] = {"orientations": 5, "metrics": result(0.85)["metrics"], "latency_s": 0.5}
    put(folder / "cells/ours/result.json", ours)
    put(folder / "cells/unet/result.json", result(0.7, 1234))
    put(folder / "cells/unetpp/failed.json", {"phase": "train", "error": "ended with status -9: killed"})
    codec = result(0.9)
    codec["metrics"] = {name: interval(0.9) for name in ("dice", "iou", "ssim")} | {"psnr": interval(30.0)}
    put(folder / "codecs/loss-mse-mask/result.json", codec)
    weighted = codec | {
        "threshold": {"biased": codec["metrics"] | {"dice": interval(0.85)}, "unbiased": codec["metrics"]}
    }
    put(folder / "codecs/loss-wce-mask/result.json", weighted)
    return tmp_path / "run"


def put(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_table_writes_what_was_run_and_names_the_rest():
    columns = [Column("model"), Column("Dice", format_share, True), Column("ECE"), Column("steps", format_count)]
    rows = [["a|b", interval(0.5), "–", 12345], ["c", "not run", 1, 1], ["d", {"n": 0, "skipped": 2}, None, None]]
    table = Table("t", "Title", columns, rows, "Note.")
    assert table.markdown().splitlines() == [
        "### Title", "",
        "| model | Dice | steps |",
        "| --- | ---: | ---: |",
        "| a\\|b | 0.500 (0.490 – 0.520) | 12,345 |",
        "| d | – | – |",
        "", "Not run: c.", "", "Note.",
    ]  # fmt: skip
    assert table.csv().splitlines() == [
        'model,Dice,"Dice, low","Dice, high",steps',
        "a|b,0.5,0.49,0.52,12345",
        "d,–,–,–,",
    ]


def test_rows_that_were_not_run_are_named_by_as_many_cells_as_tell_them_apart():
    columns = [Column("bottleneck"), Column("codec"), Column("Dice", format_share)]
    rows = [["VQ", "image", 0.5], ["VQ", "mask", "not run"], ["KL", "image", "not run"], ["KL", "mask", "not run"]]
    assert Table("t", "T", columns, rows).remarks == ["Not run: VQ, mask; KL."]
    assert Table("t", "T", columns, rows[2:]).blank and not Table("t", "T", columns, rows).blank
    assert Table("t", "T", columns, rows, least=2).blank, "one row compares nothing"


def test_table_two_has_ours_beside_the_papers_and_says_what_was_not_run(run):
    lines = {line.split(" | ")[0].strip("| "): line for line in table_2(collect([run])[0]).markdown().splitlines()}
    assert lines["U-Net, 5 passes"] == (
        "| U-Net, 5 passes | 0.700 (0.690 – 0.720) | 0.600 (0.590 – 0.620) | 0.823 | 0.725 | 0.010 | 0.050 | 1.50 | 0.25 | 1.50 "
        "| 1,234 | 19,744 |"
    )
    assert lines["U-Net, one pass"].startswith(
        "| U-Net, one pass | 0.650 (0.640 – 0.670) | 0.500 (0.490 – 0.520) | 0.823"
    )
    assert lines["U-Net++, 5 passes"].count("failed") == 9 and "0.794" in lines["U-Net++, 5 passes"]
    assert "ResUNet, one pass" not in lines
    missing = next(line for line in lines if line.startswith("Not run: "))
    assert "ResUNet, one pass; ResUNet, 5 passes; " in missing
    assert "0.800 (0.790 – 0.820)" in lines["manymask (fast), 5 samples"]
    assert "0.850 (0.840 – 0.870)" in lines["manymask (fast), 5 samples over 5 orientations"]
    assert "manymask (as the paper), 5 samples over" not in str(lines)


def test_table_one_scores_a_weighted_codec_at_both_thresholds(run):
    rows = {row[1]: row for row in table_1(collect([run])).rows}
    assert rows["mask (weighted CE, w = 5)"][2]["mean"] == 0.85 and rows["mask (weighted CE, w = 5)"][6] == 0.995
    assert rows["mask (weighted CE, w = 5, ln w taken off)"][2]["mean"] == 0.9
    assert rows["mask (MSE)"][6:10] == [0.99, 0.989, 0.976, 38.0] and rows["mask (Focal)"][2] == "not run"


def test_whole_slices_stand_beside_the_papers_lidc_idri(run):
    path = run / "cvc_clinicdb/experiment.json"
    facts = json.loads(path.read_text())
    put(path, facts | {"data": facts["data"] | {"name": "lidc_idri_slices"}})
    experiment = collect([run])[0]
    rows = {row[1]: row for row in table_1([experiment]).rows}
    assert rows["mask (MSE)"][0] == "lidc_idri_slices" and rows["mask (MSE)"][6:10] == [0.880, 0.831, 0.92, 35.2]
    assert any("0.810" in line for line in table_2(experiment).markdown().splitlines() if line.startswith("| U-Net, 5"))


def test_a_lone_damaged_experiment_is_told_once(run):
    (run / "cvc_clinicdb/experiment.json").write_text("3")
    told = []
    with pytest.raises(InputError, match="holds a int"):
        collect([run], told.append)
    assert told == []


def test_report_is_whole_and_names_what_failed(run, tmp_path):
    text = write_report([run], tmp_path / "report").read_text()
    assert "`cvc_clinicdb/unetpp`: ended with status -9: killed" in text
    assert "10 minutes of wall time" in text and "split `pranet`" in text and "trained by abc, scored by def" in text
    assert "Figures 1, 2 and 4: not run" in text
    assert "- Guidance scale on cvc_clinicdb\n" in text.partition("### Not run\n")[2]
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.md", "table-1.csv", "table-2-cvc_clinicdb.csv", "table-3-cvc_clinicdb.csv",
            "figure-3-samples.png", "reliability-cvc_clinicdb.png", "front-cvc_clinicdb.png"} <= names  # fmt: skip
    assert "steps-cvc_clinicdb.png" not in names, "what was not run is not drawn"
    assert all(f"({name})" in text for name in names if name.endswith(".png"))


def test_promises_of_the_main_model_are_drawn_where_it_was_calibrated(run, tmp_path):
    ours = run / "cvc_clinicdb/cells/ours/result.json"
    for promises, drawn in (({"calibrated": False, "why_not": "3 cases are too few"}, False), (kept(), True)):
        put(ours, json.loads(ours.read_text()) | {"promises": promises})
        text = write_report([run], tmp_path / "report").read_text()
        assert (
            ("(promises-cvc_clinicdb.png)" in text) == drawn == (tmp_path / "report/promises-cvc_clinicdb.png").exists()
        )


def kept():
    """What became of a promise on three cases."""
    seen = Outcomes()
    for case in "abc":
        half_found(seen, case)
    return kept_promises(promised(RiskControl(0.1, 0.2, 0.8)), seen, True)


def test_two_runs_of_one_recipe_keep_their_tables_apart(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    path = other / "cvc_clinicdb/experiment.json"
    facts = json.loads(path.read_text())
    facts["data"]["scheme"] = "sequence"
    put(path, facts)
    shutil.copytree(other, tmp_path / "third")
    names = [e.name for e in collect([run, other, tmp_path / "third"])]
    assert names == ["cvc_clinicdb-pranet-64", "cvc_clinicdb-sequence-64-2", "cvc_clinicdb-sequence-64-3"]
    write_report([run, other], tmp_path / "report")
    assert {p.name for p in (tmp_path / "report").glob("table-2*")} == {
        "table-2-cvc_clinicdb-pranet-64.csv", "table-2-cvc_clinicdb-sequence-64.csv"
    }  # fmt: skip


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        write_report([tmp_path], tmp_path / "report")


def test_pictures_are_drawn_of_phantoms_and_never_of_cvc(trained_run, store, tmp_path):
    model = load_model(trained_run).model
    drawn = draw_figures(model, store, store.ids[:3], tmp_path / "phantom")
    assert [path.stat().st_size > 1000 for path in drawn] == [True] * 3
    cases = phantom.read().cases[:4]
    source = Source("cvc_clinicdb", cases, {"random": random_scheme({c.id: c.id for c in cases}, 0)}, "")
    guarded = prepare(source, tmp_path / "cvc", 64, 1)
    assert draw_figures(model, guarded, guarded.ids, tmp_path / "drawn") == [] and not (tmp_path / "drawn").exists()


DAMAGE = [
    ("experiment.json", lambda e: [], "experiment.json holds a list"),
    ("experiment.json", lambda e: {**e, "rows": [*e["rows"], 3]}, r"experiment\.rows\[\d+\] is no object"),
    ("experiment.json", lambda e: {**e, "rows": []}, "has no rows"),
    ("experiment.json", lambda e: {k: v for k, v in e.items() if k != "data"}, "experiment lacks data"),
    (
        "experiment.json",
        lambda e: {**e, "budget": {**e["budget"], "samples": "5"}},
        "experiment.budget.samples is no finite number",
    ),
    ("experiment.json", lambda e: {**e, "rows": [{**e["rows"][0], "run_id": "../../x"}]}, "lies outside of its folder"),
]


@pytest.mark.parametrize(("name", "change", "message"), DAMAGE)
def test_damaged_experiment_is_told_and_the_report_of_the_others_is_made(run, tmp_path, capsys, name, change, message):
    other = run / "isic2018"
    shutil.copytree(run / "cvc_clinicdb", other)
    put(other / name, change(json.loads((other / name).read_text())))
    text = write_report([run], tmp_path / "out").read_text()
    said = capsys.readouterr().err
    assert re.search(message, said) and said.startswith(f"manymask: {other / name}") and said.count("\n") == 1
    assert "## cvc_clinicdb" in text and "0.800 (0.790 – 0.820)" in text
    with pytest.raises(InputError, match=message):
        write_report([other], tmp_path / "none")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("metrics", "dice"), 0.8, "result.metrics.dice is no object"),
        (("metrics", "dice", "mean"), "high", "result.metrics.dice.mean is no finite number"),
        (("metrics", "dice", "low"), float("nan"), "result.metrics.dice.low is no finite number"),
        (("training", "steps"), None, "result.training.steps is no finite number"),
        (("curve",), {}, "result.curve is no list"),
        (("cases",), "all", "result.cases is no list"),
    ],
)
def test_damaged_result_is_named_and_the_other_rows_are_there(run, tmp_path, keys, value, message):
    path = run / "cvc_clinicdb/cells/ours/result.json"
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    put(path, content)
    text = write_report([run], tmp_path / "out").read_text()
    assert "0.700 (0.690 – 0.720)" in text and "| damaged |" in text
    assert f"- `cvc_clinicdb/ours`: {path}: {message}" in text


def gpu_check():
    row = {"model": "a", "max_difference": 0.001, "limit": 0.002}
    parts = {
        "masks": {"kind": "compare", "status": "done", "seconds": 9.0, "rows": [row, row | {"max_difference": 0.003}], "end": ""},
        "speed": {"kind": "speed", "status": "cut off", "seconds": 90.0, "end": "x\nlast `line`",
                  "rows": [{"batch": 64, "images_per_s": 12345.6}, {"batch": 64, "consensus_dice": 0.5}]},
        "tests": {"kind": "tests", "status": "not run", "seconds": 0.0, "rows": [], "end": ""},
    }  # fmt: skip
    hardware = {"device": "cuda", "torch": "2.11", "gpu": "H100"}
    return {"revision": "abc", "created": "2026-11-26T20:00:00Z", "quick": False, "hardware": hardware, "parts": parts}


def test_a_later_report_takes_away_what_is_no_longer_in_it_and_nothing_else(run, tmp_path):
    out = tmp_path / "out"
    write_report([run], out)
    before = {path.name for path in out.iterdir()}
    (out / "table-mine.csv").write_text("mine")
    (run / "cvc_clinicdb/cells/ours/result.json").unlink()
    write_report([run], out)
    left = {path.name for path in out.iterdir()}
    assert "table-mine.csv" in left and left - {"table-mine.csv"} < before
    again = tmp_path / "again"
    write_report([run], again)
    assert left - {"table-mine.csv"} == {path.name for path in again.iterdir()}


def test_a_foreign_report_is_not_replaced(run, tmp_path):
    put(tmp_path / "out/report.md", "mine")
    with pytest.raises(InputError, match=r"report\.md exists already"):
        write_report([run], tmp_path / "out")


def test_check_of_a_gpu_is_a_section_beside_the_tables_or_alone(run, tmp_path):
    put(tmp_path / "gpu/gpu.json", gpu_check())
    alone = write_report([tmp_path / "gpu"], tmp_path / "alone").read_text(encoding="utf-8")
    assert "## GPU check: H100, torch 2.11" in alone and "within the limit for 1 of 2 models" in alone
    assert "| 64 | 12,346 | – |" in alone and "| 64 | – | 0.5 |" in alone
    assert (
        "- speed: cut off after 90 s. `last 'line'`" in alone
        and "- tests: not run after 0 s. `no time was left`" in alone
    )
    assert "## Figures" not in alone
    both = write_report([run, tmp_path / "gpu"], tmp_path / "both").read_text(encoding="utf-8")
    assert "## Figures" in both and both.endswith(alone.removeprefix("# Report\n\n"))


def test_damaged_check_of_a_gpu_is_named(tmp_path):
    put(tmp_path / "gpu/gpu.json", gpu_check() | {"parts": {"a": {"kind": "speed"}}})
    with pytest.raises(InputError, match=r"gpu\.json.* lacks status"):
        write_report([tmp_path / "gpu"], tmp_path / "out")
