"""Models by name: where they lie, and what each is for. Nothing here imports torch.

A name such as `isic2018` is that of a model folder in one of three places. The first that has it counts:

1. `models/` of the checkout that manymask runs from, so that code and weights are of one revision;
2. the installed package `manymask-models`, which `models/pyproject.toml` builds;
3. the user's cache, `~/.cache/manymask/models` (`MANYMASK_CACHE` names another folder than `~/.cache/manymask`).
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from manymask.errors import ConfigError, InputError, ManymaskError, guesses, one_line
from manymask.io.atomic import read_object, sweep

PACKAGE = "manymask_models"
HUB = re.compile(r"hf:/{1,2}([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
_HUB_FILES = ["*.json", "*.safetensors", "training_ids.txt", "training_hashes.txt", "*.md", "LICENSE"]


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a model without loading it.

    Attributes:
        name: that it is found by.
        folder: where it lies.
        purpose: what it is for, one sentence; empty if that is not known.
        modality: kinds of images that it was trained on.
        dataset: that it was trained on.
        licence: of the weights.
        size: side of what it sees, in pixels.
        crop: whether it segments regions of interest.
        dice: on test, the mean over draws; None where that was not measured.
        bytes: of all files.
    """

    name: str
    folder: Path
    purpose: str
    modality: tuple[str, ...]
    dataset: str
    licence: str
    size: int
    crop: bool
    dice: float | None
    bytes: int


def cache_folder() -> Path:
    """The user's cache of manymask."""
    if own := os.environ.get("MANYMASK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manymask"


def _places() -> Iterator[Path]:
    """The folders of model folders, those that count first."""
    checkout = Path(__file__).parents[3] / "models"
    if (checkout / "pyproject.toml").exists():
        yield checkout
    package = find_spec(PACKAGE)
    if package is not None:
        yield from map(Path, package.submodule_search_locations or ())
    yield cache_folder() / "models"


def named_models() -> dict[str, Path]:
    """The folders of all models that have a name, sorted by name."""
    found = dict[str, Path]()
    for place in _places():
        for config in place.glob("*/config.json"):
            found.setdefault(config.parent.name, config.parent)
    return dict(sorted(found.items()))


def find_model(name: Path | str, **download: Any) -> Path:
    """The folder of a model.

    Only `hf://ORG/NAME` or `hf://ORG/NAME@REVISION` is fetched from the Hugging Face Hub (with the arguments `download`
    of its `snapshot_download`). Every other name is looked for on this machine, and is never sent anywhere.

    Args:
        name: a model folder, a run folder with a model inside, a name of `named_models`, or an address of the Hub. A
            folder goes before a model of the same name.
        **download: for the Hub alone.

    Raises:
        ConfigError: there is no such model.
    """
    address = HUB.fullmatch(Path(name).as_posix())
    folder = _fetched(address[1], {"revision": address[2], **download}) if address else Path(name)
    if not folder.exists():
        sweep(folder.parent)  # a killed program may have left it moved aside
    for place in (folder, folder / "segmenter" / "model", folder / "model"):
        if (place / "config.json").exists():
            return place
    known = named_models()
    if str(name) in known:
        return known[str(name)]
    raise ConfigError(_no_model(name, folder, known), path=name)


def is_shared(name: Path | str) -> bool:
    """Whether a model is found by its name or on the Hub, so that its folder is not for one user to change."""
    return bool(HUB.fullmatch(Path(name).as_posix())) or (str(name) in named_models() and not Path(name).exists())


def _no_model(name: Path | str, folder: Path, known: Mapping[str, Path]) -> str:
    """What is said of a name without a model, with those that may be meant."""
    if folder.exists():
        inside = ", ".join(str(place.parent) for place in sorted(folder.glob("*/config.json"))[:4])
        hint = f"; it holds models: name one of {inside}" if inside else " (a model folder is made by `manymask train`)"
        return f"{folder} is no model: it has no config.json{hint}"
    said = f"{name}: no such model folder{guesses(folder.name, known)}"
    if folder.is_absolute() or folder.parts[:1] in [("~",), ("..",)]:
        return said
    names = f"; models by name: {', '.join(known)}" if known else "; no model is installed that has a name"
    hub = "; a model of the Hugging Face Hub is named hf://ORG/NAME" if len(folder.parts) == 2 else ""
    return said + names + hub


def _fetched(repository: str, download: Mapping[str, Any]) -> Path:
    """The folder of the Hub's cache that holds the files of a model."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES, **download))
    except (HfHubHTTPError, HFValidationError, OSError, RuntimeError) as error:
        reason = one_line(error)
        raise ConfigError(f"hf://{repository} cannot be fetched from the Hugging Face Hub ({reason})") from None


def model_entry(name: str, folder: Path) -> ModelEntry:
    """What the files of a model folder say of it; `ManymaskError` if its config.json cannot be read."""
    place = folder / "config.json"
    config = read_object(place)
    try:
        recipe, provenance = config["recipe"], config.get("provenance", {})
        return ModelEntry(
            name,
            folder,
            purpose=str(config.get("purpose", "")),
            modality=tuple(map(str, config.get("modality", ()))),
            dataset=str(recipe["dataset"]),
            licence=str(provenance.get("licence", "")),
            size=int(recipe["size"]),
            crop=bool(recipe.get("crop", False)),
            dice=_dice(folder / "metrics.json"),
            bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} is not the configuration of a model ({one_line(error)})", path=place) from None


def _dice(metrics: Path) -> float | None:
    """The mean Dice on test over all draws."""
    if not metrics.exists():
        return None
    try:
        return fmean(run["metrics"]["dice"]["mean"] for run in read_object(metrics)["segmenter"])
    except (ManymaskError, KeyError, TypeError, ValueError):
        return None  # another program's file of this name


def model_entries() -> list[ModelEntry]:
    """What is known of all models that have a name."""
    return [model_entry(name, folder) for name, folder in named_models().items()]


def list_models() -> list[str]:
    """The names of the models that are installed; `manymask models` shows what each is for."""
    return list(named_models())


def default_model(kinds: Collection[str] = ()) -> ModelEntry:
    """The model for images of these kinds where none was named.

    Args:
        kinds: kinds of all the images, as in `Intended.modality`; empty if nothing tells them.

    Returns:
        The only model there is for them; of several trained on one data set, the one named after it.

    Raises:
        ConfigError: there is none, or the images do not tell which; lists the choices.
    """
    entries = model_entries()
    if not entries:
        raise ConfigError("no model is installed: name a model folder", parameter="model")
    shown = " and ".join(sorted(kinds))
    fit = [each for each in entries if set(kinds) <= set(each.modality)] if kinds else entries
    alike = len({each.dataset for each in fit}) == 1
    main = [each for each in fit if alike and each.name == each.dataset]
    for found in (fit, main):
        if len(found) == 1:
            return found[0]
    choices = "; ".join(f"{each.name} ({_brief(each.purpose)})" for each in fit or entries)
    why = "the images do not tell which model they want" if fit else f"no model is for {shown}"
    raise ConfigError(f"{why}: choose one of {choices}", parameter="model")


def _brief(purpose: str) -> str:
    """A purpose in a list: without its verb and its full stop."""
    return purpose.removeprefix("Outlines ").rstrip(".") or "purpose unknown"
