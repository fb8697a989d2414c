"""Where a model lies, and whether its files fit together: all that is checked before a model is built from them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import Tensor, nn

from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.io.atomic import sweep
from manymask.io.tensors import read_tensors, shapes
from manymask.recipes import Recipe, Stage

HUB = re.compile(r"hf:/{1,2}([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


def find_model(name: Path | str, **download: Any) -> Path:
    """The model folder meant: the folder `name` itself, or the one inside a run folder.

    Only `hf://ORG/NAME` or `hf://ORG/NAME@REVISION` is fetched from the Hugging Face Hub (with the arguments `download`
    of its `snapshot_download`). Every other name is a local path, and is never sent anywhere.
    """
    address = HUB.fullmatch(Path(name).as_posix())
    folder = _fetched(address[1], {"revision": address[2], **download}) if address else Path(name)
    if not folder.exists():
        sweep(folder.parent)  # a killed program may have left it moved aside
    if not folder.exists():
        hint = "" if Path(name).is_absolute() else "; a model of the Hugging Face Hub is named hf://ORG/NAME"
        raise ConfigError(f"{name}: no such model folder{hint}", path=name)
    for place in (folder, folder / "segmenter" / "model", folder / "model"):
        if (place / "config.json").exists():
            return place
    inside = ", ".join(str(place.parent) for place in sorted(folder.glob("*/config.json"))[:4])
    hint = f"; it holds models: name one of {inside}" if inside else " (a model folder is made by `manymask train`)"
    raise ConfigError(f"{folder} is no model: it has no config.json{hint}", path=folder)


def _fetched(repository: str, download: dict[str, Any]) -> Path:
    """The folder of the Hub's cache that holds the files of a model."""
    wanted = ["*.json", "*.safetensors", "training_ids.txt", "training_hashes.txt", "*.md", "LICENSE"]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted, **download))
    except (HfHubHTTPError, HFValidationError, OSError, RuntimeError) as error:
        reason = first_difference(error)
        raise ConfigError(f"hf://{repository} cannot be fetched from the Hugging Face Hub ({reason})") from None


def meta_model(recipe: Recipe, stage: Stage, place: Path) -> nn.Module:
    """The model without memory for its weights: their names and shapes alone."""
    try:
        with torch.device("meta"):
            return recipe.build(stage)
    except ManymaskError as error:
        raise error.reworded(f"{place}: {error}") from None
    except Exception as error:  # settings that are in bounds each, but fit no network together
        raise ConfigError(
            f"{place}: no model can be built with these settings ({first_difference(error)})", path=place
        ) from None


def read_weights(parts: Mapping[str, nn.Module], folder: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of each part of an outline: all those that it names, of its shapes, and finite."""
    found = dict[str, dict[str, Tensor]]()
    for name, part in parts.items():
        wanted = shapes(part)
        if not wanted:
            continue
        path = folder / f"{name}.safetensors"
        if not path.exists():
            raise ConfigError(f"{path} is missing: the model folder is not complete, copy it again", path=path)
        tensors = read_tensors(own_file(path), wanted)
        found[name] = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        broken = next((k for k, v in found[name].items() if not torch.isfinite(v).all()), None)
        if broken is not None:
            raise InputError(f"{path}: {broken} holds values that are not finite: the file is damaged", path=path)
    return found


def own_file(path: Path) -> Path:
    """Refuses a link that leads out of the model folder, save into the blobs of a Hub cache."""
    folder, real = path.parent.resolve(), path.resolve()
    blobs = folder.parent.parent / "blobs"
    if real.parent != folder and real.parent != blobs:
        raise ConfigError(f"{path} is a link that leads out of the model folder: copy the file itself", path=path)
    return path


def first_difference(error: Exception) -> str:
    """What torch says is wrong with a state dict, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200]
