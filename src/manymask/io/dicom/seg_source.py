"""What a SEG is told of the images it was drawn on: who they are and where they lie, and nothing of the patient.

highdicom reads patient, study and geometry from the source images, and quotes what it does not like in warnings and
errors. It is therefore given bare headers that hold no field of the patient or the study; those are added at the end,
as they stand in the source, or not at all.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manymask.errors import InputError
from manymask.io.dicom.header import count_frames, group, numbers, place_of
from manymask.io.dicom.spacing import spacing_of
from manymask.io.image import DicomFrame, Picture

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_KEPT = ("Modality", "Rows", "Columns", "FrameOfReferenceUID", "PatientOrientation", "LossyImageCompression",
         "LossyImageCompressionRatio", "LossyImageCompressionMethod")  # fmt: skip
# highdicom asks for these; headers in the wild lack some
_BLANK = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
          "StudyTime", "ReferringPhysicianName")  # fmt: skip


@dataclass(frozen=True)
class SegSource:
    """The pictures that one SEG describes.

    members: their places among the pictures given; images: bare headers, one a slice, or one multi-frame image;
    positions: where the frames lie, for a multi-frame image in space; frame: which one, if it is one of several without
    a place in space; record: the first data set as it came, with its patient and study; frames: the numbers, in their
    file, of the frames that the one image holds.
    """

    members: list[int]
    images: list[Any]
    positions: list[Any] | None
    frame: int | None
    record: Any
    frames: tuple[int, ...] = ()

    @property
    def in_space(self) -> bool:
        """Whether the images have a place in the patient."""
        return "FrameOfReferenceUID" in self.images[0] and "ImagePositionPatient" in self.images[0]

    def frame_number(self, member: int) -> int | None:
        """The number, in its file, of the frame that a member is; None for a file of one frame."""
        return self.frames[member] if self.frames else self.frame

    def uids(self) -> list[str]:
        """SOP Instance UIDs of the images, with the numbers of the frames where only these are meant."""
        numbers = self.frames or ((self.frame,) if self.frame is not None else ())
        return [f"{image.SOPInstanceUID}#{','.join(map(str, numbers))}" for image in self.images]


def sources(pictures: Sequence[Picture]) -> list[SegSource]:
    """Slices of one series that lie in space belong together, so do the frames of one such image; photographs, films
    and X-rays stand alone: without a frame of reference a SEG describes a single frame."""
    together: dict[tuple[Any, ...], list[int]] = {}
    taken: set[tuple[Any, ...]] = set()
    for i, picture in enumerate(pictures):
        origin = _frame(picture)
        dataset, number = origin.dataset, origin.number
        missing = next(
            (name for name in _NEEDED if not (isinstance(dataset.get(name), str) and dataset.get(name))), None
        )
        if missing:
            raise InputError(
                f"{picture.name}: its header has no {missing}, or several, which a SEG needs to refer to it",
                path=picture.name,
            )
        if not _in_space(dataset, number):
            _check_positions(dataset, picture.name)
            key: tuple[Any, ...] = ("frame", dataset.SOPInstanceUID, number)
        elif _multi_frame(dataset):
            key = ("image", dataset.SOPInstanceUID)
        else:
            key = ("series", dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID, dataset.Rows, dataset.Columns)
        together.setdefault(_layer(key, origin, taken), []).append(i)
    return [_source(key[0], members, [_frame(pictures[i]) for i in members]) for key, members in together.items()]


def _layer(key: tuple[Any, ...], origin: DicomFrame, taken: set[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The key with a number behind: a SEG has one image at a position, further ones make further SEGs."""
    place = place_of(origin.dataset, origin.number) if key[0] != "frame" else None
    where = tuple(np.round([*place.orientation, *place.position], 2)) if place is not None else ()
    layer = next(n for n in itertools.count() if not where or (*key, n, *where) not in taken)
    taken.add((*key, layer, *where))
    turn = where[:6] if key[0] == "series" else ()
    return (*key, layer, *turn)


def _check_positions(dataset: Any, name: str) -> None:
    """A volume whose frames have no position of their own cannot be placed in the patient."""
    if _multi_frame(dataset) and dataset.get("FrameOfReferenceUID") and dataset.get("ImagePositionPatient"):
        raise InputError(
            f"{name}: its file gives one position in the patient for all its {count_frames(dataset)} frames, not one for "
            "each, so that no DICOM SEG can be placed on them",
            path=name,
        )


