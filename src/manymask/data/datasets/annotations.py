"""One rater's mask of one image, however it is kept: an image file, polygons of labelme, objects of COCO, several parts."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from manymask.errors import ConfigError, InputError, ManymaskError, decoding, guesses
from manymask.io.atomic import read_object
from manymask.io.coco import MOST_BYTES, CocoFile, CocoImage, coco_mask, is_coco, read_coco
from manymask.io.dicom.file import load_dicom
from manymask.io.labelme import LabelmeFile, is_labelme, labelme_file
from manymask.io.masks import MaskReading, distinct, mask_of_values, read_mask
from manymask.io.nifti import count_slices, is_nifti, nifti_slices
from manymask.io.text import composed

MOST_VALUES = 4096
BACKGROUND = ("background", "ignore")  # of nnU-Net, which are nothing to segment


class Mask(Protocol):
    """A mask that is not yet read. path: the file that holds it, for messages; slices: how many images it has."""

    @property
    def path(self) -> Path: ...
    @property
    def slices(self) -> int: ...

    def read(self, shape: tuple[int, int], reading: MaskReading, index: int = 0) -> np.ndarray:
        """bool (H, W) for an image of `shape`, which some kinds of masks check; index: of the slice of a volume."""


@dataclass(frozen=True)
class MaskFile:
    """An image or a NIfTI file."""

    path: Path

    @property
    def slices(self) -> int:
        """How many images it has."""
        return count_slices(self.path) if is_nifti(self.path) else 1

    def read(self, shape: tuple[int, int], reading: MaskReading, index: int = 0) -> np.ndarray:
        """As its pixels are, whatever the shape."""
        if not is_nifti(self.path):
            return read_mask(self.path, reading)
        values = next(nifti_slices(self.path, None, [index])).pixels
        held = _held_by(self.path, self.path.stat().st_mtime_ns) if values.ndim == 2 else None
        return mask_of_values(self.path, values, reading, held)


def _wanted(reading: MaskReading) -> set[str] | None:
    """The labels that were chosen, as text; None if none was, so that all count."""
    return {composed(label) for label in reading.labels} or None


@lru_cache(maxsize=4)
def _held_by(path: Path, changed: int) -> np.ndarray:
    """The values of a whole volume in order, of very many only as many: what a mask's values mean is decided once, not slice by
    slice, where labels would look like black and white and a soft mask's end like another mask."""
    held = np.zeros(0)
    for each in nifti_slices(path):
        held = np.union1d(held, distinct(each.pixels))
        if len(held) > MOST_VALUES:
            held = held[np.linspace(0, len(held) - 1, MOST_VALUES // 2).round().astype(int)]  # the ends among them
    return held


@dataclass(frozen=True)
class LabelmeMask:
    """The shapes of a labelme file."""

    file: LabelmeFile
    slices: int = 1

    @property
    def path(self) -> Path:
        """Of the JSON."""
        return self.file.path

    def read(self, shape: tuple[int, int], reading: MaskReading, index: int = 0) -> np.ndarray:
        """The union of those whose label was chosen."""
        mask = self.file.mask(shape, _wanted(reading))
        return ~mask if reading.invert else mask


@dataclass(frozen=True)
class CocoMask:
    """The objects of an image in a COCO file."""

    file: CocoFile
    image: CocoImage
    slices: int = 1

    @property
    def path(self) -> Path:
        """Of the JSON."""
        return self.file.path

    def read(self, shape: tuple[int, int], reading: MaskReading, index: int = 0) -> np.ndarray:
        """The union of those whose category was chosen, by number or name."""
        wanted, names = _wanted(reading), self.file.names.items()
        chosen = None if wanted is None else [number for number, name in names if {str(number), name} & wanted]
        mask = coco_mask(self.path, self.image, shape, chosen)
        return ~mask if reading.invert else mask


class PatientMasks(Protocol):
    """A file of DICOM that marks regions of a series: contours of a structure set, or frames of a segmentation."""

    @property
    def path(self) -> Path: ...
    @property
    def regions(self) -> list[str]:
        """The names of what it marks."""

    @property
    def images(self) -> frozenset[str]:
        """The SOP instances that it names."""

    def covers(self, header: Any) -> bool:
        """Whether an image belongs to it."""

    def strays(self, headers: Sequence[Any]) -> int:
        """How many contours or frames belong to none of these images."""

    def mask(self, header: Any, label: str, regions: Collection[str] | None = None) -> np.ndarray:
        """bool (H, W), the union of the regions of these names, or of all if None, on an image."""


@dataclass(frozen=True)
class StructureMask:
    """What a structure set or a segmentation marks on one DICOM slice."""

    file: PatientMasks
    image: Path
    slices: int = 1

    @property
    def path(self) -> Path:
        """Of the structure set or segmentation."""
        return self.file.path

    def read(self, shape: tuple[int, int], reading: MaskReading, index: int = 0) -> np.ndarray:
        """The union of the regions that were chosen by name; empty where none lies on the slice."""
        header = load_dicom(self.image, header_only=True, more=("SliceThickness", "SpacingBetweenSlices"))
        mask = self.file.mask(header, str(self.image), _wanted(reading))
        return ~mask if reading.invert else mask


@dataclass(frozen=True)
class Parts:
    """Several masks whose union counts."""

    masks: tuple[Mask, ...]

    @property
    def path(self) -> Path:
        """Of the first."""
        return self.masks[0].path

    @property
    def slices(self) -> int:
        """Of the first."""
        return self.masks[0].slices

    def read(self, shape: tuple[int, int], reading: MaskReading, index: int = 0) -> np.ndarray:
        """The union, each part read as if it was alone."""
        parts = [mask.read(shape, replace(reading, invert=False), index) for mask in self.masks]
        odd = next((k for k, part in enumerate(parts) if part.shape != parts[0].shape), None)
        if odd is not None:
            raise InputError(f"{self.masks[odd].path} and {self.path} are parts of one mask but differ in size")
        union: np.ndarray = np.any(parts, axis=0)
        return ~union if reading.invert else union


@dataclass(frozen=True)
class LabelNames:
    """What nnU-Net's dataset.json calls the values of label images; a region stands for several."""

    path: Path
    values: Mapping[str, tuple[int, ...]]


Annotation = LabelmeFile | CocoFile | LabelNames


def read_annotation(path: Path) -> Annotation | None:
    """What a JSON file says of masks; None if it says nothing of them or is no JSON. `InputError` for one that is damaged."""
    try:
        content = read_object(path, MOST_BYTES)
    except ManymaskError:
        return None
    if is_coco(content):
        return read_coco(path, content)
    if is_labelme(content):
        return labelme_file(path, content)
    if "labels" in content and {"file_ending", "numTraining", "channel_names", "modality"} & set(content):
        with decoding(path):
            return LabelNames(path, _values(content["labels"]))
    return None


def _values(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Version 2 maps names to values, or to several; version 1 maps values to names."""
    if all(isinstance(value, str) for value in labels.values()):
        labels = {name: int(value) for value, name in labels.items()}
    return {
        composed(name): tuple(value) if isinstance(value, list) else (int(value),) for name, value in labels.items()
    }


def chosen_labels(masks: Iterable[Mask], names: LabelNames | None, reading: MaskReading) -> MaskReading:
    """How masks are read once every label is known: names of nnU-Net become numbers.

    `InputError` where there are several labels and none is chosen, `ConfigError` for a label that there is not.
    """
    single = list(_single(masks))
    reading = replace(
        reading, labels=tuple(composed(label) if isinstance(label, str) else label for label in reading.labels)
    )
    files = _by_file(single)
    coco = [mask for mask in single if isinstance(mask, CocoMask)]
    counts = Counter(
        mask.file.names[int(each.get("category_id", 1))] for mask in coco for each in mask.image.annotations
    )
    known = dict(names.values) if names else {}
    for mask in files.values():
        if isinstance(mask, LabelmeMask):
            counts.update(mask.file.labels)
        elif isinstance(mask, StructureMask):
            counts.update(mask.file.regions)
        elif isinstance(mask, CocoMask):
            known |= {name: (number,) for number, name in mask.file.names.items()}
    counts.update({name: 0 for name in known if name.lower() not in BACKGROUND and name not in counts and names})
    if not counts:
        return reading
    place = names.path if names else single[0].path.parent
    if len(counts) > 1 and not reading.labels:
        held = ", ".join(f"{name} ({count})" if count else name for name, count in sorted(counts.items()))
        raise InputError(
            f"{place} holds several labels: {held}; choose those of the foreground",
            remedies=("mask_labels",),
            path=place,
        )
    _check_spelling(files, reading)
    _check_numbers(files, names, reading)
    numbers = {str(value) for values in known.values() for value in values}
    for label in map(str, reading.labels):
        if label not in counts and label not in known and label not in numbers:
            raise ConfigError(
                f"{place} holds no label {label!r}{guesses(label, counts)}; it holds {', '.join(sorted(counts))}",
                parameter="mask_labels",
                path=place,
            )
    if names is None or not all(isinstance(mask, MaskFile) for mask in single):
        return reading  # outlines and regions have names of their own
    values = [
        value for label in reading.labels for value in known.get(str(label), (int(label),) if _whole(label) else ())
    ]
    return replace(reading, labels=tuple(values))


def _by_file(masks: Iterable[Mask]) -> dict[Path, Mask]:
    """One mask of each file: what labels there are is said once a file, of which there may be one to thousands of masks."""
    return {mask.path: mask for mask in masks}


def _check_spelling(files: Mapping[Path, Mask], reading: MaskReading) -> None:
    """`InputError` for a file that spells a chosen label in another way, such as `gtv` for `GTV`: its masks would be empty."""
    chosen = {_spelt_alike(str(label)): str(label) for label in reading.labels}
    for path, mask in files.items():
        held = _names_in(mask)
        for label in sorted(held - (_wanted(reading) or set())):
            alike = chosen.get(_spelt_alike(label))
            if alike is not None and alike not in held:
                raise InputError(
                    f"{path} holds the label {label!r} and not {alike!r}: choose both, or give it another name",
                    remedies=("mask_labels",),
                    path=path,
                )


def _check_numbers(files: Mapping[Path, Mask], names: LabelNames | None, reading: MaskReading) -> None:
    """`InputError` for a label that is the name of one thing and the number of another, and for one that means one thing in one
    COCO file and another in the next."""
    tables: dict[Path, Mapping[str, tuple[int, ...]]] = {} if names is None else {names.path: names.values}
    for path, mask in files.items():
        if isinstance(mask, CocoMask):
            tables[path] = {name: (number,) for number, name in mask.file.names.items()}
    for label in sorted(_wanted(reading) or ()):
        meanings: dict[str, Path] = {}
        for path, table in tables.items():
            numbered = [name for name, values in table.items() if label in map(str, values)]
            if label in table and numbered and label not in numbered:
                raise InputError(
                    f"{path}: {label!r} is the number of {numbered[0]!r} and the name of number {table[label][0]}; rename one",
                    remedies=("mask_labels",),
                    path=path,
                )
            if names is None and (label in table or numbered):
                meanings.setdefault(label if label in table else numbered[0], path)
        if len(meanings) > 1:
            (one, here), (other, there) = list(meanings.items())[:2]
            raise InputError(
                f"number {label} is {one!r} in {here} and {other!r} in {there}: choose by name",
                remedies=("mask_labels",),
                path=there,
            )


def _names_in(mask: Mask) -> set[str]:
    """The labels by name in the file of a mask."""
    if isinstance(mask, StructureMask):
        return set(mask.file.regions)
    if isinstance(mask, CocoMask):
        return set(mask.file.names.values())
    return set(mask.file.labels) if isinstance(mask, LabelmeMask) else set()


def _spelt_alike(label: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", label)).casefold()


def without_any(masks: Iterable[Mask], reading: MaskReading) -> list[str]:
    """What is to be said of structure sets and segmentations in which nothing is chosen: their masks are empty."""
    wanted = _wanted(reading)
    files = {path: mask.file for path, mask in _by_file(_single(masks)).items() if isinstance(mask, StructureMask)}
    lacking = sorted(
        path for path, file in files.items() if wanted is not None and not wanted.intersection(file.regions)
    )
    if not lacking:
        return []
    held = ", ".join(sorted(set(files[lacking[0]].regions))) or "nothing"
    return [
        f"{len(lacking)} of {len(files)} structure set(s) or segmentation(s) hold none of the chosen labels, and their images "
        f"get empty masks: {lacking[0]} holds {held}" + (", …" if len(lacking) > 1 else "")
    ]


def _single(masks: Iterable[Mask]) -> Iterable[Mask]:
    for mask in masks:
        yield from (mask.masks if isinstance(mask, Parts) else (mask,))


def _whole(label: int | str) -> bool:
    return str(label).isdecimal()
