"""What a calibrated model promises against what happened, at home and away, and how far a few local images mend it.

python benchmarks/promises.py --model models/cvc_clinicdb --data stores/cvc --away kvasir=stores/polyps:kvasir
colondb=stores/polyps:colondb --out docs/results/promises

Home and each NAME=STORE[:SCHEME] are scored on their test part, and of a model of windows each of --offsets, home's windows
whose middle lies so many pixels down and right of the crop's: masks are drawn once per store. Of each away store, --local
images are then drawn at random, --draws times. Confidence, outlines and predicted Dice are fitted to these alone and tested
on the others. Images of one patient or video may lie on both sides, as where a site labels a random sample of its archive.
Writes OUT/MODEL.json and OUT/MODEL.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from manymask.calibration.calibration import Calibration
from manymask.calibration.confidence import fit_confidence
from manymask.calibration.quality import fit_quality
from manymask.calibration.risk import control, needed
from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.errors import ConfigError, InputError
from manymask.evaluation.calibrate import LEAST, folds_of, sampling_record
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.held_out import held_out_cases, matched_store, split_of
from manymask.evaluation.observations import Observations
from manymask.evaluation.outcomes import Outcomes
from manymask.evaluation.promises import kept_promises, unpromised
from manymask.evaluation.promises_table import percent
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.io.atomic import atomic_file, write_json
from manymask.runtime import git_revision, hardware

HOME = "home"
SIDES = {
    "outer": "lesion missed outside the outer outline, its size × consensus",
    "inner": "false within the inner outline, its size × consensus",
}


@dataclass(frozen=True)
class Options:
    """A calibrated model, the store of its data set, stores of others, and where the results go."""

    model: Path
    data: Path
    away: tuple[str, ...] = ()
    out: Path = Path("docs/results/promises")
    limit: int | None = None
    offsets: tuple[int, ...] = ()
    local: tuple[int, ...] = (20, 50)
    draws: int = 20
    seed: int = 0


def place(text: str) -> tuple[str, Path, str | None]:
    """Name, folder and scheme of NAME=STORE[:SCHEME]."""
    name, equals, store = text.partition("=")
    if not equals or not name or not store or name == HOME:
        raise ConfigError(f"away takes NAME=STORE or NAME=STORE:SCHEME, not {text!r}", parameter="away")
    if Path(store).exists() or ":" not in store:
        return name, Path(store), None
    folder, _, scheme = store.rpartition(":")
    return name, Path(folder), scheme


def observe(trained: TrainedModel, store: Store, scheme: str | None, limit: int | None) -> Outcomes:
    """The test part of a store as the calibration's masks show it; `InputError` where nothing is promised for it."""
    ids = evenly_spaced(held_out_cases(trained, store, "test", scheme), limit)
    assert trained.calibration is not None
    origin = trained.calibration.origin
    protocol = EvalConfig(origin.sampling["samples"], ged_samples=1, seed=origin.seed)
    why_not = unpromised(trained, store, ids, "test", sampling_record(trained.segmenter, protocol.samples, None))
    if why_not:
        raise InputError(f"{store.folder}: {why_not}", path=store.folder)
    seen = Outcomes()
    evaluate(trained.model, store, ids, protocol, outcomes=seen)
    return seen


def recalibrated(home: Calibration, local: Observations, seed: int) -> Calibration:
    """Confidence, outlines and predicted Dice fitted to local images; presence and foreignness stay."""
    folds = folds_of(local.groups, seed)
    missed, false = np.array(local.missed), np.array(local.false)
    return replace(
        home,
        confidence=fit_confidence(local.counts, folds),
        risks=tuple(control(missed, false, alpha) for alpha in home.alphas if needed(alpha) <= len(local.cases)),
        quality=fit_quality(np.array(local.evidence), np.array(local.dice), folds),
    )


def mended(home: Calibration, seen: Outcomes, count: int, draws: int, seed: int) -> list[dict[str, Any]]:
    """The figures of `brief` for each draw of so many local images, on the images that were not drawn."""
    found = []
    for k in range(draws):
        order = np.random.default_rng([seed, count, k]).permutation(len(seen.cases)).tolist()
        local, others = seen.rows(order[:count]), seen.rows(order[count:])
        found.append(brief(kept_promises(recalibrated(home, local, seed), others, home=False)))
    return found


