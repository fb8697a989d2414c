"""Polyps by the protocol of PraNet (Fan et al. 2020): 900 frames of Kvasir-SEG and 550 of CVC-ClinicDB to train, frames of
the same and of other hospitals to test.

Layout: DIR[/PraNet]/TrainDataset/{image,mask} and TestDataset/{Kvasir,CVC-ClinicDB,CVC-ColonDB,CVC-300}/{images,masks};
`images`/`masks` is read as well. CVC-300 is frames 149 … 208 of CVC-ColonDB, so it is a scheme, not further cases.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from manymask.data.case import Case, Part, Scheme, Source, random_scheme
from manymask.data.datasets.base import NO_WARRANTY, PHOTO, Dataset, Intended, Licence
from manymask.data.datasets.cvc_clinicdb import sequence_of
from manymask.data.datasets.pairs import find_folder, paired_cases
from manymask.errors import InputError
from manymask.io.dicom.finding import Finding
from manymask.io.masks import MaskReading

# The first frame of each of the 15 videos of CVC-ColonDB, as the set's own metadata gives them.
COLONDB_STARTS = (1, 39, 61, 77, 98, 149, 156, 204, 209, 264, 274, 301, 321, 341, 361)
CVC_300 = range(149, 209)

LICENCE = "research and education only, no commercial use; Kvasir-SEG © Simula, CVC © Hospital Clinic Barcelona and CVC"
REMARK = (
    "57 of the 62 test frames of CVC-ClinicDB come from videos that are in training, with pranet_all_videos all of them; "
    "CVC-ColonDB and CVC-300 were recorded elsewhere; CVC-300 is part of CVC-ColonDB"
)


def read(source: Path, channels: int = 3, reading: MaskReading | None = None) -> Source:
    """Scheme `pranet` tests on every frame once; `kvasir`, `cvc_clinicdb`, `colondb`, `colondb_320` (without CVC-300) and
    `cvc_300` share its training and validation parts. Validation: a seeded tenth of the training frames, whole videos.
    `pranet_all_videos` also trains on two thirds of the frames of those videos: all videos are then in training, as PraNet has
    it, and its validation frames of CVC-ClinicDB are of known videos."""

    def part(folder: str, name: Callable[[str], tuple[str, str]]) -> list[Case]:
        found = find_folder(source, folder)
        images, masks = find_folder(found, "images", "image"), find_folder(found, "masks", "mask")
        cases = paired_cases(images, [masks], channels, reading)
        return [replace(case, id=name(case.id)[0], group=name(case.id)[1]) for case in cases]

    training = part("TrainDataset", _training_name)
    tests: dict[str, list[Case]] = {
        "kvasir": part("TestDataset/Kvasir", _kvasir_name),
        "cvc_clinicdb": part("TestDataset/CVC-ClinicDB", _clinicdb_name),
        "colondb": part("TestDataset/CVC-ColonDB", _colondb_name),
    }
    every = [case for cases in tests.values() for case in cases]
    held_out = {name: [case.id for case in cases] for name, cases in tests.items()}
    inner = {f"colondb-{n}" for n in CVC_300}
    held_out["colondb_320"] = [case for case in held_out["colondb"] if case not in inner]
    held_out["cvc_300"] = [case for case in held_out["colondb"] if case in inner]
    schemes = _schemes({case.id: case.group for case in training}, {"pranet": [c.id for c in every]} | held_out)
    schemes["pranet_all_videos"] = _all_videos(schemes["pranet"])
    return Source("polyps", [*training, *every], schemes, LICENCE, REMARK, given=tuple(schemes))


def _schemes(training: Mapping[str, str], tests: Mapping[str, list[str]]) -> dict[str, Scheme]:
    """The same training and validation parts beside each test part."""
    cut = random_scheme(training, 42, (0.9, 0.1))
    fixed: dict[Part, list[str]] = {"train": cut["train"], "val": sorted(cut["val"] + cut["test"])}
    return {name: {**fixed, "test": sorted(test)} for name, test in tests.items()}


def _all_videos(pranet: Scheme) -> Scheme:
    """Every third validation frame of CVC-ClinicDB stays one; the others are learnt too."""
    videos = [case for case in pranet["val"] if case.startswith("clinicdb-")]
    kept = sorted(set(pranet["val"]) - set(videos) | set(videos[::3]))
    learnt = sorted(set(videos) - set(kept))
    return {"train": pranet["train"] + learnt, "val": kept, "test": pranet["test"]}


def _training_name(stem: str) -> tuple[str, str]:
    return _clinicdb_name(stem) if stem.isdecimal() else _kvasir_name(stem)


def _kvasir_name(stem: str) -> tuple[str, str]:
    return f"kvasir-{stem}", f"kvasir-{stem}"


def _clinicdb_name(stem: str) -> tuple[str, str]:
    return f"clinicdb-{_frame(stem)}", f"clinicdb-seq-{sequence_of(_frame(stem)):02}"


def _colondb_name(stem: str) -> tuple[str, str]:
    return f"colondb-{_frame(stem)}", f"colondb-seq-{sum(start <= _frame(stem) for start in COLONDB_STARTS):02}"


def _frame(stem: str) -> int:
    if not stem.isdecimal():
        raise InputError(f"frames of the CVC sets are named by numbers, as in 149.png, not {stem}")
    return int(stem)


_TERMS = """The weights in this folder were trained on Kvasir-SEG (Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia
Modeling 2020, 451-462; given for research and education) and on CVC-ClinicDB (Bernal et al., WM-DOVA maps for accurate
polyp highlighting in colonoscopy, Computerized Medical Imaging and Graphics 43: 99-111, 2015; images copyright Hospital
Clinic Barcelona, masks copyright Computer Vision Centre, given for research and education). The weights follow:

For research and education only. No commercial use. Whoever uses them cites the works above.
"""

DATASET = Dataset(
    "polyps",
    read,
    licence=Licence("other", _TERMS + NO_WARRANTY, pictures=False),
    use=Intended(
        "Outlines polyps on a colour frame of a colonoscopy.",
        ("endoscopy",),
        "Kvasir-SEG and CVC-ClinicDB: frames of colonoscopies, each with a polyp",
    ),
    finding=Finding(("68496003", "Polyp of colon"), ("71854001", "Colon")),
    # endoscopes show much that is no polyp, small polyps, and frames within black borders
    augment=replace(PHOTO, zoom=0.2, inset=0.15),
)
