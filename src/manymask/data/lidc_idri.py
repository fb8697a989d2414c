"""LIDC-IDRI (Armato et al. 2011) as nodule slices: 128×128 crops of CT at native scale, four readers' masks each.

From the source, the distribution of The Cancer Imaging Archive (`lidc_tcia.py`), or from the copy cut into slices:
DIR[/LIDC-IDRI-slices]/LIDC-IDRI-pppp/nodule-n/{images, mask-0 … mask-3}/slice-s.png. A slot that no reader
filled holds an empty mask, and a slot is not a reader's identity.
"""

from functools import partial
from pathlib import Path

from manymask.data.case import Case, Source, random_scheme
from manymask.data.lidc_tcia import LICENCE, is_tcia, read_tcia
from manymask.data.lidc_xml import READERS
from manymask.data.pairs import load
from manymask.errors import UserError


def read(source: Path, channels: int = 1, mask_threshold: int | None = None) -> Source:
    """Either layout. Scheme `patient`: whole patients, 8:1:1, seed 42."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder")
    root = next((p for p in (source, source / "LIDC-IDRI-slices") if any(p.glob("LIDC-IDRI-*/nodule-*"))), None)
    if root is None and is_tcia(source):
        return read_tcia(source, channels)
    if root is None:
        inside = ", ".join(sorted(p.name for p in source.iterdir())[:8]) or "nothing"
        raise UserError(
            f"{source}: expected CT series with the readers' XML, or LIDC-IDRI-pppp/nodule-n/, found {inside}"
        )
    cases = [_case(image, channels, mask_threshold) for image in sorted(root.glob("LIDC-IDRI-*/nodule-*/images/*.png"))]
    strays = [
        m for m in root.glob("LIDC-IDRI-*/nodule-*/mask-0/*.png") if not (m.parents[1] / "images" / m.name).exists()
    ]
    if strays:
        raise UserError(f"{strays[0]} has no image {strays[0].parents[1] / 'images' / strays[0].name}")
    if not cases:
        raise UserError(f"{root}: no file matches LIDC-IDRI-pppp/nodule-n/images/*.png")
    scheme = random_scheme({case.id: case.group for case in cases}, 42)
    return Source("lidc_idri", cases, {"patient": scheme}, LICENCE)


def _case(image: Path, channels: int, mask_threshold: int | None) -> Case:
    nodule = image.parent.parent
    masks = [nodule / f"mask-{k}" / image.name for k in range(READERS)]
    missing = next((path for path in masks if not path.exists()), None)
    if missing is not None:
        raise UserError(f"{image} has no mask {missing}")
    name = f"{nodule.parent.name}/{nodule.name}/{image.stem}"
    return Case(name, nodule.parent.name, partial(load, image, masks, channels, mask_threshold))