def _frame(picture: Picture) -> DicomFrame:
    if not isinstance(picture.origin, DicomFrame):
        raise InputError(
            f"{picture.name} does not come from DICOM: there is nothing that a SEG could refer to", path=picture.name
        )
    dataset, shape = picture.origin.dataset, picture.pixels.shape[:2]
    if shape != (dataset.get("Rows"), dataset.get("Columns")):
        raise InputError(
            f"{picture.name} has {shape[1]}×{shape[0]} pixels, not what its header says", path=picture.name
        )
    return picture.origin


def _in_space(dataset: Any, number: int) -> bool:
    placed = dataset.get("FrameOfReferenceUID") and place_of(dataset, number)
    return bool(placed) and _measured(dataset, number)


def _measured(dataset: Any, number: int) -> bool:
    """Whether the header's own spacing is that of the patient: not of a detector, nor replaced by another."""
    said = numbers(group(dataset, number, "PixelMeasuresSequence"), "PixelSpacing", 2)
    spacing = spacing_of(dataset, number)
    return said is not None and spacing is not None and bool(np.allclose(said, spacing))


def _multi_frame(dataset: Any) -> bool:
    return "PerFrameFunctionalGroupsSequence" in dataset or count_frames(dataset) > 1


def _source(kind: str, members: list[int], frames: list[DicomFrame]) -> SegSource:
    record, number = frames[0].dataset, frames[0].number
    if kind == "series":
        images = [_bare(frame.dataset, 1) for frame in frames]
        for image in images:  # equal within a hundredth, the reader saw to that; highdicom wants it to the last digit
            image.ImageOrientationPatient = images[0].ImageOrientationPatient
        return SegSource(members, images, None, None, record)
    if kind == "image":
        chosen = [frame.number for frame in frames]
        positions = [_position(record, number) for number in chosen]
        return SegSource(members, [_with_frames(record, chosen)], positions, None, record, tuple(chosen))
    image = _bare(record, number)
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        if name in image:
            del image[name]
    return SegSource(members, [image], None, number if _multi_frame(record) else None, record)


def _bare(dataset: Any, number: int) -> Any:
    """The header that highdicom gets of a single frame. One of several frames is shown as if it were alone."""
    from pydicom import Dataset

    bare = Dataset()
    for name in (*_NEEDED, *(name for name in _KEPT if dataset.get(name))):
        setattr(bare, name, dataset.get(name))
    for name in _BLANK:
        setattr(bare, name, "")
    measures = group(dataset, number, "PixelMeasuresSequence")
    bare.SliceThickness = measures.get("SliceThickness") or None
    if _measured(dataset, number):
        bare.PixelSpacing = measures.PixelSpacing
        # readers insist on a thickness that headers may leave open
        bare.SliceThickness = bare.SliceThickness or measures.get("SpacingBetweenSlices") or measures.PixelSpacing[0]
    if place_of(dataset, number):
        bare.ImageOrientationPatient = group(dataset, number, "PlaneOrientationSequence").ImageOrientationPatient
        bare.ImagePositionPatient = group(dataset, number, "PlanePositionSequence").ImagePositionPatient
    shared, measured = Dataset(), _item(bare, "PixelSpacing", "SliceThickness")
    measured.setdefault(
        "PixelSpacing", [1, 1]
    )  # highdicom wants one of images of several frames; `dicom_seg` takes it out
    shared.PixelMeasuresSequence = [measured]
    bare.SharedFunctionalGroupsSequence, bare.NumberOfFrames = [shared], 1
    return bare


def _with_frames(dataset: Any, chosen: Sequence[int]) -> Any:
    """The header of a multi-frame image that lies in space, with these frames alone: geometry shared by all, a position
    a frame."""
    from pydicom import Dataset

    bare, frames = _bare(dataset, chosen[0]), []
    for number in chosen:
        frame = Dataset()
        frame.PlanePositionSequence = _position(dataset, number)
        frames.append(frame)
    bare.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [_item(bare, "ImageOrientationPatient")]
    bare.PerFrameFunctionalGroupsSequence, bare.NumberOfFrames = frames, len(frames)
    return bare


def _position(dataset: Any, number: int) -> Any:
    from highdicom import PlanePositionSequence

    place = place_of(dataset, number)
    if place is None:
        raise InputError(
            f"frame {number} of a multi-frame image has no position, others have: no SEG can be made of it"
        )
    return PlanePositionSequence("PATIENT", place.position.tolist())


def _item(bare: Any, *names: str) -> Any:
    from pydicom import Dataset

    item = Dataset()
    for name in names:
        if bare.get(name) is not None:
            setattr(item, name, bare.get(name))
    return item
