"""A folder of one's own: DIR/images with DIR/masks, or DIR/masks-0 … masks-k for several raters, paired by name.

`layout.py` says what else is read: the owner's train, val and test folders become the scheme `given`. Where all names
hold a `__`, what stands before it is the group (the patient, say) and never crosses a split.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from manymask.data.case import PARTS, Case, Part, Scheme, Source, random_scheme
from manymask.data.datasets.annotations import chosen_labels, without_any
from manymask.data.datasets.base import Dataset, Option
from manymask.data.datasets.groups import MARK, groups_of
from manymask.data.datasets.layout import find_layout
from manymask.data.datasets.pairs import listed, paired_cases
from manymask.data.datasets.sections import Choice, Section, part_of
from manymask.errors import InputError
from manymask.io.masks import MaskReading

LICENCE = "as given by the owner of the images"
FEWEST = 3


def read(
    source: Path,
    channels: int = 3,
    reading: MaskReading | None = None,
    masks: Sequence[str] = (),
    parts: bool = False,
    window: str = "header",
) -> Source:
    """Any number of raters ≥ 1. Scheme `given` where the owner split the images, else `random`: whole groups, 80/10/10,
    seed 42. masks, parts: as `Choice` has them; window: the grey values of DICOM that are shown."""
    found = _find(source, channels, reading or MaskReading(), Choice(tuple(masks), parts), window, strict=True)
    if len(found.cases) < FEWEST:
        raise InputError(
            f"{source} holds {len(found.cases)} images; at least 3 are needed, one each to train, validate, test",
            path=source,
        )
    if found.parts:
        scheme, more = _given(source, found.cases, found.parts)
        notes = (*found.notes, *more)
        return Source(
            "folder", found.cases, {"given": scheme}, LICENCE, given=("given",), notes=notes, layout=found.said
        )
    scheme = random_scheme({case.id: case.group for case in found.cases}, 42)
    empty = [part for part, ids in scheme.items() if not ids]
    if empty:
        raise InputError(f"{source}: too few groups for a split, {' and '.join(empty)} would be empty", path=source)
    return Source("folder", found.cases, {"random": scheme}, LICENCE, notes=found.notes, layout=found.said)


def read_to_score(
    source: Path,
    channels: int,
    reading: MaskReading | None = None,
    masks: Sequence[str] = (),
    parts: bool = False,
    window: str = "header",
) -> Source:
    """The same, to be scored as a whole: scheme `all` has every image in `test`; scheme `given` is the owner's split."""
    found = _find(source, channels, reading or MaskReading(), Choice(tuple(masks), parts), window, strict=False)
    schemes: dict[str, Scheme] = {"all": {"train": [], "val": [], "test": sorted(case.id for case in found.cases)}}
    if found.parts:
        schemes["given"] = {part: sorted(c for c, own in found.parts.items() if own == part) for part in PARTS}
    return Source("folder", found.cases, schemes, LICENCE, given=tuple(schemes), notes=found.notes, layout=found.said)


@dataclass(frozen=True)
class _Found:
    """The cases of a folder, the part of each where the owner split them, and what is to be said."""

    cases: list[Case]
    parts: dict[str, Part]
    notes: tuple[str, ...]
    said: str


def _find(source: Path, channels: int, reading: MaskReading, choice: Choice, window: str, strict: bool) -> _Found:
    layout = find_layout(source, choice)
    masks = [mask for s in layout.sections for rater in s.raters for each in rater.masks.values() for mask in each]
    reading = chosen_labels(masks, layout.names, reading)
    cases, parts = _cases(source, layout.sections, channels, reading, window)
    cases, grouping = _grouped(source, cases, strict)
    split = ", ".join(f"{sum(own == part for own in parts.values())} {part}" for part in PARTS)
    said = f"{layout.said}; split by the owner: {split}" if parts else layout.said
    return _Found(cases, parts, (*layout.notes, *without_any(masks, reading), *grouping), said)


def _cases(
    source: Path, sections: Sequence[Section], channels: int, reading: MaskReading, window: str
) -> tuple[list[Case], dict[str, Part]]:
    """The cases of all sections, and the part of each where the owner split them; names start with their section's."""
    cases, parts, unsplit = list[Case](), dict[str, Part](), set[str]()
    for section in sections:
        prefix = f"{section.name}/" if len(sections) > 1 and section.name else ""
        for case in paired_cases(section.images, section.raters, channels, reading, window=window):
            first = case.id.split("/")[0]
            part = section.part if len(sections) > 1 else (part_of(first) if "/" in case.id else None)
            group = prefix + case.group
            cases.append(replace(case, id=prefix + case.id, group=group))
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


def _grouped(source: Path, cases: Sequence[Case], strict: bool) -> tuple[list[Case], list[str]]:
    """The cases with their groups, and what is to be said of these; strict: names of which only some hold a `__` are refused."""
    names = [PurePosixPath(case.id).name for case in cases]
    lone = [name for name in names if MARK not in name]
    if strict and 0 < len(lone) < len(cases):
        raise InputError(
            f"{source}: some names hold a `{MARK}` (patient before it), others don't ({lone[0]}, …); make them alike",
            path=source,
        )
    groups, notes = groups_of({case.id: case.group for case in cases})
    return [replace(case, group=groups[case.id]) for case in cases], notes


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
            "masks",
            tuple[str, ...],
            (),
            "where several could be meant: the folders of masks, the COCO files, or the endings of mask files (`seg` of "
            "`a_seg.png`, or `labelme`) to take; one for each rater.",
        ),
        Option("parts", bool, False, "several masks of one image are parts of one mask, not of several raters."),
    ),
    users_own=True,
)
