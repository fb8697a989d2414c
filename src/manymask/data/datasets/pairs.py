"""Images and masks that belong together by name: the common ground of the file-based data sets."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from manymask.data.case import Case
from manymask.errors import InputError
from manymask.io.depth import stretch_note
from manymask.io.masks import MaskReading, read_mask
from manymask.io.raster import is_raster, read_noted, to_channels

_MASK_SUFFIX = re.compile(r"[-_ .](mask|segmentation|seg|lesion|label|gt)$", re.IGNORECASE)
_CHANNEL = "_0000"  # nnU-Net calls the images so of one channel, and masks without it


def find_folder(source: Path, *places: str) -> Path:
    """The one folder that matches the first matching of `places` (glob patterns), below `source` or one level deeper.

    `InputError` says what was looked for, or names the folders if several match.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder", path=source)
    for place in places:
        found = sorted({p for pattern in (place, f"*/{place}") for p in source.glob(pattern) if p.is_dir()})
        if len(found) > 1:
            raise InputError(
                f"{source} holds several folders {place}: {listed(found)}; give the folder of one",
                remedies=("source",),
                path=source,
            )
        if found:
            return found[0]
    inside = listed(sorted(p.name for p in source.iterdir()), 8) or "nothing"
    raise InputError(f"{source}: expected a folder {' or '.join(places)} in it, found {inside}", path=source)


def listed(names: Sequence[object], most: int = 3) -> str:
    """The first few names, and an ellipsis where there are more."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Like `os.walk`, sorted and through symbolic links, but without hidden folders and `__MACOSX`.

    A link back to a folder above is not followed.
    """
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name != "__MACOSX" and not here.is_relative_to((here / name).resolve())
        )
        yield Path(place), folders, sorted(name for name in names if not name.startswith("."))


def safe_name(path: str) -> str:
    """A file name as an id: Unicode in NFC; bytes that are no UTF-8, and control characters, as backslash escapes."""
    text = os.fsencode(unicodedata.normalize("NFC", path)).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass
class Images:
    """The images below a folder: by name (relative, without ending), and the other files found there."""

    folder: Path
    by_name: dict[str, list[Path]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @classmethod
    def below(cls, folder: Path) -> "Images":
        """All images below `folder`; `InputError` if there are none."""
        found = cls(folder)
        for place, _, names in walk(folder):
            for path in (place / name for name in names):
                relative = path.relative_to(folder)
                if is_raster(path):
                    found.by_name.setdefault(safe_name(relative.with_suffix("").as_posix()), []).append(path)
                else:
                    found.others.append(safe_name(relative.as_posix()))
        if not found.by_name:
            raise InputError(f"{folder} holds no images", path=folder)
        return found

    def matched(self, names: Mapping[str, object]) -> dict[str, list[Path]]:
        """The same files by the name of the image they belong to: their own, or without a suffix such as `_mask`."""
        found: dict[str, list[Path]] = {}
        for own, paths in self.by_name.items():
            found.setdefault(own if own in names else _without_suffix(own, names), []).extend(paths)
        return found


def _without_suffix(name: str, names: Mapping[str, object]) -> str:
    bare = _MASK_SUFFIX.sub("", name)
    return next((image for image in (bare, name + _CHANNEL) if image in names), name)


def paired_cases(
    images: Path | Images,
    masks: Sequence[Path | None],
    channels: int,
    reading: MaskReading | None = None,
    group: Callable[[str], str] = str,
) -> list[Case]:
    """A case for each image, with one mask from each of the raters' folders.

    An image that lacks the mask of one of several raters was not read by that one (`Case.read_by`). A file without a
    partner, or with two, becomes a case that cannot be read, so that `prepare` reports all of them at once.
    """
    pictures = images if isinstance(images, Images) else Images.below(images)
    raters = [Images.below(folder).matched(pictures.by_name) if folder else {} for folder in masks]
    cases = []
    for name, paths in sorted(pictures.by_name.items()):
        found = [rater.get(name, []) for rater in raters]
        message = _complaint(pictures.folder, paths, found, masks)
        drawn = [each[0] if each else None for each in found]
        notes = list[str]()
        read = partial(refused, message) if message else partial(load_pair, paths[0], drawn, channels, reading, notes)
        cases.append(Case(name, group(name), read, tuple(path is not None for path in drawn), notes))
    lone = {name: paths[0] for rater in raters for name, paths in rater.items() if name not in pictures.by_name}
    for name, path in sorted(lone.items()):
        cases.append(Case(name, group(name), partial(refused, f"{path} has no image in {pictures.folder}")))
    return cases


def _complaint(
    images: Path, paths: Sequence[Path], masks: Sequence[Sequence[Path]], folders: Sequence[Path | None]
) -> str:
    """Why an image and its masks make no case; empty if they do."""
    doubled = next((each for each in (paths, *masks) if len(each) > 1), None)
    if doubled is not None:
        return f"{doubled[0]} and {doubled[1].name} have one name; keep one of them"
    if not any(masks):
        return f"{paths[0]} has no mask in {listed([f for f in folders if f] or [images.parent])}"
    return ""


def refused(message: str) -> tuple[np.ndarray, np.ndarray]:
    """What a case reads as that has no image or no mask: `InputError`, when its turn comes."""
    raise InputError(message)


def load_pair(
    image: Path,
    masks: Sequence[Path | None],
    channels: int,
    reading: MaskReading | None = None,
    notes: list[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The image and its masks from their files, an empty mask where there is none.

    Masks of another size than the image are an `InputError`. `notes` becomes what reading the image leaves to be said.
    """
    samples, said = read_noted(image)
    if notes is not None:
        notes[:] = [*said, *filter(None, [stretch_note(samples, str(image))])]
    pixels = to_channels(samples, channels, str(image))
    drawn = []
    for path in masks:
        mask = np.zeros(pixels.shape[:2], bool) if path is None else read_mask(path, reading)
        if mask.shape != pixels.shape[:2]:
            (h, w), (mh, mw) = pixels.shape[:2], mask.shape
            raise InputError(
                f"{path} is {mw}×{mh} but its image {image.name} is {w}×{h}; they must have one size", path=path
            )
        drawn.append(mask)
    return pixels, np.stack(drawn)
