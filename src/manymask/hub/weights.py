"""Whether the files of a model fit together: all that is checked before a model is built from them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.io.tensors import read_tensors, shapes
from manymask.recipes import Recipe, Stage


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
