"""From frames to stacks: which images of a series belong together, in which order, and which do not belong.

A series of the scanner is not always one stack of slices. It may hold a scout, a screen capture, several phases or
echoes at each position, or a copy of a file. Nothing is dropped without a line: a *problem* is an image that is left
out and would have been segmented on its own, a *remark* tells how the others were taken.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
# which of them mean another stack wherever it lies, not only at the positions of the first: a phase may be shifted a little
_ALWAYS = {"TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue", "KVP"}
_TYPICAL = 2 / 3  # of the positions show one pattern of values, else a field differs by chance
_COMMON = 0.8  # of the length of all that stacks have in common
_ONE_PLACE = 0.01  # mm


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
    if any(frame.place is None for frame in group):
        return [group]
    parts, names = [group], []
    for name in _TELLING:
        split = [piece for part in parts for piece in _split(part, name)]
        if len(split) > len(parts):
            names.append(name)
        parts = split
    ranked = [_ranked(part) for part in parts]
    stacks = [stack for each in ranked for stack in each]
    if len(stacks) == 1:
        return stacks
    alike = sum(len(stack) for each in ranked for stack in each[1:])
    by = f", told apart by {' and '.join(names)}" if names else ""
    if by and alike:
        by += f", and {alike} of equal values by the order in which they were taken"
    most = max(map(len, _positions(group)))
    held = f"up to {most} images at one position" if most > 1 else "several images of one place"
    found.remarks.append(
        f"{_where(group)} holds {held}{by}: taken as {len(stacks)} stacks"
        + (", which mix phases or echoes unless these come in one order at every position" if alike else "")
    )
    return stacks


def _positions(group: Sequence[Frame]) -> list[list[Frame]]:
    """The frames that lie at one position, in order along their normal."""
    found: list[list[Frame]] = []
    for frame in sorted(group, key=_along):
        home = _home(frame, found)
        if home is None:
            found.append([frame])
        else:
            home.append(frame)
    return found


def _home(frame: Frame, positions: Sequence[list[Frame]]) -> list[Frame] | None:
    """Those of the last positions, which are in order, where a frame lies, too."""
    for there in reversed(positions):
        if _along(frame) - _along(there[0]) >= _ONE_PLACE:
            return None
        if np.abs(_position(frame) - _position(there[0])).max() < _ONE_PLACE:
            return there
    return None


def _split(part: list[Frame], name: str) -> list[list[Frame]]:
    """A piece for each value of a field, in order, if it tells stacks apart."""
    pieces: dict[_Value, list[Frame]] = {}
    for frame in part:
        pieces.setdefault(_value(frame, name), []).append(frame)
    tells = len(pieces) > 1 and ((name in _ALWAYS and _side_by_side(list(pieces.values()))) or _typical(part, name))
    return [pieces[value] for value in sorted(pieces)] if tells else [part]


def _side_by_side(pieces: Sequence[Sequence[Frame]]) -> bool:
    """Whether each piece is a stack of about the same length at about the same place."""
    ends = np.array([(min(map(_along, piece)), max(map(_along, piece))) for piece in pieces])
    whole, common = ends[:, 1].max() - ends[:, 0].min(), ends[:, 1].min() - ends[:, 0].max()
    return min(map(len, pieces)) > 1 and bool(common >= _COMMON * whole > 0)


def _typical(part: Sequence[Frame], name: str) -> bool:
    """Whether the images at one position differ in a field, alike at most positions that hold several. No more values than
    images at a position: a field that differs from slice to slice would cut the stack into pieces."""
    positions = [[_value(frame, name) for frame in frames] for frames in _positions(part)]
    several: list[tuple[_Value, ...]] = [tuple(sorted(values)) for values in positions if len(values) > 1]
    if not several or len({value for values in positions for value in values}) > max(map(len, several)):
        return False
    patterns = Counter(several)
    commonest = max(several, key=lambda pattern: (patterns[pattern], len(pattern)))
    typical = Counter(commonest)
    fitting = sum(n for found, n in patterns.items() if Counter(found) <= typical or Counter(found) >= typical)
    return len(typical) > 1 and fitting >= _TYPICAL * len(several)


def _ranked(part: Sequence[Frame]) -> list[list[Frame]]:
    """Images that nothing tells apart, by the order in which they were taken."""
    stacks: list[list[Frame]] = []
    for frames in _positions(part):
        for rank, frame in enumerate(sorted(frames, key=_taken)):
            if rank == len(stacks):
                stacks.append([])
            stacks[rank].append(frame)
    return stacks


_Value = tuple[float, str]


def _value(frame: Frame, name: str) -> _Value:
    """What the header or the frame's own group says in a field, as something that sorts."""
    sequence, own = _TELLING[name]
    place = group_of(frame.header, frame.number, sequence)
    said = text(frame.header, name) if place is frame.header else text(place, own)
    try:
        return float(said), ""
    except ValueError:
        return 0.0, said


def _position(frame: Frame) -> np.ndarray:
    assert frame.place is not None
    return frame.place.position


def _along(frame: Frame) -> float:
    assert frame.place is not None
    return float(frame.place.normal @ frame.place.position)


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
