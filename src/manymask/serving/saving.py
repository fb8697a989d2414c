"""What a visitor makes of a finished drawing, and what is saved of it: masks left out of the consensus, corrections with
the brush, the accepted mask. All of it is computed here; the page shows an estimate until the answer comes. No Gradio
in here."""

import json
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymask.errors import InputError
from manymask.extras import require
from manymask.hub.intended_use import finding
from manymask.inference.correction import AcceptedMask, Stroke, read_strokes
from manymask.inference.outputs import Output, SeriesResult, write_result
from manymask.io.atomic import read_json
from manymask.io.dicom.objects import derived_objects, write_objects
from manymask.io.nifti import write_nifti
from manymask.io.nifti_grid import geometry_of
from manymask.io.raster import to_channels
from manymask.serving.service import FinishedDrawing, Form, check_threshold
from manymask.serving.view_model import measured


@dataclass(frozen=True)
class Edit:
    """What a visitor makes of a drawing.

    Attributes:
        left_out: numbers of masks, from 1, that count neither for the confidence nor for the consensus.
        strokes: corrections of the consensus.
        accepted: whether the consensus, corrected so, is saved as the accepted mask.
    """

    left_out: tuple[int, ...] = ()
    strokes: tuple[Stroke, ...] = ()
    accepted: bool = False


def read_edit(drawing: FinishedDrawing, left_out: Any = (), strokes: Any = None, accepted: bool = False) -> Edit:
    """An edit as the page or a program gives it.

    Args:
        drawing: the drawing.
        left_out: numbers of masks, from 1.
        strokes: as JSON holds them, see `read_strokes`; None for none.
        accepted: whether the mask is accepted.

    Returns:
        The edit.

    Raises:
        InputError: it makes no sense for this drawing.
    """
    drawn = drawing.record.samples
    try:
        numbers = tuple(sorted({int(number) for number in left_out}))
    except (TypeError, ValueError, OverflowError):
        raise InputError("masks to leave out are whole numbers, such as 2; 5") from None
    if any(not 1 <= number <= drawn for number in numbers):
        raise InputError(f"masks to leave out have numbers from 1 to {drawn}")
    if len(numbers) == drawn:
        raise InputError("at least one mask must count")
    return Edit(numbers, read_strokes([] if strokes is None else strokes), accepted)


def read_edit_text(drawing: FinishedDrawing, left_out: Any, accepted: Any) -> Edit:
    """The same from the texts of a program: `2; 5`, and the strokes of the accepted mask as JSON, empty for no such mask."""
    numbers = [part for part in re.split(r"[;,\s]+", str(left_out or "").strip()) if part]
    text = str(accepted or "").strip()
    try:
        strokes = json.loads(text or "[]")
        if not isinstance(strokes, list):
            raise ValueError
    except (ValueError, RecursionError):
        raise InputError(
            "the accepted mask is given by a JSON list of strokes, [] for the consensus as it is"
        ) from None
    return read_edit(drawing, numbers, strokes, bool(text))


def recount(drawing: FinishedDrawing, threshold: float, edit: Edit) -> dict[str, Any]:
    """The numbers of an edited drawing, as the page shows them.

    Args:
        drawing: the drawing.
        threshold: of the consensus.
        edit: what the visitor made of it.

    Returns:
        JSON-able: what `view_model.measured` gives, warnings, the masks left out, and the area after the corrections.
    """
    found = drawing.result(check_threshold(threshold), edit.left_out)
    area = AcceptedMask.of(found.consensus.numpy(), edit.strokes).facts(None)["area"] if edit.strokes else None
    return {**measured(found), "warnings": [*drawing.subject.notices, *found.warnings],
            "left_out": list(edit.left_out), "corrected_area": area}  # fmt: skip


def pack(
    drawing: FinishedDrawing,
    threshold: float,
    form: Form,
    folder: Path,
    alpha: float | None = None,
    edit: Edit = Edit(),
) -> tuple[Path, dict[str, Any]]:
    """A ZIP of everything in `folder`, named after the image: masks, consensus, confidence, overlay, result.json; the
    accepted mask, if there is one; and the same as NIfTI or DICOM SEG, if asked for.

    Args:
        drawing: the drawing.
        threshold: of the consensus.
        form: one of `drawing.forms()`.
        folder: where the ZIP is put.
        alpha: of the inner and the outer outline; see `Segmenter.outline_alpha`.
        edit: what the visitor made of the drawing.

    Returns:
        The ZIP, and what is in result.json.

    Raises:
        InputError: the drawing cannot be saved so.
    """
    threshold = check_threshold(threshold)
    if form == "NIfTI":
        require("nifti", "NIfTI", "nibabel")
    if form not in drawing.forms():
        raise InputError(f"{form} needs another source; this one is saved as {' or '.join(drawing.forms())}")
    found, shown = drawing.result(threshold, edit.left_out), drawing.subject.shown
    assert found.record is not None
    share = drawing.segmenter.outline_alpha(alpha, found.record)
    facts = drawing.facts(found) | ({"nifti_geometry": geometry_of(shown)} if form == "NIfTI" else {})
    accepted = AcceptedMask.of(found.consensus.numpy(), edit.strokes) if edit.accepted else None
    name = re.sub(r"[^\w.-]+", "_", shown.name)[:80].strip("._") or "image"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        inside = Path(work) / name
        image = to_channels(shown.pixels, found.image.shape[2])
        output = Output(found, image, facts, shown.spacing, share, accepted=accepted)
        write_result(inside, output)
        _add_form(inside, form, drawing, output)
        archive = folder / f"{name}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for path in sorted(inside.iterdir()):
                file.write(path, f"{name}/{path.name}")
        return archive, read_json(inside / "result.json")


def _add_form(inside: Path, form: Form, drawing: FinishedDrawing, output: Output) -> None:
    """NIfTI or DICOM SEG beside the PNG files."""
    pictures, kept = [drawing.subject.shown], [SeriesResult.of(output)]
    accepted = [] if output.accepted is None else [output.accepted.mask]
    if form == "NIfTI":
        write_nifti(inside, pictures, kept, output.found.numbers, accepted)
    elif form == "DICOM SEG":
        told = read_json(inside / "result.json") if accepted else {}
        facts = {**output.facts, **({"accepted": told["accepted"]} if accepted else {})}
        marked = finding(drawing.segmenter.recipe.dataset)
        write_objects(inside, derived_objects(pictures, kept, facts, finding=marked, accepted=accepted))
