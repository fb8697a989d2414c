"""CVC-ClinicDB (Bernal et al. 2015): 612 colonoscopy frames from 29 video sequences, one mask each.

Layout: DIR[/CVC-ClinicDB]/PNG/{Original, Ground Truth}/N.png, or the same with TIF and .tif, or without that level.
"""

from pathlib import Path

from manymask.data.case import Part, Scheme, Source, random_scheme
from manymask.data.datasets.base import NO_WARRANTY, Dataset, Intended, Licence
from manymask.data.datasets.pairs import find_folder, paired_cases
from manymask.errors import InputError
from manymask.io.dicom.finding import Finding
from manymask.io.masks import MaskReading

# The first frame of each of the 29 sequences, as the set's own metadata gives them.
SEQUENCE_STARTS = (1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384, 409, 429,
                   448, 467, 479, 504, 529, 547, 572, 592)  # fmt: skip
# The 62 test frames of the 550/62 split that PraNet (Fan et al. 2020) made customary.
PRANET_TEST = (14, 21, 25, 31, 42, 50, 52, 61, 65, 66, 73, 80, 89, 100, 106, 119, 134, 148, 154, 163, 166, 171, 179,
               181, 185, 191, 205, 240, 251, 266, 279, 287, 300, 307, 349, 353, 374, 381, 388, 397, 400, 404, 425, 429,
               431, 442, 453, 459, 464, 474, 481, 483, 492, 526, 529, 545, 555, 559, 561, 569, 571, 575)  # fmt: skip

FRAMES = 612

LICENCE = "research and education only, no commercial use; images © Hospital Clinic Barcelona, masks © CVC Barcelona"


def sequence_of(frame: int) -> int:
    """The number (1 … 29) of the video sequence that holds a frame."""
    if not 1 <= frame <= FRAMES:
        raise InputError(f"CVC-ClinicDB has frames 1 … {FRAMES}, not {frame}")
    return sum(start <= frame for start in SEQUENCE_STARTS)


def read(source: Path, channels: int = 3, reading: MaskReading | None = None) -> Source:
    """The official layout. Schemes: `sequence` (default, no leakage), `random` 80/10/10, `pranet` 550/62."""
    images = find_folder(source, "PNG/Original", "TIF/Original", "Original")
    masks = find_folder(source, "PNG/Ground Truth", "TIF/Ground Truth", "Ground Truth")
    cases = paired_cases(images, [masks], channels, reading, group=_sequence_name)
    groups = {case.id: case.group for case in cases}
    singly = {case.id: case.id for case in cases}
    schemes = {"sequence": random_scheme(groups, 42), "random": random_scheme(singly, 42), "pranet": _pranet(singly)}
    remark = "random and pranet put neighbouring frames on both sides"
    return Source("cvc_clinicdb", cases, schemes, LICENCE, remark, given=("pranet",))


def _sequence_name(stem: str) -> str:
    if not stem.isdecimal():
        raise InputError(f"CVC-ClinicDB's frames are named 1.png … {FRAMES}.png, not {stem}")
    return f"seq-{sequence_of(int(stem)):02}"


def _pranet(ids: dict[str, str]) -> Scheme:
    """PraNet's 62 test frames; its 550 training frames have no validation part, so a seeded tenth of them is taken."""
    test = [case for case in ids if int(case) in PRANET_TEST]
    rest = random_scheme({case: case for case in ids if case not in test}, 42, (0.9, 0.1))
    parts: dict[Part, list[str]] = {"train": rest["train"], "val": rest["val"] + rest["test"], "test": sorted(test)}
    return parts


_TERMS = """The weights in this folder were trained on CVC-ClinicDB (Bernal et al., WM-DOVA maps for accurate polyp
highlighting in colonoscopy, Computerized Medical Imaging and Graphics 43: 99-111, 2015), images copyright Hospital
Clinic Barcelona, masks copyright Computer Vision Centre, given for research and education. The weights follow:

For research and education only. No commercial use. Whoever uses them cites the work above.
"""

DATASET = Dataset(
    "cvc_clinicdb",
    read,
    licence=Licence("other", _TERMS + NO_WARRANTY, pictures=False),
    use=Intended(
        "Outlines polyps on a colour frame of a colonoscopy.",
        ("endoscopy",),
        "CVC-ClinicDB: frames of 29 colonoscopy videos, each with a polyp",
    ),
    finding=Finding(("68496003", "Polyp of colon"), ("71854001", "Colon")),
)
