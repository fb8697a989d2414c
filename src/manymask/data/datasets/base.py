"""What the package has to know of a data set: how it is read, what its licence allows, what its models are for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manymask.data.augment import Augment
from manymask.data.case import Source
from manymask.data.raters import Target
from manymask.io.dicom.finding import Finding

MIRROR = Augment(dihedral=True)
PHOTO = Augment(dihedral=True, rotate=45, scale=0.2, shift=0.1, brightness=0.1, contrast=0.2, colour=0.1)

NO_WARRANTY = """They are provided as is, without warranty of any kind, for research, and not for diagnosis or treatment.
"""


@dataclass(frozen=True)
class Licence:
    """tag: as the Hugging Face Hub names it; text: of the LICENSE beside weights; pictures: whether images may be shown."""

    tag: str
    text: str
    pictures: bool


UNKNOWN_LICENCE = Licence(
    "other",
    "The weights in this folder follow the terms of the data that they were trained on.\n" + NO_WARRANTY,
    pictures=False,
)


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


@dataclass(frozen=True)
class Option:
    """A flag of `manymask prepare` for data sets that have it, and a keyword of their `read`.

    Attributes:
        name: as Python spells it; `parts` is the flag `--parts`, and underscores become dashes.
        kind: the type of its values, such as `bool` or `tuple[str, ...]`.
        default: its value where the flag is not given.
        help: what the command line says of it.
    """

    name: str
    kind: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Dataset:
    """A data set; its module in `data/datasets` holds one as `DATASET`.

    Attributes:
        name: the name of its module, its recipe and its prepared stores.
        read: `read(source, channels, reading, **options)` finds the images and masks below the folder `source`.
        licence: of the weights that were trained on it.
        use: what these models are for.
        finding: what their masks show, for DICOM SEG.
        options: further keywords of `read`.
        needs_source: whether there is anything to download; False of generated images.
        users_own: whether a user brings the images, so that equal names in two stores may mean other images.
        size: of its recipe's images, in pixels.
        channels: of its images, 1 or 3.
        positive_weight: of the pixels within a mask, in the loss of the mask codec.
        augment: how training images vary.
        target: what the segmenter learns of several raters.
    """

    name: str
    read: Callable[..., Source]
    licence: Licence = UNKNOWN_LICENCE
    use: Intended = Intended()
    finding: Finding = Finding()
    options: tuple[Option, ...] = ()
    needs_source: bool = True
    users_own: bool = False
    size: int = 128
    channels: int = 3
    positive_weight: float = 5
    augment: Augment = PHOTO
    target: Target = "consensus"
