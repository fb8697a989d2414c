"""LIDC-IDRI (Armato et al. 2011) as nodule slices: 128×128 crops of CT at native scale, four raters' masks each.

Whole slices, as the paper has them, are a data set of their own (`lidc_idri_slices.py`).

From the source, the distribution of The Cancer Imaging Archive (`lidc_tcia.py`), or from the copy cut into slices:
DIR[/LIDC-IDRI-slices]/LIDC-IDRI-pppp/nodule-n/{images, mask-0 … mask-3}/slice-s.png. A slot that no rater
filled holds an empty mask, and a slot is not a rater's identity.
"""

from functools import partial
from pathlib import Path

from manymask.data.augment import Augment
from manymask.data.case import Case, Source, random_scheme
from manymask.data.datasets.annotations import MaskFile
from manymask.data.datasets.base import NO_WARRANTY, Dataset, Intended, Licence
from manymask.data.datasets.lidc_tcia import LICENCE, is_tcia, read_tcia
from manymask.data.datasets.lidc_xml import RATERS
from manymask.data.datasets.pairs import Pair, refused
from manymask.errors import InputError
from manymask.io.dicom.finding import Finding
from manymask.io.masks import MaskReading


def read(source: Path, channels: int = 1, reading: MaskReading | None = None) -> Source:
    """Either layout. Scheme `patient`: whole patients, 8:1:1, seed 42."""
    if not source.is_dir():
        raise InputError(f"{source} is no folder", path=source)
    root = next((p for p in (source, source / "LIDC-IDRI-slices") if any(p.glob("LIDC-IDRI-*/nodule-*"))), None)
    if root is None and is_tcia(source):
        return read_tcia(source, channels)
    if root is None:
        inside = ", ".join(sorted(p.name for p in source.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{source}: expected CT series with the raters' XML, or LIDC-IDRI-pppp/nodule-n/, found {inside}",
            path=source,
        )
    cases = [_case(image, channels, reading) for image in sorted(root.glob("LIDC-IDRI-*/nodule-*/images/*.png"))]
    for mask in sorted(root.glob("LIDC-IDRI-*/nodule-*/mask-0/*.png")):
        if not (image := mask.parents[1] / "images" / mask.name).exists():
            cases.append(Case(_name(image), image.parents[2].name, partial(refused, f"{mask} has no image {image}")))
    if not cases:
        raise InputError(f"{root}: no file matches LIDC-IDRI-pppp/nodule-n/images/*.png", path=root)
    scheme = random_scheme({case.id: case.group for case in cases}, 42)
    return Source("lidc_idri", cases, {"patient": scheme}, LICENCE)


def _case(image: Path, channels: int, reading: MaskReading | None) -> Case:
    masks = [image.parents[1] / f"mask-{k}" / image.name for k in range(RATERS)]
    missing = next((path for path in masks if not path.exists()), None)
    if missing is not None:
        return Case(_name(image), image.parents[2].name, partial(refused, f"{image} has no mask {missing}"))
    return Case(
        _name(image), image.parents[2].name, Pair(image, [*map(MaskFile, masks)], channels, reading or MaskReading())
    )


def _name(image: Path) -> str:
    return f"{image.parents[2].name}/{image.parents[1].name}/{image.stem}"


_TERMS = """The weights in this folder were trained on LIDC-IDRI (https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX), which is
released under CC BY 3.0. The weights are released under the same terms:

Creative Commons Attribution 3.0 Unported, https://creativecommons.org/licenses/by/3.0/

Whoever uses them cites Armato SG III et al., The Lung Image Database Consortium (LIDC) and Image Database Resource
Initiative (IDRI), Medical Physics 38: 915-931, 2011.
"""

DATASET = Dataset(
    "lidc_idri",
    read,
    licence=Licence("cc-by-3.0", _TERMS + NO_WARRANTY, pictures=True),
    use=Intended(
        "Outlines a lung nodule in a region of an axial CT slice, at the slice's own scale.",
        ("CT",),
        "LIDC-IDRI: regions of chest CT slices about nodules that up to four radiologists marked",
        (0.46, 0.98),
    ),
    finding=Finding(("27925004", "Nodule"), ("39607008", "Lung")),
    size=96,
    channels=1,
    positive_weight=50,
    # the nodule sits in the middle of its crop: training sees windows of 96² out of 128², so that the middle gives nothing away
    augment=Augment(dihedral=True, scale=0.1, brightness=0.05, contrast=0.1),
)
