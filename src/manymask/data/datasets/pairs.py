"""Images and masks that belong together by name: the common ground of the file-based data sets."""

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from manymask.data.case import Case, MaskValues
from manymask.data.datasets.annotations import Mask, MaskFile
from manymask.errors import InputError, ManymaskError
from manymask.io.dicom.file import patient_of
from manymask.io.dicom.series import is_dicom, seen_through
from manymask.io.image import NiftiSlice, Picture
from manymask.io.inputs import picture_at
from manymask.io.masks import MaskReading
from manymask.io.nifti import affine_of, count_slices, is_nifti
from manymask.io.raster import is_raster, is_stored_turned, to_channels

MASK_WORDS = ("mask", "segmentation", "seg", "lesion", "label", "annotation", "gt", "groundtruth")
RATER_WORDS = ("reader", "rater", "expert", "annotator")
_GAP = r"(?:^|[-_ .]+)"
_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net calls images so, and masks without it; a second channel is _0001
FIRST_CHANNEL = "_0000"
_TEXTS = (".json", ".txt", ".csv", ".xml", ".md", ".yaml", ".yml", ".zip", ".py")  # never looked into for DICOM


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


def is_image(path: Path) -> bool:
    """Whether a file is an image that can be read: a raster or NIfTI by its name, DICOM by its name or content."""
    return is_raster(path) or is_nifti(path) or (path.suffix.lower() not in _TEXTS and is_dicom(path))


def bare_name(path: Path) -> str:
    """A path as a name, without the ending of its file; the last number of a UID is no ending."""
    if is_nifti(path):
        return path.as_posix()[: -len(".nii.gz" if path.name.lower().endswith(".gz") else ".nii")]
    return path.as_posix() if path.suffix[1:].isdecimal() else path.with_suffix("").as_posix()


