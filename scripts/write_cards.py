"""Writes the cards of the shipped models, models/NAME/README.md, from what was measured: config.json, metrics.json and the
files of docs/results/NAME. It scores nothing, so it may be run at any time, and a test holds the cards against it.

python scripts/write_cards.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from manymask.hub import model_card as card
from manymask.hub.model_folder import TrainedModel, load_model

ROOT = Path(__file__).parent.parent
OBJECT = {"lidc_idri": "nodule", "cvc_clinicdb": "polyp", "polyps": "polyp", "isic2018": "lesion"}


def text(model: Path) -> str:
    """The card of a shipped model."""
    trained = load_model(model)
    written = card.write(
        trained.recipe, trained.stage, trained.provenance, len(trained.training_ids), trained.licence.tag
    )
    calibrated = "" if trained.calibration is None else card.calibrated_section(trained.calibration)
    return (
        written
        + _worth(ROOT / "docs/results" / model.name, trained)
        + card.measured_section(_json(model / "metrics.json"))
        + calibrated
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _worth(results: Path, trained: TrainedModel) -> str:
    """What to know before the table of scores: a row for each thing that was measured aside."""
    rows = [
        *_leak(results),
        *_earlier_noise(results),
        *_off_centre(results, trained),
        *_by_raters(results),
        *_by_test_set(results),
        *_nothing(results),
        *_level_sets(results),
        *_one_step(results),
    ]
    if not rows:
        return ""
    lines = [f"| {what} | {found} | `docs/results/{results.name}/{file}` |" for what, found, file in rows]
    return "\n".join(["", "## Before the scores", "", "| | | |", "|---|---|---|", *lines, ""])


def _leak(results: Path) -> Iterator[tuple[str, str, str]]:
    found = _json(results / "nearest.json")
    if found is None:
        return
    tested = found["data"]["tested_on"]
    seen = round(found["group_seen"] * tested)
    yield f"of {tested} test images: of a video that was trained on", f"**{seen}**", "nearest.json"
    if found["neighbour_seen"] is not None:
        near = round(found["neighbour_seen"] * tested)
        yield "… with a directly neighbouring frame in training", f"{near}", "nearest.json"
    copied = f"Dice {found['copied']['dice']['mean']:.3f}"
    yield "the mask of the most similar training image, copied", copied, "nearest.json"
    apart = _json(results / "sequence/folds.json")
    if apart is not None:
        dice = apart["metrics"]["dice"]
        value = f"Dice **{dice['mean']:.3f}** ({dice['low']:.3f} – {dice['high']:.3f})"
        yield f"models of folds by video: {dice['n']} frames of videos never seen", value, "sequence/folds.json"


def _earlier_noise(results: Path) -> Iterator[tuple[str, str, str]]:
    """Scores that hold the ECE of before are of noise that was seeded by the names of cases."""
    if "in_doubt" in _json(results / "results.json")["metrics"]["ece"]:
        yield (
            "these scores are of noise seeded by the names of cases, before revision 1b8c1d9",
            "`evaluate` seeds it by pixels: other masks, slightly other figures",
            "results.json",
        )


def _off_centre(results: Path, trained: TrainedModel) -> Iterator[tuple[str, str, str]]:
    found = _json(results / "off-centre.json")
    if found is None:
        return
    name = OBJECT.get(trained.recipe.dataset, "object")
    for part, where in (("all", ""), ("all_raters_marked", ", all raters marked")):
        offsets = ", ".join(found[part])
        dice = ", ".join(f"{row['dice']['mean']:.3f}" for row in found[part].values())
        count = found[part]["0"]["dice"]["n"]
        yield (
            f"Dice with the {name} {offsets} px off the middle, both ways{where} ({count} images)",
            dice,
            "off-centre.json",
        )


def _level_sets(results: Path) -> Iterator[tuple[str, str, str]]:
    """What the drawn masks are worth beside answers that draw nothing."""
    scored = _json(results / "results.json")
    if "level_sets" not in scored["baselines"]:
        return
    masks, found = scored["protocol"]["ged_samples"], {"drawn": scored["metrics"], **scored["baselines"]}
    for name, what in (
        ("drawn", f"GED², HM-IoU of {masks} drawn masks ({found['drawn']['ged']['n']} images)"),
        ("level_sets", f"… of the mean of these masks, cut at {masks} levels: one map, nothing drawn"),
        ("blanks", f"… of the drawn masks, {masks // 4} replaced by empty ones on every image"),
    ):
        if name == "blanks" and found[name]["ged"]["mean"] > found["drawn"]["ged"]["mean"]:
            continue  # the model draws as many empty masks by itself
        ged, hm_iou = (f"{found[name][metric]['mean']:.3f}" for metric in ("ged", "hm_iou"))
        yield what, f"{ged}, {hm_iou}", "results.json"


def _by_raters(results: Path) -> Iterator[tuple[str, str, str]]:
    scored = _json(results / "results.json")["cases"]
    raters = sorted({case["raters"] for case in scored if "raters" in case})
    for metric, name in (("dice", "Dice of the consensus"), ("ged", "GED²")) if raters else ():
        means = [fmean(case[metric] for case in scored if case["raters"] == count) for count in raters]
        found = ", ".join(f"{mean:.3f}" for mean in means)
        yield f"{name} where {', '.join(map(str, raters))} raters marked", found, "results.json"


def _by_test_set(results: Path) -> Iterator[tuple[str, str, str]]:
    """The same weights on each test set of a data set that has several, as `evaluate --scheme NAME` leaves them."""
    weights = _json(results / "results.json")["model"].get("weights_sha256")  # earlier records have none
    for path in sorted(results.glob("*/results.json")):
        scored, name = _json(path), path.parent.name
        if scored["data"]["scheme"] == name and weights and scored["model"].get("weights_sha256") == weights:
            dice = scored["metrics"]["dice"]
            found = f"**{dice['mean']:.3f}** ({dice['low']:.3f} – {dice['high']:.3f})"
            alike = len(scored["leak"]["cases"])
            seen = f" ({alike} of them look like training images)" if alike else ""
            yield f"Dice of the consensus on {name}, {dice['n']} images{seen}", found, f"{name}/results.json"


def _nothing(results: Path) -> Iterator[tuple[str, str, str]]:
    found = _json(results / "nothing.json")
    if found is not None:
        drawn, missed = (f"**{100 * found[name]:.1f} %**" for name in ("drawn", "missed"))
        yield f"of {found['windows']} windows without anything to find, so many get a mask", drawn, "nothing.json"
        yield f"of {found['frames']} images with something to find, so many get none", missed, "nothing.json"


def _one_step(results: Path) -> Iterator[tuple[str, str, str]]:
    found = _json(results / "curves.json")
    if found is None:
        return
    dice = {row["steps"]: row["dice"] for row in found["steps"]}
    one, ten = (f"{dice[steps]['mean']:.3f}" for steps in (1, 10))
    yield (
        f"Dice with one step of DDIM, which is deterministic, and with ten ({dice[1]['n']} images)",
        f"{one}, {ten}",
        "curves.json",
    )


if __name__ == "__main__":
    for config in sorted((ROOT / "models").glob("*/config.json")):
        (config.parent / "README.md").write_text(text(config.parent), encoding="utf-8")
