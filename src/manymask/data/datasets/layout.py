"""How a folder of one's own is laid out: which folders hold images, which the masks of which rater, of which part.

Names are taken apart into words: one says what a folder holds (`images`, `masks`, `labels` …), others the part of a split
(`train`, `val`, `test` …) and the rater (a number). So `train/images` with `train/masks`, `images/train` with
`masks/train`, `imagesTr` with `labelsTr`, and `masks-0 … masks-3` are all read. Nothing is taken because it comes first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manymask.data.case import Part
from manymask.data.datasets.pairs import Images, listed, walk
from manymask.errors import InputError
from manymask.io.raster import is_raster

KINDS = {
    "images": ("images", "image", "imgs", "img"),
    "masks": ("masks", "mask", "labels", "label", "segmentations", "segmentation", "annotations", "gt", "groundtruth"),
}
PART_WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
RATER_WORDS = ("reader", "rater", "expert", "annotator")


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
    """Images with the folders of their raters' masks, one a rater; None for a rater who has no folder here."""

    name: str
    part: Part | None
    images: Images
    masks: tuple[Path | None, ...]


def part_of(name: str) -> Part | None:
    """The part of a split that a whole folder name means, or None."""
    return PART_WORDS.get(name.lower())


def parse(path: Path) -> Folder | None:
    """What the name of a folder says, or None if it names neither images nor masks."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", path.name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    joined = " ".join(words).replace("ground truth", "groundtruth").split()
    kinds = {kind for kind, names in KINDS.items() for word in joined if word in names}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    rest = [word for word in joined if word not in KINDS[kind]]
    parts = [PART_WORDS[word] for word in rest if word in PART_WORDS]
    raters = [word for word in rest if word not in PART_WORDS and word not in RATER_WORDS]
    if len(parts) > 1 or len(raters) > 1:
        return None
    return Folder(path, kind, parts[0] if parts else None, raters[0] if raters else "")


def find_sections(source: Path, chosen: Sequence[str] = ()) -> tuple[list[Section], tuple[str, ...]]:
    """All images below `source` with their masks, and a line for everything that is passed over.

    chosen: names of the mask folders to take, where there are several that are not numbered.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder", path=source)
    found, unclaimed = _find_folders(source)
    images = [folder for folder in found if folder.kind == "images"]
    if not images:
        inside = listed(sorted(p.name for p in source.iterdir()), 8) or "nothing"
        raise InputError(f"{source}: expected a folder images in it, found {inside}", path=source)
    pairs = [(folder, _masks_of(folder, found, chosen)) for folder in images]
    notes = [f"passed over: {folder.path} (no folder of masks beside it)" for folder, masks in pairs if not masks]
    pairs = [(folder, masks) for folder, masks in pairs if masks]
    if not pairs:
        raise InputError(f"{images[0].path.parent}: expected a folder masks beside {images[0].path.name}")
    _refuse_doubles([folder for folder, _ in pairs])
    raters = _raters([masks for _, masks in pairs], chosen)
    sections = [
        Section(_section_name(source, folder), _section_part(source, folder), Images.below(folder.path),
                tuple(next((m.path for m in masks if len(raters) == 1 or m.slot == r), None) for r in raters))
        for folder, masks in pairs
    ]  # fmt: skip
    taken = {folder.path for folder, _ in pairs} | {mask.path for _, masks in pairs for mask in masks}
    notes += [f"passed over: {folder.path}" for folder in found if folder.kind == "masks" and folder.path not in taken]
    return sections, tuple(notes + _others(sections) + unclaimed)


def _find_folders(source: Path) -> tuple[list[Folder], list[str]]:
    """The folders of images and of masks, not looked into, and a line for images that lie elsewhere."""
    found, strays, lists = list[Folder](), list[str](), list[str]()
    for place, folders, names in walk(source):
        for name in list(folders):
            folder = parse(place / name)
            if folder is not None:
                found.append(folder)
                folders.remove(name)
        strays += [str((place / name).relative_to(source)) for name in names if is_raster(place / name)]
        lists += [str((place / name).relative_to(source)) for name in names if part_of(Path(name).stem)]
    notes = [f"{len(strays)} image file(s) passed over: {listed(strays)}"] if strays else []
    return found, notes + ([f"lists of a split are not read: {listed(lists)}; use folders"] if lists else [])


def _masks_of(images: Folder, found: Sequence[Folder], chosen: Sequence[str]) -> list[Folder]:
    """The folders of masks beside a folder of images; `InputError` if it is not clear which are meant."""
    beside = [f for f in found if f.kind == "masks" and f.path.parent == images.path.parent and f.part == images.part]
    if chosen:
        beside = [folder for folder in beside if folder.path.name in chosen]
        if not beside:
            raise InputError(
                f"{images.path.parent} has no folder {listed(chosen)} of masks",
                parameter="masks",
                path=images.path.parent,
            )
    elif len(beside) > 1:
        beside = [folder for folder in beside if _holds_images(folder.path)]
    if len(beside) > 1 and not all(folder.rater.isdecimal() for folder in beside) and not chosen:
        names = listed([folder.path.name for folder in beside], 6)
        raise InputError(
            f"{images.path.parent} holds several folders of masks: {names}; name the one to take, "
            "or one for each rater",
            remedies=("masks",),
            path=images.path.parent,
        )
    return beside


def _holds_images(folder: Path) -> bool:
    return any(is_raster(place / name) for place, _, names in walk(folder) for name in names)


def _raters(masks: Sequence[Sequence[Folder]], chosen: Sequence[str]) -> list[str]:
    """The raters of all sections, in order; one where each section has a single folder."""
    if all(len(each) == 1 for each in masks):
        return [masks[0][0].slot]
    names = {folder.slot for each in masks for folder in each}
    if not chosen and not all(name.isdecimal() for name in names):
        paths = listed(sorted(folder.path for each in masks for folder in each))
        raise InputError(f"some folders of masks are numbered, others are not: {paths}; name them alike, one a rater")
    return sorted(names, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))


def _refuse_doubles(images: Sequence[Folder]) -> None:
    """Two folders of images beside the same masks: which one is meant?"""
    places: dict[tuple[Path, Part | None], Path] = {}
    for folder in images:
        other = places.setdefault((folder.path.parent, folder.part), folder.path)
        if other != folder.path:
            raise InputError(f"{other} and {folder.path} are both folders of images; leave one of them there")


def _section_name(source: Path, images: Folder) -> str:
    inside = images.path.parent.relative_to(source).as_posix()
    return "/".join(name for name in ("" if inside == "." else inside, images.part or "") if name)


def _section_part(source: Path, images: Folder) -> Part | None:
    """By the folder's own name, or that of the nearest folder above it that names a part."""
    above = images.path.parent.relative_to(source).parts
    return images.part or next((part for name in reversed(above) if (part := part_of(name))), None)


def _others(sections: Sequence[Section]) -> list[str]:
    """A line for each folder of images that holds files of another kind."""
    return [
        f"{len(s.images.others)} file(s) in {s.images.folder} passed over: {listed(s.images.others)}"
        for s in sections
        if s.images.others
    ]
