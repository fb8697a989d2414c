"""Models on disk and in the hand: `Segmenter` is what users hold, a model folder is what they share.

MODEL/config.json          the recipe, the stage, what it was trained on, what it is for
MODEL/*.safetensors        one file a part (image_codec, mask_codec, denoiser, network, codec, …)
MODEL/training_ids.txt     the cases it has seen, so that they are never tested on
MODEL/calibration.json     what its masks promise, if it was calibrated
MODEL/training_hashes.txt  what their images look like, so that a test on them under other names is noticed
MODEL/README.md            the model card
MODEL/LICENSE              the terms of the data it was trained on
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from manymask.calibration import calibration
from manymask.calibration.calibration import Calibration
from manymask.config import chosen, from_dict, to_dict
from manymask.data.datasets.base import Intended, Licence
from manymask.data.twins import hashes_as_text, hashes_from_text
from manymask.errors import ConfigError, InputError
from manymask.hub import model_card as card
from manymask.hub.catalogue import find_model
from manymask.hub.intended_use import intended, read_intended
from manymask.hub.licenses import licence
from manymask.hub.provenance import Provenance
from manymask.hub.weights import meta_model, own_file, read_weights
from manymask.io.atomic import Ours, atomic_file, atomic_folder, read_object, write_json
from manymask.io.record import ModelRecord
from manymask.io.tensors import write_tensors, writing
from manymask.io.text import read_text
from manymask.migrations import FORMAT, format_of, upgraded
from manymask.models.base import MaskSampler, TrainableModel
from manymask.recipes import Recipe, Stage, name_of

MOST_CONFIG = 1_000_000
OURS = Ours(
    "config.json",
    "recipe",
    (
        "config.json",
        "*.safetensors",
        "training_*.txt",
        "metrics.json",
        calibration.FILE,
        "README.md",
        "LICENSE",
        ".gitattributes",
    ),
)


@dataclass
class TrainedModel:
    """A model of any stage with all that is saved beside it. name: of its folder; use: what it is for, by default that of
    its data set; training_hashes: of the images it has seen (`data.twins`), None where they are not known; calibration:
    what its masks promise, None where that was not measured."""

    model: TrainableModel
    recipe: Recipe
    stage: Stage
    provenance: Provenance
    training_ids: list[str]
    name: str = ""
    use: Intended | None = None
    training_hashes: np.ndarray | None = None
    calibration: Calibration | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and values of all weights as they are used, in hexadecimal digits: whether
        stored whole or in half precision, equal weights have equal fingerprints. Computed once."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @cached_property
    def settings_sha256(self) -> str:
        """SHA-256 over the settings that are not at their defaults: equal weights with other settings see or draw in
        another way."""
        return hashlib.sha256(json.dumps(chosen(self.recipe), sort_keys=True).encode()).hexdigest()

    @property
    def segmenter(self) -> MaskSampler:
        """The model as one that draws masks; `ConfigError` for a codec."""
        if not isinstance(self.model, MaskSampler):
            raise ConfigError(f"this model is a codec ({self.stage}); give the folder of a trained segmenter")
        return self.model

    @property
    def intended(self) -> Intended:
        return intended(self.recipe) if self.use is None else self.use

    @property
    def record(self) -> ModelRecord:
        """What a result tells of its model."""
        use = self.intended
        about = (use.purpose, use.modality, use.trained_on)
        recipe = name_of(self.recipe)
        return ModelRecord(
            self.name or recipe, recipe, self.recipe.dataset, self.fingerprint, *about, self.settings_sha256
        )

    @property
    def licence(self) -> Licence:
        """The terms of all the data, and of the pretrained weights, that it has seen."""
        encoder = self.recipe.encoder if self.stage == Stage.SEGMENTER else "own"
        return licence(*(self.provenance.data_sets or (self.recipe.dataset,)), encoder=encoder)


def _parts(model: nn.Module, stage: Stage) -> dict[str, nn.Module]:
    return dict(model.named_children()) if stage == Stage.SEGMENTER else {"codec": model}


def write_model(trained: TrainedModel, folder: Path, half: bool = False) -> None:
    """Fills an existing folder; `half` stores floating-point weights in half precision."""
    for name, part in _parts(trained.model, trained.stage).items():
        tensors = part.state_dict()
        if half:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        if tensors:
            write_tensors(folder / f"{name}.safetensors", tensors, {"format": "pt"})
    config = {"format": FORMAT, "stage": trained.stage, "recipe": to_dict(trained.recipe)}
    use = {k: v for k, v in to_dict(trained.intended).items() if k != "kind"}
    write_json(folder / "config.json", {**config, **use, "provenance": to_dict(trained.provenance)})
    terms = trained.licence
    text = card.write(
        trained.recipe, trained.stage, trained.provenance, len(trained.training_ids), terms.tag, use["purpose"]
    )
    _write(folder / "training_ids.txt", "\n".join(trained.training_ids) + "\n")
    if trained.training_hashes is not None:
        _write(folder / "training_hashes.txt", hashes_as_text(trained.training_hashes))
    if trained.calibration is not None:
        text += card.calibrated_section(trained.calibration)
        write_json(folder / calibration.FILE, calibration.text_of(trained.calibration))
    _write(folder / "README.md", text)
    _write(folder / "LICENSE", terms.text)


def _write(path: Path, text: str) -> None:
    with writing(path), atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def save_model(trained: TrainedModel, folder: Path, half: bool = False) -> None:
    """Writes a model folder whole or not at all, replacing an older one."""
    with atomic_folder(folder, OURS) as beside:
        write_model(trained, beside, half)


def load_model(name: Path | str, **download: Any) -> TrainedModel:
    """A model folder, or a run folder with one inside; see `find_model` for other names.

    A stranger's folder is checked before anything is built: sizes of files, settings within the bounds of `limits`, and
    the shapes of all weights. Raises `ConfigError` that names what is missing or wrong.
    """
    title = Path(name).resolve().name
    folder = find_model(name, **download)
    place = folder / "config.json"
    recipe, stage, provenance, config = _settings(place)
    ids = folder / "training_ids.txt"
    if not ids.exists():
        raise ConfigError(f"{ids} is missing: without it nothing tells which cases the model has seen")
    training_ids = read_text(own_file(ids)).split("\n")[:-1]
    weights = read_weights(_parts(meta_model(recipe, stage, place), stage), folder)
    model = recipe.build(stage)
    for part_name, part in _parts(model, stage).items():
        part.load_state_dict(weights.get(part_name, {}))
    use = read_intended(config, recipe, str(place))
    hashes = _read_hashes(folder / "training_hashes.txt")
    trained = TrainedModel(model.eval(), recipe, stage, provenance, training_ids, title, use, hashes)
    trained.calibration = _read_calibration(folder / calibration.FILE, trained)
    return trained


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of a model folder by their names in it, for machines that do not have it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_files(files: Mapping[str, bytes], folder: Path) -> Path:
    """Writes what `read_files` gave; returns the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read_settings(name: Path | str) -> tuple[Recipe, Stage, Provenance]:
    """Recipe, stage and provenance of a model, without its weights; see `load_model`."""
    return _settings(find_model(name) / "config.json")[:3]


