"""How a folder of one's own is laid out: where its images are, where the masks of which rater, of which part.

1. One or more COCO files list images and outlines.
2. Folders hold images, and others beside them the masks. Names are taken apart into words: one says what a folder holds
   (`images`, `masks`, `labels` …), others the part of a split (`train`, `val`, `test` …) and the rater (a number). So
   `train/images` with `train/masks`, `images/train` with `masks/train`, `imagesTr` with `labelsTr`, and `masks-0 …
   masks-3` are all read. One other folder with images, or the source itself, stands in for a folder called images.
3. Images and masks share a folder: `a.jpg` with `a_mask.png`, `a_seg-1.png`, `a.png` or labelme's `a.json`; or they are
   alone in the folder of a case.
4. Masks of DICOM slices may be RT Structure Sets or Segmentations, in a folder of masks.

Nothing is taken because it comes first. What was recognised is said, what could be meant in several ways is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from manymask.data.case import Part
from manymask.data.datasets.annotations import Annotation, LabelmeMask, LabelNames, read_annotation
from manymask.data.datasets.layout_coco import coco_sections
from manymask.data.datasets.layout_dicom import dicom_raters
from manymask.data.datasets.layout_flat import flat_section
from manymask.data.datasets.pairs import Images, Rater, is_image, listed, walk
from manymask.data.datasets.sections import (
    Choice,
    Folder,
    Section,
    alike,
    holds_masks,
    kinds_of,
    masks_below,
    parse,
    part_in,
    part_of,
    raters_of,
    relative,
)
from manymask.errors import InputError
from manymask.io.coco import CocoFile

OTHERS = "masks beside their images (NAME_mask), or a COCO or labelme file"
RATERS = "several raters' folders are called masks-0, masks-1 …"


@dataclass(frozen=True)
class Layout:
    """All images of a folder with their masks. notes: a line for everything that is passed over; said: what was
    recognised, in a line; names: what nnU-Net's dataset.json calls the values of masks."""

    sections: Sequence[Section]
    notes: tuple[str, ...]
    said: str
    names: LabelNames | None = None


@dataclass
class _Found:
    """What lies below a source: folders named for images and masks, which are not looked into, and files elsewhere."""

    folders: list[Folder]
    strays: list[Path]
    lists: list[str]
    annotations: dict[Path, Annotation]

    def of_kind(self, kind: str) -> list[Folder]:
        return [folder for folder in self.folders if folder.kind == kind]

    def masks_in(self, place: Path) -> list[Folder]:
        return self.by_parent.get(place, [])

    @cached_property
    def by_parent(self) -> dict[Path, list[Folder]]:
        found: dict[Path, list[Folder]] = {}
        for folder in self.of_kind("masks"):
            found.setdefault(folder.path.parent, []).append(folder)
        return found


def find_layout(source: Path, choice: Choice = Choice()) -> Layout:
    """The images below `source` with their masks; `InputError` where there are none, or it is not clear which are meant."""
    if not source.is_dir():
        raise InputError(f"{source} is no folder", path=source)
    found = _look(source)
    names = next((each for each in found.annotations.values() if isinstance(each, LabelNames)), None)
    files = _coco_files(source, found, choice)
    if files:
        sections, notes = coco_sections(source, files, [folder.path for folder in found.of_kind("masks")])
    else:
        sections, notes = _folder_sections(source, found, choice)
    sections = alike(sections, bool(choice.names))
    notes += _others(sections)
    notes += dict.fromkeys(note for section in sections for rater in section.raters for note in rater.notes)
    if found.lists:
        notes.append(f"lists of a split are not read: {listed(found.lists)}; use folders")
    return Layout(sections, tuple(notes), _said(sections, names), names)


def _look(source: Path) -> _Found:
    found, inside = _Found([], [], [], {}), set[Path]()
    for place, folders, names in walk(source):
        for path in (place / name for name in names if name.lower().endswith(".json")):
            content = read_annotation(path)
            if content is not None:
                found.annotations[path] = content
        if place in inside:  # of a folder of images or masks: only annotations are looked for
            inside.update(place / name for name in folders)
            continue
        found.folders += [folder for name in folders if (folder := parse(place / name)) is not None]
        inside.update(place / name for name in folders if parse(place / name) is not None)
        found.strays += [place / name for name in names if is_image(place / name)]
        found.lists += [relative(place / name, source) for name in names if _is_list(Path(name))]
    return found if found.folders else _look_closer(found)


