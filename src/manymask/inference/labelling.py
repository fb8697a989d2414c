"""`triage --export`: the most doubtful images as a folder to label, which `manymask prepare folder` takes back.

Either the masks or the polygons are corrected; which of them count is said when the folder is read (`--masks`).

DIR/labelling/images/      the images as PNG
DIR/labelling/masks/       the consensus of each as its proposed mask
DIR/labelling/labelme/     the same as polygons, one labelme file per image
DIR/labelling/drawn/NAME/  all masks that were drawn
DIR/labelling/labelling.json, README.txt
An existing folder is never touched: the next one is labelling-2. Images keep the sub-folders of their source, by which
`prepare folder` recognises patients.
"""

import itertools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from manymask.errors import InputError
from manymask.inference.entries import Entry
from manymask.inference.triage import Ranked, TriageRun
from manymask.io.atomic import atomic_folder, read_object, write_json
from manymask.io.dicom.series import seen_through
from manymask.io.image import Picture
from manymask.io.labelme import labelme_record
from manymask.io.raster import to_channels, write_png
from manymask.io.record import SourceRecord, now
from manymask.io.source import source_of

NAME = "labelling"

README = """These are the images whose masks are the most doubtful, with proposed masks to correct.

images/    the images
masks/     one proposed mask per image, 0 and 255: correct these
labelme/   the same proposals as polygons (labelme images --output labelme --nodata); holes are filled
drawn/     all masks that the model drew, to copy a better one from

Correct either masks/ or labelme/, and say which of them counts:

manymask prepare folder --source THIS_FOLDER --out STORE --masks masks
manymask prepare folder --source THIS_FOLDER --out STORE --masks labelme

Masks that were not corrected are the model's own opinion.
"""


def export_labelling(run: TriageRun, entries: Sequence[Entry], inputs: Sequence[Path], count: int) -> Path:
    """Write the most doubtful images with their masks as proposals.

    Args:
        run: a finished run.
        entries: what it went through.
        inputs: the files and folders that these were found in.
        count: how many images; all if there are fewer.

    Returns:
        The new folder.

    Raises:
        InputError: an image that was segmented can no longer be read.
    """
    out = run.request.out
    chosen = run.ranked[:count]
    names = dict(zip((each.name for each in chosen), _names(chosen, entries, inputs), strict=True))
    path = _free(out)
    with atomic_folder(path) as folder:
        for number in sorted({each.entry for each in chosen}):
            wanted = [each.name for each in chosen if each.entry == number]
            for result, picture in _pictures(run, entries[number], wanted):
                shown = seen_through(picture, run.segmenter.recipe.window).pixels
                _write_one(folder, names[result], out / result, shown, run.label)
        about = [{"image": names[each.name], "result": each.name, "doubt": round(each.doubt, 4)} for each in chosen]
        model = read_object(out / chosen[0].name / "result.json")["model"]
        write_json(folder / "labelling.json", {"created": now(), "model": model, "images": about})
        (folder / "README.txt").write_text(README, encoding="utf-8")
    return path


def _free(out: Path) -> Path:
    """The first of labelling, labelling-2, … that is not there: somebody may have edited the others."""
    numbered = (out / (NAME if number == 1 else f"{NAME}-{number}") for number in itertools.count(1))
    return next(path for path in numbered if not os.path.lexists(path))


def _pictures(run: TriageRun, entry: Entry, wanted: Sequence[str]) -> Iterator[tuple[str, Picture]]:
    """Those pictures of an entry that the wanted results are of."""
    out = run.request.out
    left = {name: SourceRecord.read(read_object(out / name / "result.json")) for name in wanted}
    for picture in entry.pictures(None):
        if not left:
            return
        source = source_of(picture, entry.file)
        name = next((name for name, known in left.items() if not known.differs(source)), None)
        if name is not None:
            del left[name]
            yield name, picture
    if left:
        raise InputError(f"the image of {out / min(left)} has changed since it was segmented: run again", path=out)


def _names(chosen: Sequence[Ranked], entries: Sequence[Entry], inputs: Sequence[Path]) -> list[str]:
    """Names without ending: that of the result, in the sub-folder that its file has below the inputs."""
    found = []
    for each in chosen:
        path = getattr(entries[each.entry], "path", None)
        above = next((folder for folder in inputs if path is not None and path.is_relative_to(folder)), None)
        inside = (
            Path() if path is None or above is None else path.parent.relative_to(above) if path != above else Path()
        )
        found.append((inside / each.name).as_posix())
    if len({"__" in name.rsplit("/", 1)[-1] for name in found}) < 2:
        return found
    # `prepare folder` reads PATIENT__… and refuses a mixture: where only some names hold it, it names no patients
    given: list[str] = []
    for name in found:
        given.append(_without(name, [*given, *(other for other in found if other != name)]))
    return given


def _without(name: str, taken: Sequence[str]) -> str:
    """A name without `__` that is not taken."""
    folder, _, last = name.rpartition("/")
    plain = re.sub("__+", "_", last)
    tried = (plain if number == 1 else f"{plain}-{number}" for number in itertools.count(1))
    return next(path for each in tried if (path := f"{folder}/{each}".lstrip("/")) not in taken)


def _write_one(folder: Path, name: str, result: Path, pixels: np.ndarray, label: str) -> None:
    """The image, its proposed mask, the same as polygons, and all drawn masks."""
    image = to_channels(pixels, 3 if pixels.ndim == 3 and pixels.shape[2] > 1 else 1)
    for kind in ("images", "masks", "labelme"):
        (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
    write_png(folder / "images" / f"{name}.png", image if image.shape[2] == 3 else image[:, :, 0])
    with Image.open(result / "consensus.png") as file:
        consensus = np.asarray(file) > 0
    write_png(folder / "masks" / f"{name}.png", consensus)
    up = "../" * (name.count("/") + 1)
    record = labelme_record(f"{up}images/{name}.png", consensus.shape, consensus, label)
    write_json(folder / "labelme" / f"{name}.json", record)
    drawn = folder / "drawn" / name
    drawn.mkdir(parents=True)
    for mask in sorted(result.glob("mask-*.png")):
        shutil.copyfile(mask, drawn / mask.name)
