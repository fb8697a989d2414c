"""From frames to stacks: which images of a series belong together, in which order, and which do not belong.

A series of the scanner is not always one stack of slices. It may hold a scout, a screen capture, several phases or
echoes at each position, or a copy of a file. Nothing is dropped without a line: a *problem* is an image that is left
out and would have been segmented on its own, a *remark* tells how the others were taken.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from manymask.io.dicom.header import Place, text, whole_number
from manymask.io.dicom.header import group as group_of
from manymask.io.dicom.spacing import spacing_of

# what tells the images at one position apart, phases, echoes, repetitions: fields of the header, and where the frames of
# one object differ in it, the functional group and the field there (PS3.3 C.7.6.16.2, C.8.13.5, C.8.15.3)
_TELLING = {
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "EchoNumbers": ("", ""),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "DiffusionGradientOrientation": ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
}
_MOST_TOGETHER = 3  # of these fields: echoes of phases of flips
_TYPICAL = 2 / 3  # of the positions show one pattern of values, else a field differs by chance


@dataclass(frozen=True)
class Frame:
    """A frame before it is decoded. `path` is None where the header is the whole data set."""

    header: Any
    number: int
    path: Path | None
    label: str
    place: Place | None


@dataclass
class Stacks:
    """Frames that belong together, in order; problems and remarks, one line each."""

    stacks: list[list[Frame]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def in_stacks(frames: Sequence[Frame]) -> Stacks:
    """Series after series by their numbers, each as one or several stacks of parallel slices of one size."""
    members: dict[tuple[int, str, str], list[Frame]] = {}
    for frame in frames:
        uids = text(frame.header, "StudyInstanceUID"), text(frame.header, "SeriesInstanceUID")
        members.setdefault((whole_number(frame.header, "SeriesNumber") or 0, *uids), []).append(frame)
    found = Stacks()
    for key in sorted(members):
        groups = _parallel(_placed(members[key], found), found)
        stacks = [stack for group in groups for stack in _apart(group, found)]
        found.stacks += [_sorted(stack) for stack in stacks]
    return found


def _placed(frames: list[Frame], found: Stacks) -> list[Frame]:
    """The frames without those that have no position although others of the series have one."""
    placed = [frame for frame in frames if frame.place is not None]
    if not placed or len(placed) == len(frames) or len({id(frame.header) for frame in frames}) == 1:
        return frames
    found.problems += [
        f"{label} has no position in the patient, other images of its series have: left out; give it alone"
        for label in dict.fromkeys(frame.label for frame in frames if frame.place is None)
    ]
    return placed


def _parallel(frames: list[Frame], found: Stacks) -> list[list[Frame]]:
    """Groups of one orientation, size and spacing. Scouts and single odd images beside a larger group are left out."""
    if any(frame.place is None for frame in frames):
        return [frames]
    groups: list[list[Frame]] = []
    for frame in frames:
        home = next((group for group in groups if _difference(frame, group[0]) is None), None)
        if home is None:
            groups.append([frame])
        else:
            home.append(frame)
    main = max(groups, key=lambda group: (not _is_scout(group), len(group)))
    beside = not _is_scout(main)  # a series of scouts alone is what is wanted
    kept = [g for g in groups if g is main or not ((beside and _is_scout(g)) or len(g) < min(2, len(main)))]
    for group in groups:
        if group not in kept:
            what = (
                "a scout" if beside and _is_scout(group) else f"of another {_difference(group[0], main[0])} (a scout?)"
            )
            labels = dict.fromkeys(frame.label for frame in group)
            found.problems += [f"{label} is {what} among the images of its series: left out" for label in labels]
    if len(kept) > 1:
        differ = _difference(kept[1][0], kept[0][0])
        found.remarks.append(f"{_where(kept[0])} holds {len(kept)} stacks of different {differ}: each is segmented")
    return kept


def _is_scout(group: Sequence[Frame]) -> bool:
    return all("LOCALIZER" in text(frame.header, "ImageType").upper() for frame in group)


def _difference(frame: Frame, other: Frame) -> str | None:
    """In what two frames of a series differ so that they are not of one stack; None if they are."""
    assert frame.place is not None and other.place is not None
    if np.abs(frame.place.orientation - other.place.orientation).max() > 1e-2:
        return "orientation"
    if (frame.header.Rows, frame.header.Columns) != (other.header.Rows, other.header.Columns):
        return "image size"
    if not _same_spacing(frame, other):
        return "pixel spacing"
    if text(frame.header, "FrameOfReferenceUID") != text(other.header, "FrameOfReferenceUID"):
        return "frame of reference"
    return None


def _same_spacing(one: Frame, other: Frame) -> bool:
    a, b = spacing_of(one.header, one.number), spacing_of(other.header, other.number)
    return a == b if a is None or b is None else bool(np.allclose(a, b, rtol=1e-3))


def _apart(group: list[Frame], found: Stacks) -> list[list[Frame]]:
    """One stack for each image at a position: phases, echoes and repetitions come one after the other."""
    at: dict[tuple[float, ...], list[Frame]] = {}
    for frame in group:
        if frame.place is None:
            return [group]
        at.setdefault(tuple(np.round(frame.place.position, 2)), []).append(frame)
    most = max(map(len, at.values()))
    if most == 1:
        return [group]
    values = [[_values(frame) for frame in frames] for frames in at.values()]
    names = _telling(values, most)
    stacks: dict[tuple[_Told, int], list[Frame]] = {}
    for frames in at.values():
        again: Counter[_Told] = Counter()
        for frame in sorted(frames, key=_taken):
            told = _told(_values(frame), names)
            stacks.setdefault((told, again[told]), []).append(frame)
            again[told] += 1
    alike = sum(len(stack) for (_, rank), stack in stacks.items() if rank)
    by = f", told apart by {' and '.join(names)}" if names else ""
    if by and alike:
        by += f", and {alike} of equal values by the order in which they were taken"
    found.remarks.append(
        f"{_where(group)} holds up to {most} images at one position{by}: taken as {len(stacks)} stacks"
        + (", which mix phases or echoes unless these come in one order at every position" if alike else "")
    )
    return [stacks[key] for key in sorted(stacks)]


_Value = tuple[float, str]
_Told = tuple[_Value, ...]


def _telling(positions: Sequence[Sequence[Mapping[str, _Value]]], most: int) -> tuple[str, ...]:
    """The fewest fields that tell most images at a position apart, by at most `most` combinations of their values: a
    field that differs from slice to slice would cut the stacks into pieces."""
    every = [values for images in positions for values in images]
    several = [images for images in positions if len(images) > 1]
    varying = [name for name in _TELLING if 1 < len({values[name] for values in every}) <= most]
    best: tuple[str, ...] = ()
    apart = 1
    for together in range(1, _MOST_TOGETHER + 1):
        for names in combinations(varying, together):
            if len({_told(values, names) for values in every}) > most:
                continue
            found = _kinds([tuple(sorted(_told(values, names) for values in images)) for images in several])
            if found > apart:
                best, apart = names, found
    return best


def _kinds(positions: Sequence[tuple[_Told, ...]]) -> int:
    """How many different values the images at a typical position have; 1 if no pattern is typical."""
    patterns = Counter(positions)
    typical = max(patterns, key=lambda pattern: (patterns[pattern], len(pattern)))
    here = Counter(typical)
    fitting = sum(n for found, n in patterns.items() if Counter(found) <= here or Counter(found) >= here)
    return len(here) if fitting >= _TYPICAL * len(positions) else 1


def _told(values: Mapping[str, _Value], names: Sequence[str]) -> _Told:
    return tuple(values[name] for name in names)


def _values(frame: Frame) -> dict[str, _Value]:
    """What the header or the frame's own group says in each field of `_TELLING`, as something that sorts."""
    return {name: _value(frame, name, *_TELLING[name]) for name in _TELLING}


