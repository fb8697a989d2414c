"""What every DICOM object of a result has in common: who made it, by which model, and UIDs that a rerun repeats."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from manymask._version import __version__
from manymask.errors import InputError
from manymask.io.dicom.header import whole_number
from manymask.io.dicom.seg_source import SegSource
from manymask.io.dicom.uid import derived_uid, instance_uid, series_uid

# the place of a label is part of the series number
LABELS = ("MASKS", "CONFIDENCE", "LEVELS", "ACCEPTED", "CONSENSUS", "FRACTIONAL", "MEASUREMENTS", "OUTLINES")
SCHEME = "99MANYMASK"  # of codes that no standard has
RESEARCH = "For research, not for diagnosis or treatment"


def label_of(dataset: Any) -> str:
    """The label of an object, one of LABELS: its content label, which reports do not have."""
    return str(dataset.get("ContentLabel") or "MEASUREMENTS")


def identity(
    source: SegSource, label: str, facts: Mapping[str, Any], content: np.ndarray, instance: int
) -> dict[str, Any]:
    """The arguments that the constructors of highdicom share.

    Args:
        source: the images.
        label: one of LABELS.
        facts: as in result.json.
        content: what the object holds, from which its UID is derived.
        instance: its number in its series.
    """
    parameters = parameters_of(facts)
    return {
        "series_instance_uid": series_uid(source.images[0].SeriesInstanceUID, label, parameters),
        "series_number": _series_number(source.record, label),
        "sop_instance_uid": instance_uid(source.uids(), label, parameters, content),
        "instance_number": instance,
        "manufacturer": "manymask",
        "manufacturer_model_name": "manymask",
        "software_versions": tuple(versions(facts)),
        "device_serial_number": __version__,
        "series_description": _described(facts, label),
        "specific_character_set": "ISO_IR 192",
    }


def finish(made: Any, source: SegSource, facts: Mapping[str, Any]) -> Any:
    """Completes an object of highdicom in place: equipment, date of the series, UIDs that a rerun repeats."""
    made.ContributingEquipmentSequence = [_equipment(facts)]
    made.SeriesDate = made.get("ContentDate") or made.PresentationCreationDate
    made.SeriesTime = made.get("ContentTime") or made.PresentationCreationTime
    if "PerFrameFunctionalGroupsSequence" in made:
        _mend(made, source)
        _repeatable_dimensions(made)
    return made


def refused(name: str, error: Exception) -> InputError:
    """For images that highdicom cannot refer to. It saw bare headers without a patient, so what it says may be shown."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip(" .'\"")[:200]
    return InputError(f"{name}: no DICOM SEG can refer to it ({line})", path=name)


def model_of(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts.get("model") or {"name": "manymask", "dataset": ""}


def parameters_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the masks of a source, flat: the model with the hash of its weights, and the settings."""
    model = {"model": model_of(facts)["name"], "recipe": model_of(facts).get("recipe", ""),
             "weights_sha256": model_of(facts).get("weights_sha256", "")}  # fmt: skip
    told = {name: facts[name] for name in ("samples", "orientations", "seed", "threshold") if name in facts}
    rois = {"rois": "; ".join(f"{x},{y}" for x, y in facts["rois"])} if facts.get("rois") else {}
    left_out = {"left_out": ", ".join(map(str, facts["left_out"]))} if facts.get("left_out") else {}
    outlines = {f"outlines.{name}": value for name, value in (facts.get("outlines") or {}).items()}
    return (
        model
        | told
        | rois
        | left_out
        | outlines
        | {f"sampler.{name}": value for name, value in (facts.get("sampler") or {}).items()}
    )


def versions(facts: Mapping[str, Any]) -> list[str]:
    program = facts.get("manymask") or {"version": __version__, "git": ""}
    return [str(program[name]) for name in ("version", "git") if program[name]]


def _described(facts: Mapping[str, Any], label: str) -> str:
    """A series description, at most 64 letters: the model first, since viewers show the beginning alone."""
    name = re.sub(r"[^\w .+-]", "_", model_of(facts)["name"])
    rest = f": {label.lower()} (manymask, research use)"
    return name.encode("ascii", "replace").decode().replace("?", "_")[: 64 - len(rest)] + rest


def _equipment(facts: Mapping[str, Any]) -> Any:
    """The program and model as an item of the Contributing Equipment Sequence."""
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    code, item = Dataset(), Dataset()
    purpose = codes.DCM.ProcessingEquipment
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose.value, "DCM", purpose.meaning
    item.PurposeOfReferenceCodeSequence = [code]
    item.Manufacturer, item.ManufacturerModelName = "manymask", _described(facts, "model")
    item.SoftwareVersions = versions(facts)
    item.ContributionDescription = f"Drew the masks; SHA-256 of the weights {model_of(facts).get('weights_sha256', '')}"
    return item


def _mend(seg: Any, source: SegSource) -> None:
    """What highdicom leaves open for images that lie nowhere in space."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "PixelSpacing" not in source.images[0] and "PixelMeasuresSequence" in shared:
        del shared.PixelMeasuresSequence  # stood in for a spacing that is not known
    references = {id(image): image for image in _references(seg)}  # frames share them
    for image in references.values():
        if source.frame is not None:  # the frame was segmented, highdicom refers to the whole image
            image.ReferencedFrameNumber = source.frame
        elif source.frames:  # it counts the frames that it was given
            image.ReferencedFrameNumber = source.frames[int(image.ReferencedFrameNumber) - 1]
    if "FrameOfReferenceUID" not in source.images[0] or "ImagePositionPatient" not in source.images[0]:
        seg.PatientOrientation = source.images[0].get("PatientOrientation")


def _references(seg: Any) -> Iterator[Any]:
    """What the frames of a SEG say of the images they lie on."""
    for frame in seg.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence", ()):
            yield from derivation.SourceImageSequence


def _repeatable_dimensions(made: Any) -> None:
    """highdicom draws the UID of the dimensions at random."""
    uid = derived_uid("dimensions", made.SOPInstanceUID)
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _series_number(record: Any, label: str) -> int:
    """100 × that of the source + the place of the label, as long as it stays a number that viewers sort by."""
    number = whole_number(record, "SeriesNumber") or 0
    return 100 * (number if 0 <= number < 10_000_000 else 0) + 1 + LABELS.index(label)