def _look_closer(found: _Found) -> _Found:
    """Where no name is plain, folders with images whose long names mention masks hold masks (ISIC's `…_GroundTruth`)."""
    places = dict.fromkeys(path.parent for path in found.strays)
    masks = [place for place in places if kinds_of(place.name) == {"masks"}]
    if not masks or len(masks) == len(places):
        return found
    strays = [path for path in found.strays if path.parent not in masks]
    return replace(found, folders=[Folder(place, "masks", part_in(place.name), "") for place in masks], strays=strays)


def _is_list(path: Path) -> bool:
    return part_of(path.stem) is not None and path.suffix.lower() in (".txt", ".csv", ".lst", "")


def _coco_files(source: Path, found: _Found, choice: Choice) -> list[CocoFile]:
    """The COCO files to read: those chosen, else all of them where no other masks could be meant."""
    files = [content for content in found.annotations.values() if isinstance(content, CocoFile)]
    chosen = [file for file in files if {file.path.name, file.path.stem} & set(choice.names)]
    if not files or chosen or choice.names:
        return chosen
    others = [folder for folder in found.of_kind("masks") if holds_masks(folder.path, found.annotations)]
    if others:
        both = listed([relative(path, source) for path in (files[0].path, others[0].path)])
        raise InputError(f"{source} holds masks in {both}: name the one to take", remedies=("masks",), path=source)
    return files


def _folder_sections(source: Path, found: _Found, choice: Choice) -> tuple[list[Section], list[str]]:
    images = found.of_kind("images") or _stand_ins(source, found)
    pairs = [(folder, _masks_of(folder, found, choice)) for folder in images]
    if any(masks for _, masks in pairs):
        notes = [f"passed over: {folder.path} (no folder of masks beside it)" for folder, masks in pairs if not masks]
        pairs = [(folder, masks) for folder, masks in pairs if masks]
        _refuse_doubles([folder for folder, _ in pairs])
        sections = [_beside(source, folder, masks, found, choice) for folder, masks in pairs]
        taken = {folder.path for folder, _ in pairs} | {mask.path for _, masks in pairs for mask in masks}
        notes += [f"passed over: {mask.path}" for mask in found.of_kind("masks") if mask.path not in taken]
        return sections, notes + _strays(
            source, [path for path in found.strays if not taken.intersection(path.parents)]
        )
    places = images or [Folder(source, "images", None, "")] if found.strays or images else []
    flat = [_flat(source, folder, found, choice) for folder in places]
    sections = [section for section in flat if section is not None]
    if sections:
        without = [folder.path for folder, section in zip(places, flat, strict=True) if section is None]
        notes = [f"passed over: {path} (it holds no masks)" for path in without]
        return sections, notes + (_strays(source, found.strays) if images else [])
    if images and found.of_kind("images"):
        place, name = images[0].path.parent, images[0].path.name
        others = listed(sorted(path.name for path in place.iterdir() if path.name != name), 8)
        inside = f", found {others}" if others else ""
        raise InputError(f"{place}: expected a folder masks beside {name} ({RATERS}), {OTHERS}{inside}", path=place)
    inside = listed(sorted(path.name for path in source.iterdir()), 8) or "nothing"
    raise InputError(
        f"{source}: expected a folder images in it with a folder masks, {OTHERS}, found {inside}", path=source
    )


def _strays(source: Path, strays: Sequence[Path]) -> list[str]:
    if not strays:
        return []
    return [f"{len(strays)} image file(s) passed over: {listed([relative(path, source) for path in strays])}"]


def _stand_ins(source: Path, found: _Found) -> list[Folder]:
    """Where no folder is called images: the one folder beside each folder of masks that holds some, or the one above."""
    images = []
    for above in dict.fromkeys(folder.path.parent for folder in found.of_kind("masks")):
        strays = [path for path in found.strays if path.is_relative_to(above)]
        candidates = list(dict.fromkeys(_child(path, above) for path in strays))
        if len(candidates) > 1:
            names = listed([path.name if path != above else f"{path.name} itself" for path in candidates], 6)
            raise InputError(f"{above} holds images in {names}: call the folder to take images", path=above)
        images += [Folder(path, "images", part_in(path.name) if path != above else None, "") for path in candidates]
    return images


def _child(path: Path, above: Path) -> Path:
    """The folder directly in `above` that holds a file, or `above` itself."""
    first = above / path.relative_to(above).parts[0]
    return above if first == path else first


