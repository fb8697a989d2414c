"""Models on disk and in the hand: `Segmenter` is what users hold, a model folder is what they share.

MODEL/config.json          the recipe, the stage, what it was trained on, what it is for
MODEL/*.safetensors        one file a part (image_codec, mask_codec, denoiser, network, codec, …)
MODEL/training_ids.txt     the cases it has seen, so that they are never tested on
MODEL/training_hashes.txt  what their images look like, so that a test on them under other names is noticed
MODEL/README.md            the model card
MODEL/LICENSE              the terms of the data it was trained on
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from PIL import Image
from torch import Tensor, nn

from manymask import card
from manymask.cautions import cautions
from manymask.consensus import Consensus, fuse
from manymask.data.twins import hashes_as_text, hashes_from_text
from manymask.datasets import Intended, intended, read_intended
from manymask.errors import UserError
from manymask.files.atomic import atomic_file, atomic_folder, read_object, write_json
from manymask.files.depth import stretch_note
from manymask.files.dicom import seen_through
from manymask.files.picture import DicomFrame, Picture
from manymask.files.raster import pil_pixels
from manymask.files.source import only_picture, source_of
from manymask.files.tensors import write_tensors, writing
from manymask.files.text import read_text
from manymask.licences import Licence, licence
from manymask.model_files import find_model, outline, own_file, read_weights
from manymask.provenance import Provenance
from manymask.recipes import Recipe, Stage, name_of
from manymask.record import ModelRecord, Record, SourceRecord
from manymask.regions import Point, Region, View, look
from manymask.samplers import Sampler
from manymask.settings import from_dict, to_dict
from manymask.stream import Watch

_DOWNLOAD = {"revision", "token", "cache_dir", "force_download", "local_files_only"}
FORMAT = 1
MOST_CONFIG = 1_000_000

ImageLike = Path | str | np.ndarray | Tensor | Image.Image | Picture


@dataclass
class TrainedModel:
    """A model of any stage with all that is saved beside it. name: of its folder; use: what it is for, by default that of
    its data set; training_hashes: of the images it has seen (`data.twins`), None where they are not known."""

    model: nn.Module
    recipe: Recipe
    stage: Stage
    provenance: Provenance
    training_ids: list[str]
    name: str = ""
    use: Intended | None = None
    training_hashes: np.ndarray | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and values of all weights as they are used, in hexadecimal digits: whether
        stored whole or in half precision, equal weights have equal fingerprints. Computed once."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def intended(self) -> Intended:
        return intended(self.recipe.dataset) if self.use is None else self.use

    @property
    def record(self) -> ModelRecord:
        """What a result tells of its model."""
        use = self.intended
        about = (use.purpose, use.modality, use.trained_on)
        recipe = name_of(self.recipe)
        return ModelRecord(self.name or recipe, recipe, self.recipe.dataset, self.fingerprint, *about)

    @property
    def licence(self) -> Licence:
        """The terms of all the data, and of the pretrained weights, that it has seen."""
        encoder = self.recipe.encoder if self.stage == "segmenter" else "own"
        return licence(*(self.provenance.data_sets or (self.recipe.dataset,)), encoder=encoder)


def _parts(model: nn.Module, stage: Stage) -> dict[str, nn.Module]:
    return dict(model.named_children()) if stage == "segmenter" else {"codec": model}


def write_model(trained: TrainedModel, folder: Path, half: bool = False) -> None:
    """Fills an existing folder; `half` stores floating-point weights in half precision."""
    for name, part in _parts(trained.model, trained.stage).items():
        tensors = part.state_dict()
        if half:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        if tensors:
            write_tensors(folder / f"{name}.safetensors", tensors, {"format": "pt"})
    config = {"format": FORMAT, "stage": trained.stage, "recipe": to_dict(trained.recipe)}
    use = {k: v for k, v in to_dict(trained.intended).items() if k != "kind"}
    write_json(folder / "config.json", {**config, **use, "provenance": to_dict(trained.provenance)})
    terms = trained.licence
    text = card.write(
        trained.recipe, trained.stage, trained.provenance, len(trained.training_ids), terms.tag, use["purpose"]
    )
    _write(folder / "training_ids.txt", "\n".join(trained.training_ids) + "\n")
    if trained.training_hashes is not None:
        _write(folder / "training_hashes.txt", hashes_as_text(trained.training_hashes))
    _write(folder / "README.md", text)
    _write(folder / "LICENSE", terms.text)


def _write(path: Path, text: str) -> None:
    with writing(path), atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def save_model(trained: TrainedModel, folder: Path, half: bool = False) -> None:
    """Writes a model folder whole or not at all, replacing an older one."""
    with atomic_folder(folder, ours="config.json") as beside:
        write_model(trained, beside, half)


def load_model(name: Path | str, **download: Any) -> TrainedModel:
    """A model folder, or a run folder with one inside; see `find_model` for other names.

    A stranger's folder is checked before anything is built: sizes of files, settings within the bounds of `limits`, and
    the shapes of all weights. Raises `UserError` that names what is missing or wrong.
    """
    title = Path(name).resolve().name
    folder = find_model(name, **download)
    place = folder / "config.json"
    config = read_object(own_file(place), MOST_CONFIG)
    if config.get("format") != FORMAT:
        raise UserError(f"{place}: format {config.get('format')!r:.40}, this version reads {FORMAT}")
    if not {"recipe", "stage"} <= set(config):
        raise UserError(f"{place} names no recipe or no stage: the model folder is not complete")
    recipe = from_dict(Recipe, config["recipe"], f"{place}: recipe")
    stage = from_dict(Stage, config["stage"], f"{place}: stage")
    provenance = from_dict(Provenance, config.get("provenance", {}), f"{place}: provenance")
    ids = folder / "training_ids.txt"
    if not ids.exists():
        raise UserError(f"{ids} is missing: without it nothing tells which cases the model has seen")
    training_ids = read_text(own_file(ids)).split("\n")[:-1]
    weights = read_weights(_parts(outline(recipe, stage, place), stage), folder)
    model = recipe.build(stage)
    for part_name, part in _parts(model, stage).items():
        part.load_state_dict(weights.get(part_name, {}))
    use = read_intended(config, recipe.dataset, str(place))
    hashes = _read_hashes(folder / "training_hashes.txt")
    return TrainedModel(model.eval(), recipe, stage, provenance, training_ids, title, use, hashes)


def _read_hashes(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return hashes_from_text(read_text(own_file(path)))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): copy the model folder again") from None


def default_device() -> str:
    """CUDA where there is any."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Segmentation(Consensus):
    """What `Segmenter.segment` returns, all at the image's own size: masks (n, H, W), probabilities, and the maps of
    `Consensus` (H, W). `regions` are what a crop model looked at (outside, probabilities are 0); `seconds` tells where
    the time went; `warnings` are sentences to read before trusting it; `record` tells what made it."""

    masks: Tensor
    image: np.ndarray
    seconds: dict[str, float]
    regions: tuple[Region, ...] = ()
    warnings: tuple[str, ...] = ()
    record: Record | None = None


