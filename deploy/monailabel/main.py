"""An app of MONAI Label: manymask proposes the consensus of many masks, and the next image is the most doubtful one.

monailabel start_server --app deploy/monailabel --studies FOLDER --conf model isic2018

`--conf` takes `model` (a name or folder, needed), `samples` (5), `seed` (0) and `scored` (20). MONAI Label wants an environment
of its own; see docs/how-to/viewers.md.
"""

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from PIL import Image

from manymask import Segmenter
from manymask.errors import InputError, ManymaskError
from manymask.hub.intended_use import finding
from manymask.inference.batch import segment_all
from manymask.inference.earlier import read_result
from manymask.inference.entries import find_entries
from manymask.inference.request import Request
from manymask.inference.tally import RunSummary
from manymask.inference.triage import doubt_of
from manymask.io.inputs import Raster

KEY = "manymask"  # of an image's information: its doubt, and the weights that it is of
SHOWN = ("promises", "pairwise_iou", "areas", "areas_mm2", "volumes", "warnings", "seed")
SERVED = 600  # seconds in which an image that somebody labels is not offered to others, unless it is the only one

logger = logging.getLogger(__name__)


class ManyMasks(InferTask):
    """Draws the masks of an image or volume; the label is their consensus, 0 and 1.

    Attributes:
        segmenter: the model.
        samples: number of masks.
        seed: of the masks.
    """

    def __init__(self, segmenter: Segmenter, samples: int, seed: int) -> None:
        self.segmenter, self.samples, self.seed = segmenter, samples, seed
        label = finding(segmenter.recipe.dataset).finding[1].lower()
        super().__init__(InferType.SEGMENTATION, {label: 1}, 2, "The consensus of many plausible masks. For research.")

    @property
    def weights(self) -> str:
        """What tells this model from others."""
        return str(self.segmenter.trained.fingerprint)

    def is_valid(self) -> bool:
        """Whether it can be used."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment `image`, a file of an image or a volume; `rois`, [[x, y], …], for a model of regions.

        Returns:
            A file with the label, which MONAI Label removes: a PNG for an image, NIfTI for a volume. And the doubt, with
            the numbers of `result.json`.
        """
        with tempfile.TemporaryDirectory(prefix="manymask-") as place:
            folder, result = self.draw(Path(request["image"]), Path(place), request.get("rois", ()))
            found = folder / "consensus.nii.gz"
            handle, label = tempfile.mkstemp(suffix=".nii.gz" if found.exists() else ".png")
            os.close(handle)
            if found.exists():
                shutil.copyfile(found, label)
            else:
                pixels = np.asarray(Image.open(folder / "consensus.png")) > 0
                Image.fromarray(pixels.astype(np.uint8)).save(label)
        told = {name: result[name] for name in SHOWN if name in result}
        return label, {"label_names": self.labels, "doubt": doubt_of(result), **told}

    def draw(self, image: Path, place: Path, rois: Any = ()) -> tuple[Path, dict[str, Any]]:
        """Segment a file.

        Args:
            image: the file.
            place: an empty folder.
            rois: [[x, y], …], for a model of regions.

        Returns:
            The folder of the result, and its result.json.

        Raises:
            InputError: the file cannot be segmented.
        """
        errors: list[ManymaskError] = []
        tally = RunSummary(worded=lambda error: errors.append(error) or str(error))
        entries, found = find_entries([str(image)])
        for problem in found.problems:
            raise InputError(problem)
        form = "png" if all(isinstance(entry, Raster) for entry in entries) else "nifti"
        centres = [(int(x), int(y)) for x, y in rois]
        segment_all(
            self.segmenter, entries, Request(place, self.samples, self.seed, rois=centres, forms=(form,)), tally
        )
        folders = sorted(path.parent for path in place.glob("*/result.json"))
        if not folders:
            raise errors[0] if errors else InputError(f"{image.name} cannot be segmented")
        return folders[-1], read_result(folders[-1])


class MostDoubtful(Strategy):
    """Offers the image that no one has labelled yet whose masks are the most doubtful: where a label helps most.

    Each call scores at most `scored` images that have no score of this model yet, so that the answer comes soon.
    """

    def __init__(self, task: ManyMasks, scored: int) -> None:
        self.task, self.scored = task, scored
        super().__init__("The most doubtful of the images without a label")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The next image: its `id` and its `doubt`; None if all have labels."""
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        known = {image: self._known(datastore.get_image_info(image)) for image in images}
        missing = [image for image in images if known[image] is None]
        for image in missing[: int(request.get("scored", self.scored))]:
            known[image] = self._score(image, datastore)
        ranked = sorted(
            (self._served(request, datastore.get_image_info(image)), -(doubt or 0.0), image)
            for image, doubt in known.items()
        )
        if not ranked:
            return None
        _, doubt, image = ranked[0]
        return {"id": image, "doubt": -doubt}

    def _known(self, info: dict[str, Any]) -> float | None:
        found = info.get(KEY, {})
        return found.get("doubt") if found.get("weights") == self.task.weights else None

    def _score(self, image: str, datastore: Datastore) -> float:
        """The doubt of an image, which is kept; 0 for one that cannot be read, with the reason."""
        kept: dict[str, Any] = {"weights": self.task.weights}
        try:
            with tempfile.TemporaryDirectory(prefix="manymask-") as place:
                _, result = self.task.draw(Path(datastore.get_image_uri(image)), Path(place))
            kept["doubt"] = round(doubt_of(result), 6)
        except ManymaskError as error:
            logger.warning("%s is offered last: %s", image, error)
            kept |= {"doubt": 0.0, "error": str(error)}
        datastore.update_image_info(image, {KEY: kept})
        return float(kept["doubt"])

    def _served(self, request: dict[str, Any], info: dict[str, Any]) -> bool:
        when = info.get("strategy", {}).get(request.get("strategy"), {}).get("ts", 0)
        return time.time() - float(when) < SERVED


class ManymaskApp(MONAILabelApp):
    """What MONAI Label starts."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if not conf.get("model"):
            raise InputError("name a model: --conf model isic2018")
        self.task = ManyMasks(
            Segmenter.from_pretrained(conf["model"]), int(conf.get("samples", 5)), int(conf.get("seed", 0))
        )
        super().__init__(app_dir, studies, conf, "manymask", "Many plausible masks. For research use only.")

    def init_infers(self) -> dict[str, InferTask]:
        """The only model."""
        return {"manymask": self.task}

    def init_strategies(self) -> dict[str, Strategy]:
        """The next sample."""
        return {"doubt": MostDoubtful(self.task, int(self.conf.get("scored", 20)))}