def brief(found: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that are compared, by name."""
    figures: dict[str, float | None] = {}
    for entry in found["outlines"]:
        for side, what in (("outer", "missed"), ("inner", "false")):
            figures[f"{what} {entry['alpha']:g}"] = entry[side]["share"]["mean"]
            figures[f"{side} size {entry['alpha']:g}"] = entry[side]["area_to_consensus"]
    for region, diagrams in found["reliability"].items():
        figures[f"ece {region}"] = diagrams["after"]["ece"]
    auroc = found["ranking"]["auroc"].get("predicted_failure")
    return figures | {
        "dice error": found["dice"]["absolute_error"]["mean"],
        "dice covered": found["dice"]["covered"]["share"],
        "dice width": found["dice"]["width"],
        "auroc": None if auroc is None else auroc["auroc"],
    }


def over_draws(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Mean, and the middle nine tenths of the draws, of each figure that every draw has."""
    found = {}
    for name in rows[0]:
        values = [value for row in rows if (value := row.get(name)) is not None]
        if len(values) == len(rows):
            low, high = np.percentile(values, [5, 95])
            found[name] = {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
    return found


def run(options: Options) -> dict[str, Any]:
    """Draws, tests, mends, and returns what the file holds."""
    trained = load_model(options.model)
    if trained.calibration is None:
        raise InputError(f"{options.model} is not calibrated: run `manymask calibrate` first", path=options.model)
    if options.draws < 10 or min(options.local, default=LEAST) < LEAST:
        raise ConfigError(f"it takes at least 10 draws and {LEAST} local images")
    stores: dict[str, Any] = {}
    home = [(HOME if n == 0 else f"{n} px off the middle", options.data, None, n) for n in (0, *options.offsets)]
    for name, folder, scheme, offset in [*home, *((*place(text), 0) for text in options.away)]:
        store = matched_store(trained.recipe, Store(folder), (offset, offset))
        seen = observe(trained, store, scheme, options.limit)
        at_home = offset == 0 and store.holds(trained.calibration.origin.data_hash)
        stores[name] = {
            "data": {"name": store.name, "hash": store.hash, "scheme": split_of(trained, store, scheme)},
            "promises": kept_promises(trained.calibration, seen, at_home),
        }
        if not at_home:
            stores[name]["local"] = {
                str(count): over_draws(mended(trained.calibration, seen, count, options.draws, options.seed))
                for count in options.local
                if count + LEAST <= len(seen.cases)
            }
    origin = asdict(trained.calibration.origin)
    return {
        "model": options.model.name,
        "calibration": origin | {"cases": len(origin["cases"])},
        "protocol": {"limit": options.limit, "draws": options.draws, "seed": options.seed},
        "stores": stores,
        "git": git_revision(),
        "hardware": hardware(),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Both tables: what was promised and happened in each store, and how far local images mend it."""
    alphas = [entry["alpha"] for entry in found["stores"][HOME]["promises"]["outlines"]]
    origin = found["calibration"]
    lines = [
        f"# {found['model']}",
        "",
        f"Calibrated on {origin['cases']} cases of {origin['data']} ({origin['split']} of {origin['scheme']}), tested on test",
        "parts. In brackets: 95 % intervals, over patients or sequences; of shares of cases, exact binomial ones.",
        "",
        "## Promised and happened",
        "",
        *_table(["", "promised", *found["stores"]], _happened(found["stores"], alphas)),
    ]
    for name, entry in found["stores"].items():
        if entry.get("local"):
            heads = ["", "promised", "home's calibration", *(f"{count} local images" for count in entry["local"])]
            lines += ["", f"## Mended: {name}", "", *_table(heads, _mended(entry, alphas))]
    lines += [
        "",
        f"Local images are drawn at random, {found['protocol']['draws']} times; the others are tested. Given is the mean over",
        "the draws, and the middle nine tenths of them. Images of one patient or video may lie on both sides.",
        "",
    ]
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [list(heads), ["---"] * len(heads), *rows]]


def _happened(stores: Mapping[str, Any], alphas: Sequence[float]) -> list[list[str]]:
    every = [entry["promises"] for entry in stores.values()]

    def line(label: str, promise: str, cell: Callable[[Any], str]) -> list[str]:
        return [label, promise, *map(cell, every)]

    rows = [line("cases; groups", "", lambda each: f"{each['cases']}; {each['groups']}")]
    for k, alpha in enumerate(alphas):
        for side, what in SIDES.items():
            rows.append(line(what, f"≤ {100 * alpha:g} %", partial(_outline_cell, k=k, side=side)))
    rows += [
        line("Dice in its predicted interval", "≥ 90 %", lambda each: _share(each["dice"]["covered"])),
        line("error of the predicted Dice", "", lambda each: _number(each["dice"]["absolute_error"], "mean")),
    ]
    for region in every[0]["reliability"]:
        rows.append(line(f"ECE {region.replace('_', ' ')}, raw → calibrated", "", partial(_ece_cell, region=region)))
    rows.append(line("AURC; excess", "", lambda each: "{aurc:.3f}; {excess_aurc:.3f}".format_map(each["ranking"])))
    for score in ("predicted_failure", "disagreement", "one_pass_entropy"):
        label = f"AUROC of Dice < 0.7 by {score.replace('_', ' ')}"
        rows.append(line(label, "", lambda each, score=score: _number(each["ranking"]["auroc"].get(score), "auroc")))
    flagged = line(
        "called unlike the training images", "≤ 5 % at home", lambda each: _share(each["foreign"].get("flagged"))
    )
    return [
        *rows,
        line("failures in the most doubtful tenth", "", lambda each: _tenth(each["ranking"]["tenth"])),
        flagged,
    ]


def _outline_cell(each: Mapping[str, Any], k: int, side: str) -> str:
    found = each["outlines"][k][side]
    return f"{_share(found['share'], 'mean')}, {found['area_to_consensus']:.2f}"


def _ece_cell(each: Mapping[str, Any], region: str) -> str:
    found = each["reliability"][region]
    return f"{found['before']['ece']:.3f} → {found['after']['ece']:.3f}"


def _tenth(found: Mapping[str, Any]) -> str:
    return f"{found['found']} of {found['of']}: {_share(found)}" if found["of"] else "no failures"


def _mended(entry: Mapping[str, Any], alphas: Sequence[float]) -> list[list[str]]:
    shown: list[tuple[str, str, str, Callable[[float], str]]] = []
    for alpha in alphas:
        for what, label in zip(("missed", "false"), SIDES.values(), strict=True):
            shown.append((f"{what} {alpha:g}", label.partition(",")[0], f"≤ {100 * alpha:g} %", percent))
    for alpha in alphas:
        for side in SIDES:
            shown.append(
                (f"{side} size {alpha:g}", f"{side} outline, size × consensus, α = {alpha:g}", "", "{:.2f}".format)
            )
    shown += [
        ("dice covered", "Dice in its predicted interval", "≥ 90 %", percent),
        ("dice width", "mean width of that interval", "", "{:.2f}".format),
        ("dice error", "error of the predicted Dice", "", "{:.3f}".format),
        ("ece everywhere", "ECE everywhere", "", "{:.3f}".format),
        ("ece near_lesion", "ECE near lesion", "", "{:.3f}".format),
        ("auroc", "AUROC of Dice < 0.7 by predicted failure", "", "{:.3f}".format),
    ]
    before = brief(entry["promises"])
    return [
        [label, promise, "–" if before[name] is None else form(before[name])]
        + [_spread(each.get(name), form) for each in entry["local"].values()]
        for name, label, promise, form in shown
    ]


def _spread(found: Mapping[str, float] | None, form: Callable[[float], str]) -> str:
    return "–" if found is None else f"{form(found['mean'])} [{form(found['low'])} – {form(found['high'])}]"


def _share(found: Mapping[str, Any] | None, name: str = "share") -> str:
    return _spread(found and {**found, "mean": found[name]}, percent)


def _number(found: Mapping[str, Any] | None, name: str) -> str:
    return _spread(found and {**found, "mean": found[name]}, "{:.3f}".format)


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    result = run(chosen)
    write_json(chosen.out / f"{result['model']}.json", result)
    with atomic_file(chosen.out / f"{result['model']}.md") as beside:
        beside.write_text(markdown(result), encoding="utf-8")
