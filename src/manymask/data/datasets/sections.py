"""What the names of folders say, and the sections of a data set: images with the masks of their raters."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manymask.data.case import Part
from manymask.data.datasets.annotations import Annotation, LabelmeMask, Mask, MaskFile, Parts
from manymask.data.datasets.pairs import (
    RATER_WORDS,
    Images,
    Rater,
    bare_name,
    image_of,
    is_image,
    listed,
    safe_name,
    walk,
)
from manymask.errors import InputError
from manymask.io.labelme import LabelmeFile

KINDS = {
    "images": ("images", "image", "imgs", "img"),
    "masks": ("masks", "mask", "labels", "label", "labelme", "segmentations", "segmentation", "annotations", "gt",
              "groundtruth"),
}  # fmt: skip
PART_WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}


@dataclass(frozen=True)
class Folder:
    """A folder of images or masks, by the words of its name."""

    path: Path
    kind: str
    part: Part | None
    rater: str  # what its name says beyond kind and part: nothing, a number, or a word

    @property
    def slot(self) -> str:
        """The rater's number, or the whole name of a folder without one."""
        return self.rater if self.rater.isdecimal() else self.path.name.lower()


@dataclass(frozen=True)
class Section:
    """Images with the masks of their raters, the same raters in each section; how: where they lie, in words."""

    name: str
    part: Part | None
    images: Images
    raters: tuple[Rater, ...]
    how: str


@dataclass(frozen=True)
class Choice:
    """What a user says of a layout that could be meant in several ways.

    names: of mask folders, COCO files or endings of mask files (`seg` of `a_seg.png`), one a rater; parts: whether several
    masks of an image are parts of one mask.
    """

    names: tuple[str, ...] = ()
    parts: bool = False


def words_of(name: str) -> list[str]:
    """A name in words, in lower case."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    return " ".join(words).replace("ground truth", "groundtruth").split()


def part_of(name: str) -> Part | None:
    """The part of a split that a whole folder name means, or None."""
    return PART_WORDS.get(name.lower())


def part_in(name: str) -> Part | None:
    """The part that a name mentions, if it is one."""
    parts = {PART_WORDS[word] for word in words_of(name) if word in PART_WORDS}
    return parts.pop() if len(parts) == 1 else None


def kinds_of(name: str) -> set[str]:
    """What the words of a folder's name say that it holds."""
    return {kind for kind, names in KINDS.items() for word in words_of(name) if word in names}


def parse(path: Path) -> Folder | None:
    """What the name of a folder says, or None if it names neither images nor masks."""
    joined, kinds = words_of(path.name), kinds_of(path.name)
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    rest = [word for word in joined if word not in KINDS[kind]]
    parts = [PART_WORDS[word] for word in rest if word in PART_WORDS]
    raters = [word for word in rest if word not in PART_WORDS and word not in RATER_WORDS]
    if len(parts) > 1 or len(raters) > 1:
        return None
    return Folder(path, kind, parts[0] if parts else None, raters[0] if raters else "")


def relative(path: Path, source: Path) -> str:
    """A path below the source, as it is shown."""
    return safe_name(path.relative_to(source).as_posix()) if path != source else safe_name(source.name)


def masks_below(folder: Path, annotations: Mapping[Path, Annotation]) -> dict[str, list[Mask]]:
    """All masks below a folder by their own names: images, and labelme files."""
    found: dict[str, list[Mask]] = {}
    for place, _, names in walk(folder):
        for path in (place / name for name in names):
            mask = mask_in(path, annotations)
            if mask is not None:
                found.setdefault(safe_name(bare_name(path.relative_to(folder))), []).append(mask)
    return found


def mask_in(path: Path, annotations: Mapping[Path, Annotation]) -> Mask | None:
    """The mask that a file is, if it can be one."""
    content = annotations.get(path)
    if isinstance(content, LabelmeFile):
        return LabelmeMask(content)
    return MaskFile(path) if is_image(path) else None


def holds_masks(folder: Path, annotations: Mapping[Path, Annotation]) -> bool:
    """Whether there is any mask below a folder."""
    return any(mask_in(place / name, annotations) for place, _, names in walk(folder) for name in names)


def raters_of(place: Path, masks: Mapping[str, Sequence[Mask]], images: Images, choice: Choice) -> list[Rater]:
    """The raters of masks that lie in one place, by the numbers in the masks' names; a single one without numbers."""
    slots: dict[str, dict[str, list[Mask]]] = {}
    for file_name, found in sorted(masks.items()):
        own = outlined_image(file_name, found, images)
        name, slot = image_of(own, images.by_name, choice.names)
        if name == own and own not in images.by_name and choice.names:
            continue  # its ending was not chosen
        slots.setdefault("" if choice.parts else slot, {}).setdefault(name, []).extend(found)
    lone = {name: slots[""].pop(name) for name in list(slots.get("", {})) if name not in images.by_name}
    slots = {slot: by_name for slot, by_name in slots.items() if by_name}
    if "" in slots and len(slots) > 1:
        raise _unclear_numbers(slots)
    if choice.parts:
        slots = {slot: {name: _joined(each) for name, each in by_name.items()} for slot, by_name in slots.items()}
    raters = [Rater(place, slot, by_name) for slot, by_name in sorted(slots.items(), key=lambda item: order(item[0]))]
    first = raters[0] if raters else Rater(place, "", {})
    return [replace(first, masks={**first.masks, **lone}), *raters[1:]]


def outlined_image(own: str, masks: Sequence[Mask], images: Images) -> str:
    """The image that a labelme file names, where none has the file's own name; else the masks' own name."""
    first = masks[0]
    if own in images.by_name or not isinstance(first, LabelmeMask):
        return own
    folder = own.rpartition("/")[0]
    named = safe_name(bare_name(Path(folder) / first.file.image))
    return named if named in images.by_name else own


def order(slot: str) -> tuple[int, str]:
    """Raters in order: numbers by value, then names."""
    return (int(slot), "") if slot.isdecimal() else (-1, slot)


def _joined(masks: list[Mask]) -> list[Mask]:
    return [Parts(tuple(masks))] if len(masks) > 1 else masks


def _unclear_numbers(slots: Mapping[str, Mapping[str, Sequence[Mask]]]) -> InputError:
    plain = next(iter(slots[""].values()))[0].path
    numbered = next(iter(next(by_name for slot, by_name in slots.items() if slot).values()))[0].path
    return InputError(
        f"{plain} has no number, {numbered.name} has one: if they are of several raters, number all of them; if they are "
        "parts of one mask, say so",
        remedies=("parts",),
        path=plain,
    )


def alike(sections: Sequence[Section], chosen: bool) -> list[Section]:
    """The sections with the same raters each: one where each has one, else one for every number or name."""
    if all(len(section.raters) == 1 for section in sections):
        return list(sections)
    names = {rater.slot for section in sections for rater in section.raters}
    if not chosen and not all(name.isdecimal() for name in names):
        paths = listed(sorted({rater.place for section in sections for rater in section.raters}))
        raise InputError(f"some folders of masks are numbered, others are not: {paths}; name them alike, one a rater")
    slots = sorted(names, key=order)
    return [
        replace(section, raters=tuple(
            next((rater for rater in section.raters if rater.slot == slot), Rater(section.images.folder, slot, {}))
            for slot in slots))
        for section in sections
    ]  # fmt: skip
