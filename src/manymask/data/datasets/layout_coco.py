"""Images and outlines that COCO files list: one file for each part of a split, or one for each rater."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from manymask.data.case import Part
from manymask.data.datasets.annotations import CocoMask, Mask
from manymask.data.datasets.pairs import Images, Rater, bare_name, listed, safe_name
from manymask.data.datasets.sections import Section, part_in, part_of, relative
from manymask.errors import InputError
from manymask.io.coco import CocoFile


def coco_sections(source: Path, files: Sequence[CocoFile], masks: Sequence[Path]) -> tuple[list[Section], list[str]]:
    """A section for each part that the files' names or folders mention, and lines for images that no file lists.

    masks: folders that hold masks, where no image is looked for.
    """
    everything = Images.below(source, masks)
    by_file: dict[str, list[Path]] = {}
    for paths in everything.by_name.values():
        for path in paths:
            by_file.setdefault(path.name, []).append(path)
    parts: dict[Part | None, list[CocoFile]] = {}
    for file in files:
        parts.setdefault(_part_of(file, source), []).append(file)
    sections = [_section(source, part, of_part, by_file) for part, of_part in parts.items()]
    taken = {path for section in sections for paths in section.images.by_name.values() for path in paths}
    left = [path for paths in everything.by_name.values() for path in paths if path not in taken]
    notes = [f"{len(left)} image file(s) that no COCO file lists passed over: {listed(left)}"] if left else []
    empty = sum(not image.annotations for file in files for image in file.images)
    if empty:
        notes.append(f"{empty} image(s) of the COCO file(s) have no object: their masks are empty")
    return sections, notes


def _part_of(file: CocoFile, source: Path) -> Part | None:
    """By the file's name, or the nearest folder above it that names a part."""
    above = file.path.parent.relative_to(source).parts
    return part_in(file.path.stem) or next((part for name in reversed(above) if (part := part_of(name))), None)


def _section(
    source: Path, part: Part | None, files: Sequence[CocoFile], by_file: Mapping[str, Sequence[Path]]
) -> Section:
    images = Images(source)
    masks: list[dict[str, list[Mask]]] = []
    for file in files:
        own: dict[str, list[Mask]] = {}
        for image in file.images:
            name = safe_name(bare_name(Path(image.file)))
            own.setdefault(name, []).append(CocoMask(file, image))
            path = _place(image.file, file.path, source, part, by_file.get(PurePosixPath(image.file).name, ()))
            if path is not None and path not in images.by_name.setdefault(name, []):
                images.by_name[name].append(path)
        masks.append(own)
    raters = _raters(files, masks)
    where = ", ".join(relative(file.path, source) for file in files[:4]) + (", …" if len(files) > 4 else "")
    return Section(part or "", part, images, tuple(raters), f"outlines in COCO's {where}")


def _place(file: str, listing: Path, source: Path, part: Part | None, found: Sequence[Path]) -> Path | None:
    """Where an image lies: as its path says from the list or from the source, else the only file of its name."""
    for path in (listing.parent / file, source / file):
        if path in found:
            return path
    inside = [path for path in found if path.as_posix().endswith("/" + file)] or list(found)
    if len(inside) > 1 and part:
        inside = [
            path for path in inside if part in {part_in(name) for name in path.relative_to(source).parts}
        ] or inside
    if len(inside) > 1:
        raise InputError(f"{listing}: {file} could be {listed(inside)}; keep one of them", path=listing)
    return inside[0] if inside else None


def _raters(files: Sequence[CocoFile], masks: Sequence[Mapping[str, list[Mask]]]) -> list[Rater]:
    """One rater for files of different images, else one for each file: then each must be numbered, or be the rater's."""
    names = [name for own in masks for name in own]
    if len(set(names)) == len(names) or len(files) == 1:
        return [Rater(files[0].path, "", {name: found for own in masks for name, found in own.items()})]
    return [Rater(file.path, str(k), own) for k, (file, own) in enumerate(zip(files, masks, strict=True))]