@dataclass
class Images:
    """The images below a folder: by name (relative, without ending), and the other files found there."""

    folder: Path
    by_name: dict[str, list[Path]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @classmethod
    def below(cls, folder: Path, leave_out: Collection[Path] = ()) -> "Images":
        """All images below `folder`, but for those in some folders; `InputError` if there are none."""
        found = cls(folder)
        for place, folders, names in walk(folder):
            folders[:] = [name for name in folders if place / name not in leave_out]
            for path in (place / name for name in names):
                relative = path.relative_to(folder)
                if is_image(path):
                    found.by_name.setdefault(safe_name(bare_name(relative)), []).append(path)
                else:
                    found.others.append(safe_name(relative.as_posix()))
        if not found.by_name:
            raise InputError(f"{folder} holds no images", path=folder)
        return found


@dataclass(frozen=True)
class Rater:
    """The masks of one rater: by the name of the image, or by their own where there is no such image.

    place: the folder or file that holds them, for messages; slot: the rater's number or name, empty for a single one;
    notes: what is to be said of the files.
    """

    place: Path
    slot: str
    masks: Mapping[str, Sequence[Mask]]
    notes: tuple[str, ...] = ()


def image_of(name: str, images: Mapping[str, object], words: Sequence[str] = ()) -> tuple[str, str]:
    """The image that a mask belongs to by its name, and its rater: equal names, or names but for an ending such as `_mask`
    or `_seg-2`. words: endings to look for in place of the usual. The mask's own name where there is no such image."""
    if not words and name in images:
        return name, ""
    base, slot = without_ending(name, words)
    candidates = (base, base + FIRST_CHANNEL) if base else ()
    return next(((image, slot) for image in candidates if image in images), (name, ""))


def without_ending(name: str, words: Sequence[str] = ()) -> tuple[str, str]:
    """A mask's name without what makes it a mask, and its rater; the name itself if it holds nothing of the kind.

    `a_mask` → `a`, ``; `a_seg02`, `a-mask-rater-2` and `a_rater2_mask` → `a`, `2`; of several `words`, each is a rater.
    """
    endings = "|".join(re.escape(word.strip("-_ .")) for word in words) or "|".join(MASK_WORDS)
    raters = "|".join(RATER_WORDS)
    for pattern in (
        rf"{_GAP}(?:(?P<first>{endings})s?[-_ .]+)?(?:{raters})[-_ .]*(?P<number>\d+)(?:[-_ .]+(?P<word>{endings})s?)?$",
        rf"{_GAP}(?P<word>{endings})s?(?:[-_ .]*(?:{raters})?[-_ .]*(?P<number>\d+))?$",
    ):
        folder, _, last = name.rpartition("/")
        match = re.search(pattern, last, re.IGNORECASE)
        if match:
            slot = str(int(match["number"])) if match["number"] else ""
            if len(words) > 1:
                named = match.groupdict()
                slot = f"{(named['word'] or named.get('first') or '').lower()}{slot}"
            return f"{folder}/{last[: match.start()]}" if folder else last[: match.start()], slot
    return name, ""


def paired_cases(
    images: Path | Images,
    masks: Sequence[Path | Rater],
    channels: int,
    reading: MaskReading | None = None,
    group: Callable[[str], str] = str,
    window: str = "header",
) -> list[Case]:
    """A case for each image, or for each slice of a volume, with one mask from each rater.

    masks: of each rater, the folder of files of the images' names or with a usual ending, or the masks themselves;
    window: the grey values of DICOM that are shown, as `seen_through` takes it.
    An image that lacks the mask of one of several raters was not read by that one (`Case.read_by`). A file without a
    partner, or with two, becomes a case that cannot be read, so that `prepare` reports all of them at once.
    """
    pictures = images if isinstance(images, Images) else Images.below(images)
    raters = [each if isinstance(each, Rater) else _folder_of_one(each, pictures) for each in masks]
    cases = []
    for name, paths in sorted(pictures.by_name.items()):
        found = [rater.masks.get(name, ()) for rater in raters]
        message = _complaint(pictures, name, found, raters)
        drawn = tuple(each[0] if each else None for each in found)
        if message:
            cases.append(Case(name, group(name), partial(refused, message), tuple(mask is not None for mask in drawn)))
        else:
            cases += _cases_of(name, group(name), Pair(paths[0], drawn, channels, reading or MaskReading(), window))
    lone = {name: found[0] for rater in raters for name, found in rater.masks.items() if name not in pictures.by_name}
    for name, mask in sorted(lone.items()):
        message = f"{mask.path} has no image in {pictures.folder}"
        if mask.path.suffix.lower() == ".json":
            message = f"{mask.path}: its image {name} is not there"
        cases.append(Case(name, group(name), partial(refused, message)))
    return cases


def _folder_of_one(folder: Path, pictures: Images) -> Rater:
    masks: dict[str, list[Mask]] = {}
    for own, paths in Images.below(folder).by_name.items():
        masks.setdefault(image_of(own, pictures.by_name)[0], []).extend(map(MaskFile, paths))
    return Rater(folder, "", masks)


def _cases_of(name: str, group: str, pair: "Pair") -> list[Case]:
    """One case, or one for each slice of a volume, which are one group; DICOM is grouped by patient."""
    read_by = tuple(mask is not None for mask in pair.masks)
    try:
        count = count_slices(pair.image) if is_nifti(pair.image) else 1
        other = next((mask for mask in pair.masks if mask is not None and mask.slices != count), None)
    except ManymaskError as error:
        return [Case(name, group, partial(refused, str(error)), read_by)]
    if other is not None:
        message = f"{other.path} has {other.slices} slice(s) but its image {pair.image.name} {count}"
        return [Case(name, group, partial(refused, message), read_by)]
    group = patient_of(pair.image) or group
    if count == 1:
        return [Case(name, group, pair, read_by, pair.notes, pair.values)]
    slices = [replace(pair, index=index, notes=[], values={}) for index in range(count)]
    return [Case(f"{name}-slice-{each.index + 1:04}", group, each, read_by, each.notes, each.values) for each in slices]


def _complaint(images: Images, name: str, masks: Sequence[Sequence[Mask]], raters: Sequence[Rater]) -> str:
    """Why an image and its masks make no case; empty if they do."""
    paths = images.by_name[name]
    doubled = next((each for each in (paths, *([m.path for m in each] for each in masks)) if len(each) > 1), None)
    if doubled is not None:
        return f"{doubled[0]} and {doubled[1].name} have one name; keep one of them"
    if any(masks):
        return ""
    channel = _CHANNEL.search(name)
    first = name[:-5] + FIRST_CHANNEL
    if channel and first != name and first in images.by_name and any(first in rater.masks for rater in raters):
        return f"{paths[0]} is a further channel of {first}; images of one file each are read"
    return f"{paths[0]} has no mask in {listed([rater.place for rater in raters] or [images.folder])}"


def refused(message: str) -> tuple[np.ndarray, np.ndarray]:
    """What a case reads as that has no image or no mask: `InputError`, when its turn comes."""
    raise InputError(message)


@dataclass(frozen=True)
class Pair:
    """An image with the masks of its raters, none where a rater did not read it; called, it reads them as a `Case` does.

    index: of the slice of a volume; notes: gets what reading the image leaves to be said; values: gets what mask files hold.
    """

    image: Path
    masks: Sequence[Mask | None]
    channels: int
    reading: MaskReading = MaskReading()
    window: str = "header"
    index: int = 0
    notes: list[str] = field(default_factory=list, compare=False)
    values: MaskValues = field(default_factory=dict, compare=False)

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, drawn = self.at_full_depth()
        return to_channels(pixels, self.channels, str(self.image)), drawn

    def at_full_depth(self) -> tuple[np.ndarray, np.ndarray]:
        """The image at its own depth, (H, W) or (H, W, 3), and its masks, bool (R, H, W), empty where there is none.

        Masks of another size than the image are an `InputError`.
        """
        picture = self._picture()
        self.notes[:] = [*picture.notes, *self._turned()]
        height, width = picture.pixels.shape[:2]
        drawn = [
            self._read(k, mask, picture) if mask else np.zeros((height, width), bool)
            for k, mask in enumerate(self.masks)
        ]
        return picture.pixels, np.stack(drawn)

    def _picture(self) -> Picture:
        found = picture_at(self.image, self.index)
        return seen_through(found, self.window)

    def _turned(self) -> list[str]:
        """An image that is stored turned, as from a phone, and masks that do not say so."""
        masks = [mask.path for mask in self.masks if isinstance(mask, MaskFile) and is_raster(mask.path)]
        turned = bool(masks) and is_raster(self.image) and is_stored_turned(self.image)
        if not turned or any(map(is_stored_turned, masks)):
            return []
        return [
            "It was turned upright, as its EXIF says, and its mask was not: masks must be drawn on the upright image."
        ]

    def _read(self, rater: int, mask: Mask, picture: Picture) -> np.ndarray:
        height, width = picture.pixels.shape[:2]
        if isinstance(picture.origin, NiftiSlice) and is_nifti(mask.path):
            place = affine_of(mask.path)
            if not np.allclose(place, picture.origin.affine, atol=1e-2):
                raise InputError(f"{mask.path} lies on another grid than its image {self.image.name}", path=mask.path)
        reading = replace(self.reading, held={})
        try:
            found = mask.read((height, width), reading, self.index)
        finally:  # also of a mask that is refused
            self.values.update({(rater, str(path)): values for path, values in (reading.held or {}).items()})
        if found.shape != (height, width):
            raise InputError(
                f"{mask.path} is {found.shape[1]}×{found.shape[0]} but its image {self.image.name} is {width}×{height}; "
                "they must have one size",
                path=mask.path,
            )
        return found