def _masks_of(images: Folder, found: _Found, choice: Choice) -> list[Folder]:
    """The folders of masks beside a folder of images, or in it where it stands in for one; `InputError` if it is not
    clear which are meant."""
    places = (images.path.parent, images.path) if parse(images.path) is None else (images.path.parent,)
    masks = [f for place in dict.fromkeys(places) for f in found.masks_in(place) if f.part == images.part]
    chosen = [folder for folder in masks if folder.path.name in choice.names]
    if chosen:
        return chosen
    if len(masks) > 1 or choice.names:
        masks = [folder for folder in masks if holds_masks(folder.path, found.annotations)]
    if len(masks) > 1 and choice.names:
        raise InputError(
            f"{images.path.parent} has no folder {listed(choice.names)} of masks",
            parameter="masks",
            path=images.path.parent,
        )
    if len(masks) > 1 and not all(folder.rater.isdecimal() for folder in masks):
        names = listed([folder.path.name for folder in masks], 6)
        raise InputError(
            f"{images.path.parent} holds several folders of masks: {names}; name the one to take, "
            "or one for each rater",
            remedies=("masks",),
            path=images.path.parent,
        )
    return masks


def _beside(source: Path, images: Folder, folders: Sequence[Folder], found: _Found, choice: Choice) -> Section:
    """A section of images in one folder and masks in others: one rater for each folder, or the several of a single one."""
    inside = (
        [folder.path for folder in found.of_kind("masks")] if images.path in {f.path.parent for f in folders} else []
    )
    pictures = Images.below(images.path, inside)
    ending = Choice() if any(folder.path.name in choice.names for folder in folders) else choice
    ending = replace(ending, parts=choice.parts)
    raters: list[Rater] = []
    for folder in folders:
        own = dicom_raters(folder.path, pictures, choice.parts) or raters_of(
            folder.path, masks_below(folder.path, found.annotations), pictures, ending
        )
        if ending.names and not any(rater.masks for rater in own):
            raise InputError(
                f"{images.path.parent} has no folder {listed(ending.names)} of masks, nor masks with such an ending",
                parameter="masks",
                path=images.path.parent,
            )
        if len(folders) > 1 and len(own) > 1:
            raise InputError(
                f"{folder.path} holds masks of several raters, though it is one of several folders of masks"
            )
        raters += [replace(rater, slot=folder.slot) for rater in own] if len(folders) > 1 or len(own) == 1 else own
    polygons = any(isinstance(mask, LabelmeMask) for rater in raters for each in rater.masks.values() for mask in each)
    places = ", ".join(relative(folder.path, source) for folder in folders)
    how = f"images in {relative(images.path, source)}, {'labelme files' if polygons else 'masks'} in {places}"
    return Section(_section_name(source, images), _section_part(source, images), pictures, tuple(raters), how)


def _flat(source: Path, folder: Folder, found: _Found, choice: Choice) -> Section | None:
    if folder.path == source:
        return flat_section(source, source, "", None, found.annotations, choice)
    name, part = _section_name(source, folder), _section_part(source, folder)
    return flat_section(source, folder.path, name, part, found.annotations, choice)


def _refuse_doubles(images: Sequence[Folder]) -> None:
    """Two folders of images beside the same masks: which one is meant?"""
    places: dict[tuple[Path, Part | None], Path] = {}
    for folder in images:
        other = places.setdefault((folder.path.parent, folder.part), folder.path)
        if other != folder.path:
            raise InputError(f"{other} and {folder.path} are both folders of images; leave one of them there")


def _section_name(source: Path, images: Folder) -> str:
    if images.path == source:
        return ""
    inside = images.path.parent.relative_to(source).as_posix()
    return "/".join(name for name in ("" if inside == "." else inside, images.part or "") if name)


def _section_part(source: Path, images: Folder) -> Part | None:
    """By the folder's own name, or that of the nearest folder above it that names a part."""
    if images.path == source:
        return None
    above = images.path.parent.relative_to(source).parts
    return images.part or next((part for name in reversed(above) if (part := part_of(name))), None)


def _others(sections: Sequence[Section]) -> list[str]:
    """A line for each folder of images that holds files of another kind."""
    outlined = {mask.path for s in sections for r in s.raters for each in r.masks.values() for mask in each}
    notes = []
    for images in (section.images for section in sections):
        others = [name for name in images.others if images.folder / name not in outlined]
        if others:
            notes.append(f"{len(others)} file(s) in {images.folder} passed over: {listed(others)}")
    return notes


def _said(sections: Sequence[Section], names: LabelNames | None) -> str:
    """What was recognised: how masks are kept, how many raters there are, whether the images are split."""
    ways = list(dict.fromkeys(section.how for section in sections))
    shown = "; ".join(ways[:3]) + (f"; and {len(ways) - 3} more" if len(ways) > 3 else "")
    raters = len(sections[0].raters)
    who = "one rater" if raters == 1 else f"{raters} raters ({', '.join(r.slot for r in sections[0].raters)})"
    return f"{shown}; {who}" + ("; values named by nnU-Net's dataset.json" if names else "")
