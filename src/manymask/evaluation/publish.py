"""From a run to a shipped model: weights in half precision, scored as shipped, with card, licence and results.

MODEL/    the files that `hub` writes, and metrics.json (test scores, also of the codecs) and LICENSE
RESULTS/  metrics.json, results.json, worst.md (the worst cases), mask-codec/results.json, image-codec/results.json,
          and figure.png and worst.png if the licence of the data permits pictures
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from manymask.config import from_dict, to_dict
from manymask.data.case import evenly_spaced
from manymask.data.store import Store
from manymask.data.twins import all_hashes
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.evaluation.evaluator import EvalConfig, evaluate, results
from manymask.evaluation.held_out import held_out_cases, matched_store
from manymask.evaluation.plots import draw_batch
from manymask.evaluation.records import EvaluationRecord
from manymask.extras import require_figures
from manymask.hub import model_card as card
from manymask.hub.model_folder import OURS, TrainedModel, load_model, read_settings, save_model, write_model
from manymask.hub.provenance import Provenance
from manymask.io.atomic import atomic_file, atomic_folder, check_place, check_replaceable, write_json
from manymask.models.autoencoder import Codec, same_codec
from manymask.models.latent_diffusion import DiffusionSegmenter, LatentDiffusion
from manymask.recipes import Recipe, Stage, name_of

CODECS = (Stage.MASK_CODEC, Stage.IMAGE_CODEC)
WORST = 10
UPRIGHT = "upright"  # key of the scores of samples from the image as it is


def with_sampling(trained: TrainedModel, sampling: SamplingConfig, presence_shift: float | None = None) -> TrainedModel:
    """Change how a diffusion model samples by default, in a copy with the same weights.

    Args:
        trained: the model.
        sampling: the new defaults; fields that are None stay as they are.
        presence_shift: what is taken off its presence's logit (`LatentDiffusion.presence_shift`); as it is if None.

    Returns:
        The copy, or the model itself if no field is given.

    Raises:
        ConfigError: the model has no such settings, or they are out of range.
    """
    setting = trained.recipe.segmenter
    if sampling == SamplingConfig() and presence_shift is None:
        return trained
    if not isinstance(setting, LatentDiffusion) or not isinstance(trained.model, DiffusionSegmenter):
        raise ConfigError("only diffusion models have orientations, a sampler, steps and a head's share to choose")
    used = trained.model.resolve(sampling)
    names = ("sampler", "orientations", "guidance_scale", "head_share")
    chosen: dict[str, Any] = {name: getattr(used, name) for name in names}
    if presence_shift is not None:
        if trained.model.presence is None:
            raise ConfigError("this model has no presence to shift", parameter="presence_shift")
        chosen["presence_shift"] = presence_shift
    recipe = replace(trained.recipe, segmenter=replace(setting, **chosen))
    recipe = from_dict(Recipe, to_dict(recipe), "recipe")  # within the limits
    model = recipe.build(Stage.SEGMENTER)
    model.load_state_dict(trained.model.state_dict())
    return replace(trained, recipe=recipe, model=model.eval())


def publish(
    run: Path,
    data: Path,
    model: Path,
    out: Path,
    seeds: int = 1,
    cases: int | None = None,
    sampling: SamplingConfig = SamplingConfig(),
    mask_codec: Path | None = None,
    presence_shift: float | None = None,
) -> dict[str, Any]:
    """Score a run's model in half precision on the test part, and write MODEL and RESULTS.

    Args:
        run: run folder of a segmenter.
        data: folder of the store that it was trained on.
        model: MODEL.
        out: RESULTS.
        seeds: number of sampling seeds, from 0 on.
        cases: at most so many test cases, evenly spaced; all if None.
        sampling: new default sampling of the model.
        mask_codec: folder of a mask codec with the same latents whose decoder was trained further.
        presence_shift: as in `with_sampling`.

    Returns:
        The content of metrics.json.

    Raises:
        ConfigError: the run has no segmenter or was trained on other data, the mask codec has other latents, or MODEL holds
            a model of another kind.
        InputError: MODEL holds what is no model.
    """
    require_figures()
    trained = load_model(run)
    _check_places(run, model, out, trained)
    store = matched_store(trained.recipe, Store(data))
    if trained.stage != Stage.SEGMENTER:
        raise ConfigError(
            f"{run} holds a {trained.stage}, no segmenter: give the run folder of all three stages", path=run
        )
    if not store.holds(trained.provenance.data_hash):
        raise ConfigError(f"{data} is not what {run} was trained on: their hashes differ", path=data)
    if mask_codec is not None:
        trained = _with_decoder(trained, mask_codec)
    with tempfile.TemporaryDirectory() as scratch:
        halved = _halved(with_sampling(trained, sampling, presence_shift), Path(scratch) / "model")
    check_place(out, {"results.json": "protocol", "metrics.json": "segmenter"})
    metrics = _all_scores(halved, store, out, seeds, cases)
    with atomic_folder(model, OURS) as beside:
        write_model(halved, beside, half=True)
        write_json(beside / "metrics.json", metrics)
        with (beside / "README.md").open("a", encoding="utf-8") as readme:
            readme.write(card.measured_section(metrics))
    write_json(out / "metrics.json", metrics)
    return metrics


def _check_places(run: Path, model: Path, out: Path, trained: TrainedModel) -> None:
    """Before anything is scored: that MODEL is free, or an earlier model of the same kind, and nothing that is needed."""
    place, stages = model.resolve(), [run.resolve() / stage for stage in Stage]
    if any(each.resolve().is_relative_to(place) for each in (run, out)) or any(map(place.is_relative_to, stages)):
        raise ConfigError(f"{model} would replace a part of the run, or of the results: name another place", path=model)
    check_replaceable(model, OURS)
    if not (model / OURS.mark).exists():
        return
    there, here = (f"{name_of(each)} of {each.dataset}" for each in (read_settings(model)[0], trained.recipe))
    if there != here:
        raise ConfigError(f"{model} holds the model {there}, not {here}: name another place or remove it", path=model)


def _all_scores(
    halved: TrainedModel, store: Store, out: Path, seeds: int, cases: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Scores of the segmenter with every seed, of its samples from the image as it is, and of its codecs."""
    plain = EvalConfig()
    metrics: dict[str, list[dict[str, Any]]] = {Stage.SEGMENTER.value: []}
    for seed in range(seeds):
        folder = out if seed == 0 else None
        scored = _scored(halved, store, folder, replace(plain, seed=seed), cases)
        metrics[Stage.SEGMENTER.value].append(scored.brief())
    if isinstance(halved.model, DiffusionSegmenter) and halved.model.setting.orientations > 1:
        upright = replace(plain, sampling=SamplingConfig(orientations=1))
        metrics[UPRIGHT] = [_scored(halved, store, None, upright, cases).brief()]
    for stage in CODECS:
        codec = getattr(halved.model, stage.attribute, None)
        if isinstance(codec, Codec):
            part = replace(halved, model=codec, stage=stage, provenance=_of_codec(halved.provenance, stage))
            metrics[stage.value] = [_scored(part, store, out / stage, plain, cases).brief()]
    return metrics


