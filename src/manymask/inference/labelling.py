"""`triage --export`: the most doubtful images as a folder to label, which `manymask prepare folder` takes back.

Either the masks or the polygons are corrected; which of them count is said when the folder is read (`--masks`).

DIR/labelling/images/      the images as PNG
DIR/labelling/masks/       the consensus of each as its proposed mask
DIR/labelling/labelme/     the same as polygons, one labelme file per image
DIR/labelling/drawn/NAME/  all masks that were drawn
DIR/labelling/labelling.json, README.txt
An existing folder is never touched: the next one is labelling-2. Images keep the sub-folders of their source. Where some
belong together (slices of a volume, images of a patient), all are called GROUP__NAME, by which `prepare folder` keeps them
in one part of a split.
"""

import itertools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from manymask.data.datasets.groups import MARK, groups_of
from manymask.data.datasets.pairs import bare_name
from manymask.errors import InputError
from manymask.inference.entries import Entry
from manymask.inference.triage import Ranked, TriageRun
from manymask.io.atomic import atomic_folder, read_object, write_json
from manymask.io.dicom.file import patient_in
from manymask.io.dicom.series import seen_through
from manymask.io.image import DicomFrame, Picture
from manymask.io.inputs import Raster
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
    names = _Names(chosen, entries, inputs)
    path = _free(out)
    with atomic_folder(path) as folder:
        for number in sorted({each.entry for each in chosen}):
            wanted = [each.name for each in chosen if each.entry == number]
            for result, picture in _pictures(run, entries[number], wanted):
                shown = seen_through(picture, run.segmenter.recipe.window).pixels
                _write_one(folder, names.of(result, picture), out / result, shown, run.label)
        about = [
            {"image": names.given[each.name], "result": each.name, "doubt": round(each.doubt, 4)} for each in chosen
        ]
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


class _Names:
    """Names of the chosen pictures, without ending: those of their results, in the sub-folders that their files have.

    given: the names so far, by result.
    """

    def __init__(self, chosen: Sequence[Ranked], entries: Sequence[Entry], inputs: Sequence[Path]) -> None:
        self._entry = {each.name: each.entry for each in chosen}
        self._inside = [_inside(entry, inputs) for entry in entries]
        names = [self._place(number) for number in range(len(entries))]
        self._group = list(groups_of(dict(zip(names, names, strict=True)))[0].values())
        kept = [self._group[each.entry] for each in chosen]
        volumes = any(not isinstance(entries[each.entry], Raster) for each in chosen)
        marked = {MARK in each.name for each in chosen}
        self._grouped = volumes or (marked != {True} and len(set(kept)) < len(kept))
        self._plain = not self._grouped and len(marked) > 1
        self.given: dict[str, str] = {}
        self._kept = {(self._inside[each.entry][0] / each.name).as_posix() for each in chosen if MARK not in each.name}

    def _place(self, number: int) -> str:
        """Of an entry among all, by which groups are found: its path below the inputs, or a number where it has none."""
        folder, stem = self._inside[number]
        return (folder / (stem or f"series-{number + 1}")).as_posix()

    def of(self, result: str, picture: Picture) -> str:
        """The name of a picture, which is not given again."""
        number, name = self._entry[result], result
        if self._grouped:
            patient = patient_in(picture.origin.dataset) if isinstance(picture.origin, DicomFrame) else None
            name = f"{_word(patient or self._group[number])}{MARK}{_word(result)}"
        elif self._plain and MARK in result:  # `prepare folder` refuses names of which only some hold a group
            name = _word(result)
        folder = self._inside[number][0]
        tried = (name if k == 1 else f"{name}-{k}" for k in itertools.count(1))
        taken = {*self.given.values(), *(self._kept if name != result and self._plain else ())}
        self.given[result] = next(path for each in tried if (path := (folder / each).as_posix()) not in taken)
        return self.given[result]


def _inside(entry: Entry, inputs: Sequence[Path]) -> tuple[PurePosixPath, str]:
    """The sub-folder of an entry's file below the inputs and its name without ending; nothing where it has no file of its own."""
    path: Path | None = getattr(entry, "path", None)
    if path is None:
        return PurePosixPath(), ""
    above = next((folder for folder in inputs if path != folder and path.is_relative_to(folder)), path.parent)
    inside = path.relative_to(above)
    return PurePosixPath(inside.parent.as_posix()), PurePosixPath(bare_name(inside)).name


def _word(text: str) -> str:
    """Text as a part of a name that holds no group."""
    return re.sub(r"[/\\_]+", "_", text).strip("_") or "_"


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
