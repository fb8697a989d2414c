"""What models of each data set are for: `purpose`, `modality` and `trained_on` in a model's config.json."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from manymask.data.datasets import DATASETS
from manymask.data.datasets.base import Intended
from manymask.errors import ConfigError
from manymask.io.dicom.finding import Finding
from manymask.recipes import Recipe


def intended(recipe: Recipe) -> Intended:
    """What a model of this recipe is for, by its data set and by whether it learns single raters; of an unknown data set,
    nothing is known."""
    use = DATASETS[recipe.dataset].use if recipe.dataset in DATASETS else Intended()
    if use.purpose and recipe.segmenter.target == "rater":
        return replace(use, purpose=use.purpose.removesuffix(".") + ", as single raters would.")
    return use


def finding(dataset: str) -> Finding:
    """What its masks show, for DICOM SEG; of an unknown data set, some lesion."""
    return DATASETS[dataset].finding if dataset in DATASETS else Finding()


def read_intended(config: Mapping[str, Any], recipe: Recipe, where: str) -> Intended:
    """The fields of a config.json; those that it lacks are those of its recipe."""
    known = intended(recipe)
    texts = {name: config.get(name, getattr(known, name)) for name in ("purpose", "trained_on")}
    modality = config.get("modality", known.modality)
    spacing = config.get("spacing_mm", known.spacing_mm)
    whole = isinstance(modality, (list, tuple)) and isinstance(spacing, (list, tuple))
    if not (all(isinstance(text, str) for text in texts.values()) and whole
            and all(isinstance(word, str) for word in modality) and len(spacing) in (0, 2)
            and all(isinstance(mm, (int, float)) for mm in spacing)):  # fmt: skip
        raise ConfigError(
            f"{where}: purpose and trained_on must be texts, modality a list of texts, spacing_mm two numbers"
        )
    return Intended(texts["purpose"], tuple(modality), texts["trained_on"], tuple(map(float, spacing)))
