"""A folder of one's own: DIR/images with DIR/masks, or DIR/masks-0 … masks-k for several readers, paired by name.

Where all names hold a `__`, what stands before it is the group (the patient, say) and never crosses a split.
"""

from pathlib import Path

from manymask.data.case import Source, random_scheme
from manymask.data.pairs import by_stem, find_folder, paired_cases
from manymask.errors import UserError


def read(source: Path, channels: int = 3, mask_threshold: int | None = None) -> Source:
    """Any number of readers ≥ 1. Scheme `random`: whole groups, 80/10/10, seed 42."""
    images = find_folder(source, "images")
    readers = sorted(p for p in images.parent.glob("masks-*") if p.is_dir())
    if not readers:
        readers = [find_folder(source, "masks", "masks-0")]
    lone = [stem for stem in by_stem(images) if "__" not in stem]
    grouped = not lone
    if lone and len(lone) < len(by_stem(images)):
        raise UserError(
            f"{images}: some names hold a `__` (patient before it), others don't ({lone[0]}, …); make them alike"
        )
    cases = paired_cases(
        images, readers, channels, mask_threshold, mask_suffix="_mask", group=_before_underscores if grouped else str
    )
    if len(cases) < 3:
        raise UserError(f"{images} holds {len(cases)} images; at least 3 are needed, one each to train, validate, test")
    groups = {case.id: case.group for case in cases}
    scheme = random_scheme(groups, 42)
    empty = [part for part, ids in scheme.items() if not ids]
    if empty:
        raise UserError(f"{images}: too few groups for a split, {' and '.join(empty)} would be empty")
    return Source("folder", cases, {"random": scheme}, "as given by the owner of the images")


def _before_underscores(stem: str) -> str:
    return stem.split("__")[0]