class Segmenter(ModelHubMixin, library_name="manymask", tags=["medical-image-segmentation", "diffusion"]):
    """A trained segmenter: `Segmenter.from_pretrained(path).segment(image, samples=5, seed=0)`."""

    def __init__(self, trained: TrainedModel, device: str | None = None) -> None:
        if trained.stage != "segmenter":
            raise UserError(f"this model is a codec ({trained.stage}); give the folder of a trained segmenter")
        self.trained, self.recipe = trained, trained.recipe
        self.device = _checked(device) if device else default_device()
        self.model: Any = trained.model.to(self.device).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model(self.trained, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, model: Path | str, *, device: str | None = None, **download: Any
    ) -> "Segmenter":
        """A model folder, a run folder, or `hf://ORG/NAME` of the Hugging Face Hub; see `find_model`.

        download: `revision`, `token`, `cache_dir`, `force_download` or `local_files_only`, for the Hub alone.
        Raises `UserError` in one line; a local path never leaves the machine.
        """
        unknown = sorted(set(download) - _DOWNLOAD)
        if unknown:
            raise UserError(f"from_pretrained has no argument {', '.join(unknown)}")
        return cls(load_model(model, **download), device)

    def look(self, image: ImageLike, rois: Sequence[Point] = ()) -> View:
        """Anything image-like as the model sees it; pixels deeper than 8 bits are stretched."""
        picture = self.picture(image)
        return look(picture.pixels, self.recipe, rois, picture.name)

    def picture(self, image: ImageLike) -> Picture:
        """Anything image-like through the model's own window: a path is read as `manymask segment` reads it."""
        if isinstance(image, Picture):
            return image
        if isinstance(image, (str, Path)):
            return seen_through(only_picture(Path(image)), self.recipe.window)
        if isinstance(image, Image.Image):
            image = pil_pixels(image)
        if isinstance(image, Tensor):
            image = image.detach().cpu().numpy()
        if not isinstance(image, np.ndarray):
            raise UserError(f"an image is a path, an array, a Pillow image or a Picture, not a {type(image).__name__}")
        if image.dtype.kind not in "biuf" or not image.size:
            raise UserError(f"an image holds real numbers, not an array of shape {image.shape} and type {image.dtype}")
        note = stretch_note(image)
        return Picture(image, "the image", notes=() if note is None else (note,))

    def segment(
        self,
        image: ImageLike,
        samples: int = 5,
        seed: int = 0,
        sampler: Sampler | None = None,
        threshold: float = 0.5,
        rois: Sequence[Point] = (),
    ) -> Segmentation:
        """Draws `samples` masks. The same image, seed and sampler give the same masks, and the first k of n are those
        of k. A flat image (all pixels equal) is a `UserError`: there is nothing to see in it.

        image: the path of a file that holds one picture (PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI), a Pillow image, a
        `Picture`, or an array (H, W), (H, W, 3).

        rois: where a model of crops looks, as centres (x, y) in pixels; see `manymask.regions`. All are drawn in one
        batch; where regions overlap the larger probability counts, outside of them it is 0.
        """
        _check_asked(samples, seed, threshold)
        start = time.perf_counter()
        picture = self.picture(image)
        view = look(picture.pixels, self.recipe, rois, picture.name)
        looked = time.perf_counter()
        masks = view.paste(torch.cat(list(self.draw(view, samples, seed, sampler, every=samples)), dim=1))
        seconds = {"predict": time.perf_counter() - looked, "total": time.perf_counter() - start}
        file = Path(image).name if isinstance(image, (str, Path)) else None
        source = source_of(picture, None if isinstance(picture.origin, DicomFrame) else file)
        record = self.record(source, samples, seed, sampler, threshold, rois)
        return self.answer(picture, view, masks, record, seconds)

    def record(
        self,
        source: SourceRecord,
        samples: int,
        seed: int = 0,
        sampler: Sampler | None = None,
        threshold: float = 0.5,
        rois: Sequence[Point] = (),
    ) -> Record:
        """What makes a result of this model, now."""
        setting = self.model.setting
        used = to_dict(sampler or getattr(setting, "sampler", None))
        turns = min(getattr(setting, "turns", 1), samples)
        points = tuple((int(x), int(y)) for x, y in rois)
        return Record.of(source, self.trained.record, samples=samples, seed=seed, threshold=threshold, sampler=used,
                         turns=turns, rois=points)  # fmt: skip

    def answer(
        self, picture: Picture, view: View, masks: Tensor, record: Record, seconds: dict[str, float]
    ) -> Segmentation:
        """Masks (n, H, W) in the image's frame with all that is told of them: the one place where a result is made."""
        fused = fuse(masks, record.threshold)
        warnings = cautions(self.trained.intended, self.recipe, picture, view, record.rois, masks, fused.consensus)
        return Segmentation(**vars(fused), masks=masks, image=view.image, seconds=seconds, regions=view.regions,
                            warnings=warnings, record=record)  # fmt: skip

    def stream(
        self,
        image: ImageLike,
        samples: int = 5,
        seed: int = 0,
        sampler: Sampler | None = None,
        rois: Sequence[Point] = (),
        every: int = 1,
        watch: Watch | None = None,
    ) -> Iterator[Tensor]:
        """The masks of `segment` as they are drawn, (≤ every, H, W) at a time; the image is encoded once.

        watch: called with the share of each step's sampling that is done; what it raises ends the drawing.
        """
        view = self.look(image, rois)
        for drawn in self.draw(view, samples, seed, sampler, every, watch):
            yield view.paste(drawn)

    @torch.inference_mode()
    def draw(
        self,
        view: View,
        samples: int = 5,
        seed: int = 0,
        sampler: Sampler | None = None,
        every: int = 1,
        watch: Watch | None = None,
    ) -> Iterator[Tensor]:
        """What `stream` draws, at the model's own size: (regions, ≤ every, S, S), on the CPU. `View.paste` places it."""
        if samples < 1:
            raise UserError(f"samples must be at least 1, not {samples}")
        if sampler is not None and not hasattr(sampler, "serves"):
            raise UserError(f"a sampler is an object such as manymask.samplers.DDIM(10), not {sampler!r}")
        batch = view.batch().to(self.device)
        for drawn in self.model.stream(batch, samples, seed, sampler, every, watch):
            yield drawn.float().cpu()


def _checked(device: str) -> str:
    """The device, tried out."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        raise UserError(f"{device!r} is no device that torch can use here; it has {default_device()}") from None
    return device


def _check_asked(samples: object, seed: object, threshold: object) -> None:
    for name, value in (("samples", samples), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise UserError(f"{name} must be a whole number, not {value!r}")
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
        raise UserError(f"threshold must lie between 0 and 1, not {threshold!r}")