def _settings(place: Path) -> tuple[Recipe, Stage, Provenance, dict[str, Any]]:
    """What a config.json holds, and itself."""
    config = read_object(own_file(place), MOST_CONFIG)
    found = format_of(config, str(place))
    if not {"recipe", "stage"} <= set(config):
        raise ConfigError(f"{place} names no recipe or no stage: the model folder is not complete")
    recipe = from_dict(Recipe, upgraded(config["recipe"], found, str(place)), f"{place}: recipe")
    stage = from_dict(Stage, config["stage"], f"{place}: stage")
    provenance = from_dict(Provenance, config.get("provenance", {}), f"{place}: provenance")
    return recipe, stage, provenance, config


def _read_calibration(path: Path, trained: TrainedModel) -> Calibration | None:
    """The calibration beside the weights; `InputError` for one of other weights or settings."""
    if not path.exists():
        return None
    found = calibration.read(read_object(own_file(path), MOST_CONFIG), path)
    made, now = found.origin, trained
    if (made.weights_sha256, made.settings_sha256) != (now.fingerprint, now.settings_sha256):
        what = "weights" if made.weights_sha256 != now.fingerprint else "settings in config.json"
        raise InputError(f"{path} was made for other {what}: remove it, then calibrate again", path=path)
    return found


def save_calibration(trained: TrainedModel, folder: Path, found: Calibration, source: Path | None = None) -> None:
    """Put a calibration beside the weights of a model folder, and what it promises into the card.

    Args:
        trained: the model of this folder.
        folder: a model folder.
        found: the calibration.
        source: the model folder that `folder` becomes a copy of; `folder` itself if None.
    """
    if source is not None and source.resolve() != folder.resolve():
        with atomic_folder(folder, OURS) as beside:
            shutil.copytree(source, beside, dirs_exist_ok=True)
            save_calibration(trained, beside, found)
        return
    place = folder / "README.md"
    write_json(folder / calibration.FILE, calibration.text_of(found))
    _write(place, card.with_calibration(read_text(own_file(place)), found))
    trained.calibration = found


def _read_hashes(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return hashes_from_text(read_text(own_file(path)))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): copy the model folder again", path=path) from None
