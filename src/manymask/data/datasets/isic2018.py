"""ISIC-2018 Task 1 (Codella et al. 2019): dermoscopic images with one lesion mask each.

Layout: DIR[/ISIC2018]/ISIC2018_Task1-2_{Training,Validation,Test}_Input/ISIC_*.jpg and
ISIC2018_Task1_{Training,Validation,Test}_GroundTruth/ISIC_*_segmentation.png. A copy with the training part alone
gets a seeded 80/10/10 split of the training ids, and says so.
"""

from pathlib import Path

from manymask.data.case import Case, Part, Scheme, Source, random_scheme
from manymask.data.datasets.base import NO_WARRANTY, Dataset, Intended, Licence
from manymask.data.datasets.pairs import find_folder, paired_cases
from manymask.errors import ManymaskError
from manymask.io.dicom.finding import Finding
from manymask.io.masks import MaskReading

PARTS: tuple[tuple[Part, str], ...] = (("train", "Training"), ("val", "Validation"), ("test", "Test"))


def read(source: Path, channels: int = 3, reading: MaskReading | None = None) -> Source:
    """The official layout. Scheme `official` if all three parts are there, else `training-ids` (80/10/10, seed 42)."""
    found: dict[Part, list[Case]] = {}
    for part, name in PARTS:
        try:
            images = find_folder(source, f"ISIC2018_Task1-2_{name}_Input")
            masks = find_folder(source, f"ISIC2018_Task1_{name}_GroundTruth")
        except ManymaskError:
            if part == "train":
                raise
            continue
        found[part] = paired_cases(images, [masks], channels, reading)
    training = random_scheme({case.id: case.id for case in found["train"]}, 42)
    schemes: dict[str, Scheme] = {"training-ids": training}
    remark = "split of the training ids (80/10/10, seed 42); the official validation and test parts were not given"
    if len(found) == len(PARTS):
        official: Scheme = {part: [case.id for case in cases] for part, cases in found.items()}
        schemes, remark = {"official": official, "training-ids": training}, ""
    cases = [case for part in found.values() for case in part]
    return Source("isic2018", cases, schemes, "CC0-1.0 (ISIC Archive)", remark, given=("official",))


_TERMS = """The weights in this folder were trained on the ISIC-2018 Task 1 training images and masks (ISIC Archive; Codella et
al. 2019, Tschandl et al. 2018), which are released under CC0 1.0. The weights are released under the same terms:

Creative Commons CC0 1.0 Universal, https://creativecommons.org/publicdomain/zero/1.0/

To the extent possible under law, the authors waive all copyright and related rights in these weights.
"""

DATASET = Dataset(
    "isic2018",
    read,
    licence=Licence("cc0-1.0", _TERMS + NO_WARRANTY, pictures=True),
    use=Intended(
        "Outlines one skin lesion on a dermoscopic colour image.",
        ("dermoscopy",),
        "ISIC 2018 Task 1: dermoscopic images of skin lesions",
    ),
    finding=Finding(("95324001", "Skin lesion"), ("39937001", "Skin")),
)
