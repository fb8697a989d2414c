"""What models of each data set are for: `purpose`, `modality` and `trained_on` in a model's config.json."""

from collections.abc import Mapping
from typing import Any

from manymask.data.datasets import DATASETS
from manymask.data.datasets.base import Intended
from manymask.errors import ConfigError
from manymask.io.dicom.finding import Finding


def intended(dataset: str) -> Intended:
    """What a model of this data set is for; of an unknown one, nothing is known."""
    return DATASETS[dataset].use if dataset in DATASETS else Intended()


def finding(dataset: str) -> Finding:
    """What its masks show, for DICOM SEG; of an unknown data set, some lesion."""
    return DATASETS[dataset].finding if dataset in DATASETS else Finding()


def read_intended(config: Mapping[str, Any], dataset: str, where: str) -> Intended:
    """The fields of a config.json; those that it lacks are the data set's."""
    known = intended(dataset)
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
