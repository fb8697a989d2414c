"""Images and masks in one folder: told apart by the endings of names, or by the kinds of files."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from manymask.data.case import Part
from manymask.data.datasets.annotations import Annotation, LabelmeMask, Mask, MaskFile
from manymask.data.datasets.pairs import Images, Rater, bare_name, listed, safe_name, without_ending
from manymask.data.datasets.sections import Choice, Section, outlined_image, raters_of, relative
from manymask.errors import InputError, ManymaskError
from manymask.io.labelme import LabelmeFile
from manymask.io.raster import is_raster, read_samples

LOOKED_AT, FEW_VALUES = 3, 8  # images of each format, to see which of the two are masks
_POLYGONS = ("labelme", "json")


def flat_section(
    source: Path, folder: Path, name: str, part: Part | None, annotations: Mapping[Path, Annotation], choice: Choice
) -> Section | None:
    """The images below `folder` with masks that lie among them; None if no mask is found.

    `InputError` where there are masks of two kinds, or endings that only a user can tell.
    """
    everything = Images.below(folder)
    outlined = _labelme_masks(folder, everything, annotations)
    polygons = bool(choice.names) and all(word.lower().strip(".") in _POLYGONS for word in choice.names)
    ways = {
        f"{_count(outlined)} labelme file(s) beside their images": (everything, outlined),
        "masks named as their images with an ending": _by_ending(everything, choice),
        "masks beside the one image of each folder": _by_folder(everything, choice),
        "masks of their images' names, of another format": _by_format(everything, choice),
    }
    how, ways = "", {how: found for how, found in ways.items() if found[1]}
    if polygons:
        ways = {
            how: (_by_ending(everything, Choice())[0], outlined) for how, found in ways.items() if found[1] is outlined
        }
        choice = Choice((), choice.parts)
    elif choice.names:
        ways = {how: found for how, found in ways.items() if found[1] is not outlined}
    if not ways:
        _suggest_endings(folder, everything, choice)
        return None
    if len(ways) > 1:
        raise InputError(
            f"{folder} holds {' and '.join(ways)}: name the ones to take, by an ending or as labelme",
            remedies=("masks",),
            path=folder,
        )
    how, (images, masks) = next(iter(ways.items()))
    images, passed = _chosen_alone(images, choice)
    raters = [Rater(folder, "", masks)] if masks is outlined else raters_of(folder, masks, images, choice)
    example = next(iter(masks.values()))[0]
    how = f"{how} in {relative(folder, source)} (such as {example.path.name}{passed})"
    return Section(name, part, images, tuple(raters), how)


def _count(masks: Mapping[str, list[Mask]]) -> int:
    return sum(map(len, masks.values()))


def _labelme_masks(folder: Path, images: Images, annotations: Mapping[Path, Annotation]) -> dict[str, list[Mask]]:
    """labelme's files by their image: that of the same name, else the one that they name."""
    found: dict[str, list[Mask]] = {}
    for path, content in annotations.items():
        if isinstance(content, LabelmeFile) and path.is_relative_to(folder):
            own, mask = safe_name(bare_name(path.relative_to(folder))), LabelmeMask(content)
            found.setdefault(outlined_image(own, [mask], images), []).append(mask)
    return found


def _without(everything: Images, masks: Mapping[str, object]) -> Images:
    """The images that are no masks."""
    return Images(everything.folder, {n: p for n, p in everything.by_name.items() if n not in masks}, everything.others)


def _by_ending(everything: Images, choice: Choice) -> tuple[Images, dict[str, list[Mask]]]:
    """Files whose name is that of another file with an ending, such as `a_mask` beside `a`."""
    masks: dict[str, list[Mask]] = {}
    for name, paths in everything.by_name.items():
        base, _ = without_ending(name, choice.names)
        if base != name and base in everything.by_name:
            masks[name] = [MaskFile(path) for path in paths]
    return _without(everything, masks), masks


def _by_folder(everything: Images, choice: Choice) -> tuple[Images, dict[str, list[Mask]]]:
    """Folders of one image each, whatever it is called, and masks; these are named after it here."""
    folders: dict[str, list[str]] = {}
    for name in everything.by_name:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    masks: dict[str, list[Mask]] = {}
    taken: dict[str, None] = {}
    for names in folders.values():
        found = {name: without_ending(name, choice.names) for name in names}
        images = [name for name, (base, _) in found.items() if base == name]
        if (
            len(images) != 1
            or len(names) < 2
            or any(base == images[0] for base, _ in found.values() if base != images[0])
        ):
            continue
        for name, (base, slot) in found.items():
            if base == name:
                continue
            ending = slot if len(choice.names) > 1 else f"{(*choice.names, 'mask')[0].strip('-_ .')}{slot}"
            masks.setdefault(f"{images[0]}_{ending}", []).extend(map(MaskFile, everything.by_name[name]))
            taken[name] = None
    return _without(everything, taken), masks


def _by_format(everything: Images, choice: Choice) -> tuple[Images, dict[str, list[Mask]]]:
    """Two files of one name and of two formats, the same for all: the masks are those of a few values."""
    doubles = {name: sorted(paths, key=_suffix) for name, paths in everything.by_name.items() if len(paths) == 2}
    formats = {tuple(map(_suffix, paths)) for paths in doubles.values()}
    if len(formats) != 1 or choice.names:
        return everything, {}
    some = list(doubles.values())[:LOOKED_AT]
    flat = [all(_few_values(pair[side]) for pair in some) for side in (0, 1)]
    if flat[0] == flat[1]:
        return everything, {}
    images = everything.by_name | {name: [paths[flat.index(False)]] for name, paths in doubles.items()}
    masks: dict[str, list[Mask]] = {name: [MaskFile(paths[flat.index(True)])] for name, paths in doubles.items()}
    return Images(everything.folder, images, everything.others), masks


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _few_values(path: Path) -> bool:
    """Whether an image holds so few values that it must be a mask."""
    if not is_raster(path):
        return False
    try:
        return len(np.unique(read_samples(path).values)) <= FEW_VALUES
    except ManymaskError:
        return False


def _chosen_alone(images: Images, choice: Choice) -> tuple[Images, str]:
    """The images without files of other endings than the chosen ones, and words on how many these were."""
    if not choice.names:
        return images, ""
    others = [name for name in images.by_name if _ending(name, images)]
    passed = f"; {len(others)} file(s) of other endings are passed over" if others else ""
    return _without(images, dict.fromkeys(others)), passed


def _ending(name: str, images: Images) -> str:
    """What a name says behind the name of another image; empty if it says nothing, or a number."""
    cut = max(name.rfind(gap) for gap in "-_ .")
    ending = name[cut + 1 :]
    return ending if cut > 0 and name[:cut] in images.by_name and not ending.isdecimal() else ""


def _suggest_endings(folder: Path, everything: Images, choice: Choice) -> None:
    """`InputError` where names differ from others by endings that are no usual ones."""
    endings = Counter(filter(None, (_ending(name, everything) for name in everything.by_name)))
    usual = sorted(ending for ending, count in endings.items() if count > 1 or count == len(everything.by_name) - 1)
    if usual and not choice.names:
        raise InputError(
            f"{folder}: endings such as {listed(usual)} could mark masks; name the one to take, or one for each rater",
            remedies=("masks",),
            path=folder,
        )
