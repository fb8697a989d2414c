"""What models of each data set are for: the table behind `purpose`, `modality` and `trained_on` in a model's config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manymask.errors import ConfigError


@dataclass(frozen=True)
class Intended:
    """What a model is for. Empty fields: nothing is known, as of one's own folder.

    purpose: one sentence; modality: kinds of images that it was trained on (`dermoscopy`, `photograph`, `endoscopy`, `CT`,
    `MR`, `ultrasound`, `X-ray`, `simulation`); trained_on: the data, in words; spacing_mm: the least and greatest pixel
    spacing among them, where the model looks at native scale.
    """

    purpose: str = ""
    modality: tuple[str, ...] = ()
    trained_on: str = ""
    spacing_mm: tuple[float, ...] = ()


DATASETS: dict[str, Intended] = {
    "isic2018": Intended(
        "Outlines one skin lesion on a dermoscopic colour image.",
        ("dermoscopy",),
        "ISIC 2018 Task 1: dermoscopic images of skin lesions",
    ),
    "cvc_clinicdb": Intended(
        "Outlines polyps on a colour frame of a colonoscopy.",
        ("endoscopy",),
        "CVC-ClinicDB: frames of 29 colonoscopy videos, each with a polyp",
    ),
    "polyps": Intended(
        "Outlines polyps on a colour frame of a colonoscopy.",
        ("endoscopy",),
        "Kvasir-SEG and CVC-ClinicDB: frames of colonoscopies, each with a polyp",
    ),
    "lidc_idri": Intended(
        "Outlines a lung nodule in a region of an axial CT slice, at the slice's own scale.",
        ("CT",),
        "LIDC-IDRI: regions of chest CT slices about nodules that up to four radiologists marked",
        (0.46, 0.98),
    ),
    "phantom": Intended(
        "Outlines the lesion of a simulated image; for demonstrations and tests.",
        ("simulation",),
        "simulated images with a known distribution of masks",
    ),
}


def intended(dataset: str) -> Intended:
    """What a model of this data set is for; of an unknown one, nothing is known."""
    return DATASETS.get(dataset, Intended())


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