def _of_codec(own: Provenance, stage: Stage) -> Provenance:
    """The provenance of a segmenter's codec; for older models, only the data are recorded."""
    known = own.image_codec if stage == Stage.IMAGE_CODEC else own.mask_codec
    return known or replace(own, steps=0, minutes=0.0, git="", score="")


def _with_decoder(trained: TrainedModel, folder: Path) -> TrainedModel:
    """The model with the mask codec of this folder, whose decoder alone was trained further."""
    given = load_model(folder)
    codec = getattr(trained.model, "mask_codec", None)
    mine = trained.provenance
    theirs = given.provenance
    if (mine.data_hash, mine.scheme) != (theirs.data_hash, theirs.scheme):
        raise ConfigError(f"{folder} was trained on other data or another split", path=folder)
    if not (isinstance(codec, Codec) and isinstance(given.model, Codec) and codec.same_latents(given.model)):
        raise ConfigError(
            f"{folder} has other latents: train its decoder alone, from the mask codec of this run", path=folder
        )
    same_codec(given.recipe.mask_codec, trained.recipe.mask_codec, folder)
    codec.load_state_dict(given.model.state_dict())
    seen = sorted({*trained.training_ids, *given.training_ids})
    hashes = all_hashes([trained.training_hashes, given.training_hashes])
    provenance = replace(mine, mask_codec=theirs)
    return replace(trained, provenance=provenance, training_ids=seen, training_hashes=hashes)


def _halved(trained: TrainedModel, folder: Path) -> TrainedModel:
    """The model as it will be loaded, so that the shipped weights are scored; not calibrated, since they are others."""
    if trained.calibration is not None:
        tqdm.write(
            "manymask: the calibration is of the weights before they were halved: calibrate MODEL", file=sys.stderr
        )
    save_model(replace(trained, calibration=None), folder, half=True)
    return load_model(folder)


def _scored(
    trained: TrainedModel, store: Store, out: Path | None, protocol: EvalConfig, cases: int | None
) -> EvaluationRecord:
    ids = evenly_spaced(held_out_cases(trained, store, "test"), cases)
    scores = evaluate(trained.model, store, ids, protocol)
    found = results(trained, store, "test", protocol, scores)
    if out is not None:
        write_json(out / "results.json", found.to_dict())
        if trained.stage == Stage.SEGMENTER:
            _write_worst(found, out / "worst.md")
        if trained.licence.pictures:
            pictures = {"figure": evenly_spaced(ids, 6)}
            if trained.stage == Stage.SEGMENTER:
                pictures["worst"] = [case["id"] for case in _worst(found)]
            for name, few in pictures.items():
                draw_batch(trained.model, store.batch(few), out / f"{name}.png")
    return found


def _worst(found: EvaluationRecord) -> list[dict[str, Any]]:
    """The worst cases; among equal ones, those whose masks agree most come first, since these are wrong and confident."""
    return sorted(found.cases, key=lambda case: (case["dice"], case["relative_std"]))[:WORST]


def _write_worst(found: EvaluationRecord, path: Path) -> None:
    """Write a table of the worst cases, with the spread of their masks."""
    lines = ["| case | Dice | IoU | HD95, px | spread of the masks |", "|---|---|---|---|---|"]
    for case in _worst(found):
        distance = "–" if case["hd95"] is None else f"{case['hd95']:.1f}"
        lines.append(
            f"| {case['id']} | {case['dice']:.3f} | {case['iou']:.3f} | {distance} | {case['relative_std']:.2f} |"
        )
    missed = sum(case["dice"] == 0 for case in found.cases)
    lines += ["", f"Of {len(found.cases)} cases {missed} are missed entirely (Dice 0)."]
    with atomic_file(path) as beside:
        beside.write_text("\n".join([*lines, ""]), encoding="utf-8")