def _value(frame: Frame, name: str, sequence: str, own: str) -> _Value:
    place = group_of(frame.header, frame.number, sequence)
    said = text(frame.header, name) if place is frame.header else text(place, own)
    try:
        return float(said), ""
    except ValueError:
        return 0.0, said


def _taken(frame: Frame) -> tuple[str, int, str, int]:
    """Sorts by when an image was taken, as far as the header says."""
    instance = whole_number(frame.header, "InstanceNumber") or 0
    return text(frame.header, "AcquisitionTime"), instance, text(frame.header, "SOPInstanceUID"), frame.number


def _where(frames: Sequence[Frame]) -> str:
    first = min(frames, key=lambda frame: frame.label)
    number = whole_number(first.header, "SeriesNumber")
    return f"the series of {first.label}" if number is None else f"series {number} ({first.label} …)"


def _sorted(frames: list[Frame]) -> list[Frame]:
    """By position along the normal; photographs, X-rays and films by their instance and frame numbers."""
    first = min(frames, key=lambda frame: text(frame.header, "SOPInstanceUID"))  # whatever the order of the files
    in_space = all(frame.place is not None for frame in frames)
    normal = first.place.normal if first.place is not None and in_space else None

    def key(frame: Frame) -> tuple[float, int, str, int]:
        along = 0.0 if normal is None or frame.place is None else round(float(normal @ frame.place.position), 4)
        instance = whole_number(frame.header, "InstanceNumber")
        return along, instance or 0, text(frame.header, "SOPInstanceUID"), frame.number

    return sorted(frames, key=key)
