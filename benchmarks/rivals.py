"""A model beside its rivals, on the same test cases in the same run, each with its paired difference from the model.

python benchmarks/rivals.py --model models/lidc_idri_readers --rivals runs/lidc-random-reader runs/lidc-prob-unet \\
    --data stores/lidc_idri --cases 731 --out docs/results/lidc_idri_readers/rivals.json

A rival is the run or model folder of any segmenter that learnt the same data set. One that answers once is scored in one view,
and in as many flips and quarter turns as masks are drawn of the model. Where there are several raters, it has all eight, and the
answers of each model are also cut at 16 levels of their mean, which is what a single map can give. A model with an auxiliary
mask head is its own rival, too: that head alone answers once, without a diffusion. Beside these scores of cases stand the
calibration of pixels in doubt and the AUROC of doubt for failures (`twin.py`). Differences are model − rival, with 95 %
bootstrap intervals over groups. Minutes and steps of training stand beside the scores, since they are rarely equal, and the
seconds that all masks of one image take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import twin
import tyro
from twin import Arm, arm_of, figures

from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.held_out import held_out_cases, matched_store, split_of
from manymask.evaluation.outcomes import Outcomes
from manymask.evaluation.profiling import median_latency
from manymask.experiments.matrix import sampling_of
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.hub.provenance import Provenance
from manymask.io.atomic import write_json
from manymask.metrics import difference, summary
from manymask.models.deterministic import NetworkSegmenter
from manymask.recipes import name_of
from manymask.runtime import git_revision, hardware

Row = dict[str, float]  # scores of a case
DOUBT = ("ece_in_doubt", "auroc_entropy", "auroc_disagreement")  # of `twin.figures`


@dataclass(frozen=True)
class Options:
    """A model, its rivals, the store that all are scored on, and where the results go."""

    model: Path
    rivals: tuple[Path, ...]
    data: Path
    out: Path
    cases: int | None = None
    samples: int = 5
    seed: int = 0
    split: Literal["val", "test"] = "test"
    scheme: str | None = None
    steps: int | None = None
    """of DDIM on the image as it is, for every diffusion model, so that nothing but the models differs; each samples as its
    recipe says if not given"""


def rows_of(case: dict[str, Any]) -> Row:
    """What is compared of a case that was scored."""
    row = {"dice": case["dice"], "brier": case["brier"]}
    if "ged" in case:
        cut = case["level_sets"]
        row |= {"ged": case["ged"], "hm_iou": case["hm_iou"]}
        row |= {"ged, cut at levels": cut["ged"], "hm_iou, cut at levels": cut["hm_iou"]}
    return row


@dataclass(frozen=True)
class Scored:
    """What so many masks of a model show: each case by id, and what is a figure of all cases together."""

    rows: dict[str, Row]
    arm: Arm


@dataclass(frozen=True)
class Entrant:
    """A model and how it draws."""

    name: str
    trained: TrainedModel
    sampling: SamplingConfig
    answers_once: bool


def entrant(trained: TrainedModel, options: Options) -> Entrant:
    """A model that draws as its recipe says, or as all others."""
    sampling = SamplingConfig() if options.steps is None else sampling_of(trained.recipe, options.steps)
    return Entrant(name_of(trained.recipe), trained, sampling, isinstance(trained.model, NetworkSegmenter))


def own_head(model: TrainedModel) -> list[Entrant]:
    """The auxiliary mask head of a model by itself, if it has one."""
    if getattr(model.model, "auxiliary", None) is None:
        return []
    return [Entrant("its own mask head", model, SamplingConfig(steps=1, head_share=1.0), answers_once=True)]


def scored(entrant: Entrant, ids: Sequence[str], samples: int, options: Options) -> Scored:
    """The cases as so many masks show them."""
    trained = entrant.trained
    store, seen = matched_store(trained.recipe, Store(options.data)), Outcomes()
    protocol = EvalConfig(samples, seed=options.seed, sampling=entrant.sampling)
    found = evaluate(trained.model, store, ids, protocol, outcomes=seen)
    return Scored({case["id"]: rows_of(case) for case in found.cases}, arm_of(found.cases, seen))


def seconds(entrant: Entrant, ids: Sequence[str], samples: int, options: Options) -> float:
    """For so many masks of one image, the median of its runs."""
    trained = entrant.trained
    store = matched_store(trained.recipe, Store(options.data))
    return median_latency(trained.segmenter, store, list(ids), samples, entrant.sampling)


def compared(ours: dict[str, Row], theirs: dict[str, Row], groups: dict[str, str]) -> dict[str, Any]:
    """Their scores, and ours − theirs of the same cases; `InputError` if they are not of the same."""
    found = {}
    for name in next(iter(ours.values())):
        a, b = ({case: row[name] for case, row in rows.items()} for rows in (ours, theirs))
        gap = dict(difference(a, b, groups))
        found[name] = {**summary(list(b.values()), [groups[case] for case in b]), "difference": gap}
    return found


def doubted(ours: Arm, theirs: Arm) -> dict[str, Any]:
    """The same of what is a figure of all cases together: how honest the map is where in doubt, and whether doubt finds
    failures. Of a model that answers once, nothing is said of its disagreement; without failures, nothing of finding them."""
    own, gaps = figures([theirs], np.arange(len(theirs.groups))), twin.compared([ours], [theirs])
    if not theirs.disagreement.any():
        gaps.pop("auroc_disagreement", None)
    return {name: {"mean": own[name], "difference": gaps[name]} for name in DOUBT if name in gaps}


def passes(rival: Entrant, samples: int, raters: int) -> list[int]:
    """How many answers of a rival form its consensus: as many as of the model; of a network that answers once, also one."""
    return [1, samples] if rival.answers_once and raters == 1 else [samples]


def described(trained: TrainedModel) -> dict[str, Any]:
    """What a row says of its model."""
    origin = trained.provenance
    codecs = [codec for codec in (origin.image_codec, origin.mask_codec) if codec is not None]
    ancestors: list[Provenance] = []
    for each in (past for whole in (origin, *codecs) for past in whole.line):
        ancestors += [] if each in ancestors else [each]  # both codecs may be of one earlier model
    minutes = sum(each.minutes for each in ancestors)
    size = sum(p.numel() for p in trained.model.parameters())
    return {"recipe": name_of(trained.recipe), "minutes": minutes, "steps": origin.steps, "parameters": size,
            "weights_sha256": trained.fingerprint}  # fmt: skip


def main(options: Options) -> None:
    """Scores all of them, prints the table and writes OUT."""
    model = load_model(options.model)
    rivals = [*own_head(model), *(entrant(load_model(folder), options) for folder in options.rivals)]
    names = [rival.name for rival in rivals]
    if len(set(names)) < len(names):
        raise ConfigError(
            "two rivals are of one recipe, and a row is named after it: score them apart", parameter="rivals"
        )
    store = matched_store(model.recipe, Store(options.data))
    ids = evenly_spaced(held_out_cases(model, store, options.split, options.scheme), options.cases)
    groups = {case: store.groups[case] for case in ids}
    own = entrant(model, options)
    ours = scored(own, ids, options.samples, options)

    def scores(theirs: Scored) -> dict[str, Any]:
        return compared(ours.rows, theirs.rows, groups) | doubted(ours.arm, theirs.arm)

    latency = seconds(own, ids, options.samples, options)
    found: dict[str, Any] = {"model": described(model) | {"latency_s": latency, "scores": scores(ours)}, "rivals": {}}
    for rival in rivals:
        learnt = rival.trained
        held_out_cases(learnt, matched_store(learnt.recipe, Store(options.data)), options.split, options.scheme)
        for samples in passes(rival, options.samples, store.raters):
            name = f"{rival.name}, {samples} " + ("answer" if samples == 1 else "answers")
            theirs = scored(rival, ids, samples, options)
            latency = seconds(rival, ids, samples, options)
            found["rivals"][name] = described(learnt) | {"latency_s": latency, "scores": scores(theirs)}
            show(name, found["rivals"][name]["scores"])
    found |= {
        "protocol": {"samples": options.samples, "ged_samples": EvalConfig.ged_samples, "seed": options.seed,
                     "steps": options.steps, "split": options.split, "cases": len(ids)},
        "data": {"name": store.name, "hash": store.hash, "scheme": split_of(model, store, options.scheme)},
        "git": git_revision(),
        "hardware": hardware(),
    }  # fmt: skip
    write_json(options.out, found)


def show(name: str, scores: dict[str, Any]) -> None:
    """Prints a rival's rows."""
    print(name)
    for score, of in scores.items():
        gap = of["difference"]
        print(
            f"    {score:22} {of['mean']:.4f}, model − rival {gap['mean']:+.4f} ({gap['low']:+.4f} – {gap['high']:+.4f})"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
