"""LIDC-IDRI (Armato et al. 2011) as the paper takes it: whole CT slices, where the median nodule covers 4 pixels of 128².

They come from the distribution of The Cancer Imaging Archive (`lidc_tcia.py`), in the lung window. The widely used copy
holds crops around nodules, of which no slice can be made: it is the data set `lidc_idri`.
"""

from dataclasses import replace
from pathlib import Path

from manymask.data.augment import Augment
from manymask.data.case import Source
from manymask.data.datasets.base import Intended
from manymask.data.datasets.lidc_idri import DATASET as CROPS
from manymask.data.datasets.lidc_tcia import is_tcia, read_tcia
from manymask.errors import InputError
from manymask.io.masks import MaskReading


def read(source: Path, channels: int = 1, reading: MaskReading | None = None) -> Source:
    """The slices with a nodule on them, all nodules of a rater in one mask. Scheme `patient`: whole patients, 8:1:1, seed 42."""
    if not source.is_dir():
        raise InputError(f"{source} is no folder", path=source)
    if not is_tcia(source):
        raise InputError(
            f"{source} holds no rater's XML: whole slices are made from the DICOM of The Cancer Imaging Archive; "
            "crops around nodules are the data set lidc_idri",
            path=source,
        )
    return read_tcia(source, channels, whole=True)


DATASET = replace(
    CROPS,
    name="lidc_idri_slices",
    read=read,
    use=Intended(
        "Outlines lung nodules in a whole axial CT slice that holds one.",
        ("CT",),
        "LIDC-IDRI, whole slices: chest CT on which up to four radiologists marked nodules",
    ),
    size=128,
    augment=Augment(scale=0.1, brightness=0.05, contrast=0.1),
)
