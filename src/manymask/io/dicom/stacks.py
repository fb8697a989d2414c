"""From frames to stacks: which images of a series belong together, in which order, and which do not belong.

A series of the scanner is not always one stack of slices. It may hold a scout, a screen capture, several phases or
echoes at each position, or a copy of a file. Nothing is dropped without a line: a *problem* is an image that is left
out and would have been segmented on its own, a *remark* tells how the others were taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manymask.io.dicom.header import Place, text, whole_number
from manymask.io.dicom.spacing import spacing_of

# what tells the images at one position apart: phases, echoes, repetitions
_TELLING = ("TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "TriggerTime", "DiffusionBValue", "InversionTime",
            "AcquisitionNumber")  # fmt: skip


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
    name = next((n for n in _TELLING if _tells(n, at.values(), most)), None)
    found.remarks.append(
        f"{_where(group)} holds up to {most} images at one position"
        f"{f', told apart by {name}' if name else ''}: taken as {most} stacks"
        + ("" if name else ", which mix phases or echoes unless these come in one order at every position")
    )
    stacks: list[list[Frame]] = [[] for _ in range(most)]
    values = sorted({_value(frame, name) for frame in group}) if name else []
    for frames in at.values():
        for rank, frame in enumerate(sorted(frames, key=_taken)):
            stacks[values.index(_value(frame, name)) if name else rank].append(frame)
    return stacks


def _tells(name: str, positions: Any, most: int) -> bool:
    """Whether a field has `most` values in all, and never one twice at a position."""
    every = [[_value(frame, name) for frame in frames] for frames in positions]
    return len({v for values in every for v in values}) == most and all(len(set(v)) == len(v) for v in every)


def _value(frame: Frame, name: str | None) -> tuple[float, str]:
    said = text(frame.header, name or "")
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
