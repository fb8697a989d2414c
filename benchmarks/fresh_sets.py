"""Four small public sets as folders of images and binary masks, as `manymask train` takes them.

python benchmarks/fresh_sets.py wbc DIR OUT     likewise qubiq-kidney, acdc-slices, drishti-gs1; DIR holds the set's own layout

wbc: the whole cell. qubiq-kidney: three raters. acdc-slices: the left ventricle, grouped by patient. drishti-gs1: the
optic disc on full frames, where at least half of the experts marked it, in the official split (a tenth of its training
part validates).
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from manymask.errors import InputError

Mask = tuple[str, Path, Callable[[np.ndarray], np.ndarray]]  # folder, file, and what of it is foreground
Case = tuple[str, Path, list[Mask]]  # name with its part of a split, image, masks


def anything(pixels: np.ndarray) -> np.ndarray:
    """Whatever is not black."""
    return pixels > 0


def left_ventricle(pixels: np.ndarray) -> np.ndarray:
    """Label 3 of ACDC."""
    return pixels == 3


def half_of_experts(pixels: np.ndarray) -> np.ndarray:
    """Where at least two of the four experts of Drishti-GS1 marked."""
    return pixels >= 2


def wbc(source: Path) -> Iterator[Case]:
    """Dataset 1 and 2: NNN.png is the mask of NNN.webp (or .bmp)."""
    for mask in sorted(source.rglob("*.png")):
        image = next(path for path in map(mask.with_suffix, (".webp", ".bmp")) if path.exists())
        yield f"{mask.parent.name[-1]}-{mask.stem}", image, [("masks", mask, anything)]


def qubiq(source: Path) -> Iterator[Case]:
    """caseNN/image.png with task01_segNN.png of three raters."""
    for image in sorted(source.rglob("image.png")):
        masks = sorted(image.parent.glob("task01_seg*.png"))
        yield image.parent.name, image, [(f"masks-{k}", mask, anything) for k, mask in enumerate(masks)]


def acdc(source: Path) -> Iterator[Case]:
    """patientNNN/…_gt.png beside each slice."""
    for mask in sorted(source.rglob("*_gt.png")):
        image = mask.with_name(mask.name.replace("_gt.png", ".png"))
        name = image.stem.replace("_", "__", 1)
        yield name, image, [("masks", mask, left_ventricle)]


def drishti(source: Path) -> Iterator[Case]:
    """Training|Test/Images/NAME_disc.png beside each full frame."""
    for mask in sorted(source.rglob("Images/*_disc.png")):
        image = next(path for path in mask.parent.glob(mask.name.replace("_disc.png", ".*")))
        part = "test" if "test" in mask.parts[-3].lower() else "train"
        yield f"{part}/{image.stem}", image, [("masks", mask, half_of_experts)]


SETS = {"wbc": wbc, "qubiq-kidney": qubiq, "acdc-slices": acdc, "drishti-gs1": drishti}


def lay_out(name: str, source: Path, out: Path) -> int:
    """Writes OUT/[PART/]images and OUT/[PART/]masks…; returns the number of cases."""
    cases = list(SETS[name](source))
    for case, image, masks in cases:
        part, _, stem = case.rpartition("/")
        for folder, path, chosen in [("images", image, None), *masks]:
            place = out / part / folder / f"{stem}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as opened:
                if chosen is None:
                    opened.save(place)
                else:
                    Image.fromarray(np.uint8(255) * chosen(np.asarray(opened.convert("L")))).save(place)
    if not cases:
        raise InputError(f"{source} holds nothing of {name}", path=source)
    return len(cases)


if __name__ == "__main__":
    name, source, out = sys.argv[1:]
    print(f"{lay_out(name, Path(source), Path(out))} cases → {out}")
