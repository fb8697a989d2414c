"""Several trained segmenters of one recipe as one model folder, which draws more masks through the same interface."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from manymask.config import difference, to_dict
from manymask.data.folds import scheme_of
from manymask.data.twins import all_hashes
from manymask.errors import ConfigError
from manymask.hub.catalogue import find_model
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.models.ensembled import Ensembled, EnsembledSegmenter
from manymask.recipes import Stage


def ensemble(runs: Sequence[Path], out: Path) -> TrainedModel:
    """Write the ensemble of trained segmenters as a model folder.

    Args:
        runs: model folders or run folders, at least two, of one recipe, trained on one store.
        out: the model folder; an older one is replaced.

    Returns:
        The ensemble. Its training cases are those of all members.

    Raises:
        ConfigError: the models do not fit together, or `out` is one of them.
    """
    if len(runs) < 2:
        raise ConfigError("an ensemble needs at least two models")
    members = [load_model(run) for run in runs]
    known: dict[str, Path] = {}
    for run, each in zip(runs, members, strict=True):
        _check_member(run, each, members[0], runs[0])
        if each.fingerprint in known:
            raise ConfigError(f"{run} and {known[each.fingerprint]} are one model, which would count twice", path=run)
        known[each.fingerprint] = run
    if out.resolve() in {find_model(run).resolve() for run in runs}:
        raise ConfigError(f"{out} is a member of the ensemble and would be lost: name another place", path=out)
    combined = _combined(members)
    save_model(combined, out)
    return combined


def _check_member(run: Path, each: TrainedModel, first: TrainedModel, reference: Path) -> None:
    if each.stage != Stage.SEGMENTER or isinstance(each.recipe.segmenter, Ensembled):
        raise ConfigError(f"{run} is no single segmenter: an ensemble is made of those", path=run)
    changed = difference(to_dict(first.recipe), to_dict(each.recipe))
    if changed:
        raise ConfigError(f"{run} and {reference} are of different recipes ({changed[0]})", path=run)
    ours, theirs = ((model.provenance.data_hash, scheme_of(model.provenance.scheme)) for model in (first, each))
    if ours != theirs:
        raise ConfigError(f"{run} and {reference} were trained on other data or another split", path=run)


def _combined(members: Sequence[TrainedModel]) -> TrainedModel:
    first = members[0]
    setting = first.recipe.segmenter
    assert not isinstance(setting, Ensembled)
    recipe = replace(first.recipe, segmenter=Ensembled(setting, len(members)))
    model = recipe.build(Stage.SEGMENTER)
    assert isinstance(model, EnsembledSegmenter)
    for own, each in zip(model.members, members, strict=True):
        own.load_state_dict(each.model.state_dict())
    seen = sorted({case for each in members for case in each.training_ids})
    hashes = all_hashes([each.training_hashes for each in members])
    return TrainedModel(
        model.eval(), recipe, Stage.SEGMENTER, _provenance(members), seen,
        use=copy.copy(first.use), training_hashes=hashes,
    )  # fmt: skip


def _provenance(members: Sequence[TrainedModel]) -> Provenance:
    """That of the first member, with the minutes of all; its score lists those of all."""
    own = [each.provenance for each in members]
    scores = "; ".join(each.score.split(" (")[0] for each in own if each.score)
    minutes = round(sum(each.minutes for each in own), 1)
    said = f"ensemble of {len(own)}: {scores}"
    return replace(own[0], scheme=scheme_of(own[0].scheme), minutes=minutes, score=said)
