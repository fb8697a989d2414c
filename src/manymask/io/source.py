"""Which image a result was drawn on, told so that another image is never taken for it."""

import hashlib
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from manymask.errors import InputError, ManymaskError
from manymask.io.dicom.header import group, place_of, text
from manymask.io.dicom.series import seen_through
from manymask.io.image import DicomFrame, NiftiSlice, Picture
from manymask.io.inputs import read_pictures
from manymask.io.record import SourceRecord, pixel_hash
from manymask.io.window import header_window


def source_of(picture: Picture, file: str | None = None) -> SourceRecord:
    """The source of a picture: its file's name where there is one to tell, the SOP Instance UID of DICOM, and the hash of
    the pixels before any window, so that another window makes no other source; and the hash of what the file says of them."""
    try:
        pixels = seen_through(picture, "values").pixels
    except ManymaskError:
        pixels = picture.pixels
    uids: tuple[str, ...] = ()
    if isinstance(picture.origin, DicomFrame):
        dataset, number = picture.origin.dataset, picture.origin.number
        uid = str(dataset.get("SOPInstanceUID") or "")
        several = str(dataset.get("NumberOfFrames") or "1") != "1"
        uids = (f"{uid}#{number}" if several else uid,) if uid else ()
    return SourceRecord(file, uids, pixel_hash(pixels), _header_hash(picture))


def _header_hash(picture: Picture) -> str:
    """SHA-256 of what decides results beside the pixels: spacing, place in space, and the grey values that are shown."""
    origin, told = picture.origin, dict[str, Any](spacing=picture.spacing)
    if isinstance(origin, NiftiSlice):
        told["affine"] = origin.affine.tolist()
    elif isinstance(origin, DicomFrame):
        dataset, number = origin.dataset, origin.number
        place, shown = place_of(dataset, number), group(dataset, number, "FrameVOILUTSequence")
        measures = group(dataset, number, "PixelMeasuresSequence")
        told |= {
            "place": None if place is None else [*place.orientation.tolist(), *place.position.tolist()],
            "thickness": [text(measures, name) for name in ("SliceThickness", "SpacingBetweenSlices")],
            "frame of reference": text(dataset, "FrameOfReferenceUID"),
            "window": header_window(shown),
            "table": _table(shown),
            "shades": [
                text(dataset, name) for name in ("PhotometricInterpretation", "PresentationLUTShape", "BitsStored")
            ],
        }
    if told == {"spacing": None}:
        return ""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _table(shown: Any) -> list[str]:
    """The values of the VOI tables, which `text` would cut short."""
    try:
        return [item.to_json() for item in shown.get("VOILUTSequence") or ()]
    except Exception:  # pydicom parses a field when it is asked for, and raises what it likes
        return [text(shown, "VOILUTSequence")]


def only_picture(path: Path) -> Picture:
    """The picture of a file; `InputError` where there are several."""
    found = list(islice(read_pictures([path]), 2))
    if len(found) != 1:
        raise InputError(
            f"{path} holds several pictures: take them one by one from manymask.io.inputs.read_pictures", path=path
        )
    return found[0]


def picture_of_bytes(content: bytes) -> Picture:
    """The picture of a file's bytes, read as a file is; `InputError` where they are no image, or hold several."""
    with TemporaryDirectory(prefix="manymask-") as place:
        path = Path(place) / "image"
        path.write_bytes(content)
        try:
            return replace(only_picture(path), name="the image")
        except ManymaskError as error:
            raise error.reworded(str(error).replace(str(path), "the image")) from None
