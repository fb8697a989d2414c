"""A folder of one's own: DIR/images with DIR/masks, or DIR/masks-0 … masks-k for several raters, paired by name.

`layout.py` says what else is read: the owner's train, val and test folders become the scheme `given`. Where all names
hold a `__`, what stands before it is the group (the patient, say) and never crosses a split.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from manymask.data.case import PARTS, Case, Part, Scheme, Source, random_scheme
from manymask.data.datasets.base import Dataset, Option
from manymask.data.datasets.layout import Section, find_sections, part_of
from manymask.data.datasets.pairs import listed, paired_cases
from manymask.errors import InputError
from manymask.io.masks import MaskReading

LICENCE = "as given by the owner of the images"
FEWEST = 3
FOLDER_GROUPS = 10  # so many sub-folders are taken for patients, fewer for classes


def read(source: Path, channels: int = 3, reading: MaskReading | None = None, masks: Sequence[str] = ()) -> Source:
    """Any number of raters ≥ 1. Scheme `given` where the owner split the images, else `random`: whole groups, 80/10/10,
    seed 42. `masks` names the mask folders to take, where it is not clear which are meant."""
    sections, notes = find_sections(source, masks)
    cases, parts = _cases(source, sections, channels, reading)
    if len(cases) < FEWEST:
        raise InputError(
            f"{source} holds {len(cases)} images; at least 3 are needed, one each to train, validate, test",
            path=source,
        )
    cases, grouping = _grouped(source, cases)
    notes = (*notes, *grouping)
    if parts:
        scheme, more = _given(source, cases, parts)
        return Source("folder", cases, {"given": scheme}, LICENCE, given=("given",), notes=(*notes, *more))
    scheme = random_scheme({case.id: case.group for case in cases}, 42)
    empty = [part for part, ids in scheme.items() if not ids]
    if empty:
        raise InputError(f"{source}: too few groups for a split, {' and '.join(empty)} would be empty", path=source)
    return Source("folder", cases, {"random": scheme}, LICENCE, notes=notes)


def _cases(
    source: Path, sections: Sequence[Section], channels: int, reading: MaskReading | None
) -> tuple[list[Case], dict[str, Part]]:
    """The cases of all sections, and the part of each where the owner split them; names start with their section's."""
    cases, parts, unsplit = list[Case](), dict[str, Part](), set[str]()
    for section in sections:
        prefix = f"{section.name}/" if len(sections) > 1 and section.name else ""
        for case in paired_cases(section.images, section.masks, channels, reading):
            first = case.id.split("/")[0]
            part = section.part if len(sections) > 1 else (part_of(first) if "/" in case.id else None)
            cases.append(replace(case, id=prefix + case.id))
            if part is None:
                unsplit.add(str(section.images.folder / first if "/" in case.id else section.images.folder))
            else:
                parts[prefix + case.id] = part
    if len(sections) > 1 and unsplit:
        folders = listed(sorted(str(section.images.folder) for section in sections), 6)
        raise InputError(
            f"{source} holds several folders of images: {folders}; give one of them as the source, call the folders "
            "train, val and test, or move what belongs together into images/NAME and masks/NAME",
            remedies=("source",),
            path=source,
        )
    if len(set(parts.values())) < 2:
        return cases, {}
    if unsplit:
        raise InputError(
            f"{source} is split into folders, but {listed(sorted(unsplit))} is neither train, val nor test",
            path=source,
        )
    return cases, parts


def _grouped(source: Path, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """The cases with their groups: by `__` in the names, else by many sub-folders, else each its own; and what was done."""
    stems = {case.id: PurePosixPath(case.id).name for case in cases}
    lone = [stem for stem in stems.values() if "__" not in stem]
    if lone and len(lone) < len(cases):
        raise InputError(
            f"{source}: some names hold a `__` (patient before it), others don't ({lone[0]}, …); make them alike",
            path=source,
        )
    if not lone:
        return [replace(case, group=stems[case.id].split("__")[0]) for case in cases], []
    above = {case.id: PurePosixPath(case.id).parent.as_posix() for case in cases}
    folders = {folder for folder in above.values() if folder != "." and part_of(PurePosixPath(folder).name) is None}
    if len(folders) < 2:
        return [replace(case, group=case.id) for case in cases], []
    if len(folders) < FOLDER_GROUPS:
        note = f"images lie in {len(folders)} sub-folders, which a split may cut; if they are patients, name files PATIENT__…"
        return [replace(case, group=case.id) for case in cases], [note]
    note = f"the {len(folders)} sub-folders are taken as groups (patients, say): none crosses the split"
    return [replace(case, group=above[case.id] if above[case.id] in folders else case.id) for case in cases], [note]


def _given(source: Path, cases: Sequence[Case], parts: dict[str, Part]) -> tuple[Scheme, list[str]]:
    """The owner's split. Without a validation part, a seeded tenth of the training groups validates."""
    scheme: dict[Part, list[str]] = {part: sorted(c for c, own in parts.items() if own == part) for part in PARTS}
    if not scheme["train"]:
        raise InputError(f"{source} has a part to test but none to train: expected a folder train", path=source)
    groups, notes = {case.id: case.group for case in cases}, list[str]()
    if not scheme["val"]:
        cut = random_scheme({case: groups[case] for case in scheme["train"]}, 42, (0.9, 0.1))
        scheme |= {"train": cut["train"], "val": sorted(cut["val"] + cut["test"])}
        notes.append(f"no validation part is given: {len(scheme['val'])} of the training images validate")
    if not scheme["test"]:
        notes.append("no test part is given: only the validation part can be scored")
    crossing = Counter(group for group, _ in {(groups[case], part) for part in PARTS for case in scheme[part]})
    shared = sorted(group for group, count in crossing.items() if count > 1)
    if shared:
        notes.append(
            f"{len(shared)} group(s) lie in several parts of the given split ({listed(shared)}): scores are too good"
        )
    return scheme, notes


DATASET = Dataset(
    "folder",
    read,
    options=(
        Option(
            "masks", tuple[str, ...], (), "the mask folders to take where several could be meant; one for each rater."
        ),
    ),
    users_own=True,
)
