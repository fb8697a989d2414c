"""The Python interface to a trained segmenter: one image in, many masks out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor

from manymask.choices import Engine, SamplerName
from manymask.config import to_dict
from manymask.diffusion.samplers import Sampler
from manymask.diffusion.sampling import SamplingConfig
from manymask.ensemble import fuse_each
from manymask.errors import ConfigError
from manymask.export.kept import with_engine
from manymask.hub.model_folder import TrainedModel, load_model, write_model
from manymask.inference import asked
from manymask.inference.cautions import cautions, doubts
from manymask.inference.pictures import ImageLike, picture_of
from manymask.inference.preprocess import PastedMasks, Point, View, batch_of, check_tile, view_of
from manymask.inference.segmentation import Drawing, Segmentation
from manymask.inference.tiling import draw_in_windows
from manymask.io.image import DicomFrame, Picture
from manymask.io.record import Record, SourceRecord
from manymask.io.source import source_of
from manymask.models.base import StepCallback
from manymask.models.conditioning import ImageTraits
from manymask.runtime import default_device, usable_device


class Segmenter(ModelHubMixin, library_name="manymask", tags=["medical-image-segmentation", "diffusion"]):
    """A trained segmenter: `Segmenter.from_pretrained(path).segment(image, samples=5, seed=0)`.

    Args:
        trained: the model with its recipe and provenance.
        device: where it runs, "cpu" or "cuda:0" for example; an accelerator if there is one by default.
        engine: what runs the networks: "torch", or on the CPU "onnx" or "openvino"; "auto" as in `export.kept.fastest`.
        images: about how many will be drawn. For many, "auto" builds graphs, and each draw has its share of the cores.

    Raises:
        ManymaskError: the model is a codec, torch cannot use the device, or the engine is missing or cannot run it.
    """

    def __init__(self, trained: TrainedModel, device: str | None = None, engine: Engine = "auto", images: int = 1):
        self.trained, self.recipe, self._asked = trained, trained.recipe, engine
        own = engine in ("auto", "torch")
        if not own and device not in (None, "cpu"):
            raise ConfigError(f"the engine {engine} runs on the CPU, not on {device}", parameter="engine")
        self.device = usable_device(device) if device else default_device() if own else "cpu"
        self.model, self.engine = with_engine(trained, self.device, engine, images)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model(self.trained, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, model: Path | str, *, device: str | None = None, engine: Engine = "auto", **download: Any
    ) -> "Segmenter":
        """Load a trained segmenter. A local path never leaves the machine.

        Args:
            model: a model folder, a run folder, or `hf://ORG/NAME` of the Hugging Face Hub; see `find_model`.
            device: where it runs; an accelerator if there is one by default.
            engine: as in the class.
            **download: `revision`, `token`, `cache_dir`, `force_download` or `local_files_only`, for the Hub alone.

        Returns:
            The segmenter in evaluation mode.

        Raises:
            ManymaskError: there is no such model, it is damaged or a codec, or an argument is unknown.
        """
        asked.check_download(download)
        return cls(load_model(model, **download), device, engine)

    def to(self, device: str | torch.device) -> "Segmenter":
        """Move the model to another device.

        Args:
            device: "cpu" or "cuda:0", for example.

        Returns:
            This segmenter.

        Raises:
            ConfigError: torch cannot use the device, or another engine was asked for.
        """
        if self._asked not in ("auto", "torch") and str(device) != "cpu":
            raise ConfigError(f"the engine {self.engine} runs on the CPU alone", parameter="device")
        self.device = usable_device(str(device))
        self.model, self.engine = with_engine(self.trained, self.device, self._asked, images=1)
        return self

    def __repr__(self) -> str:
        return f"Segmenter({asked.about(self.trained)}, on {self.device})"

    def look(self, image: ImageLike, rois: Sequence[Point] = (), tile: int | None = None) -> View:
        """Prepare an image for the model; pixels deeper than 8 bits are stretched.

        Args:
            image: as in `segment`.
            rois: as in `segment`.
            tile: as in `segment`.

        Returns:
            The input of the model.
        """
        return self._view(self.picture(image), rois, tile)

    def _view(self, picture: Picture, rois: Sequence[Point], tile: int | None) -> View:
        volume = picture.slice.volume if picture.slice else ""
        return view_of(picture.pixels, self.recipe, asked.centres(rois), picture.name, volume, tile)

    def picture(self, image: ImageLike) -> Picture:
        """Read an image, through the model's own intensity window if it has one.

        Args:
            image: as in `segment`; a path is read as `manymask segment` reads it.

        Returns:
            The pixels with their name, spacing and origin.

        Raises:
            InputError: the image cannot be read, or is of a type that is not supported.
        """
        return picture_of(image, self.recipe.window)

    # fmt: off
    @overload
    def segment(self, image: ImageLike, samples: int = 5, seed: int = 0, *, threshold: float = 0.5, rois: Sequence[Point] = (),
                sampling: SamplingConfig | None = None, sampler: Any = None, steps: int | None = None,
                tile: int | None = None, callback: StepCallback | None = None) -> Segmentation: ...
    @overload
    def segment(self, image: list[ImageLike], samples: int = 5, seed: int = 0, *, threshold: float = 0.5,
                rois: Sequence[Point] = (), sampling: SamplingConfig | None = None, sampler: Any = None,
                steps: int | None = None, tile: int | None = None, callback: StepCallback | None = None
                ) -> list[Segmentation]: ...
    # fmt: on
    def segment(
        self,
        image: ImageLike | list[ImageLike],
        samples: int = 5,
        seed: int = 0,
        *,
        threshold: float = 0.5,
        rois: Sequence[Point] = (),
        sampling: SamplingConfig | None = None,
        sampler: Sampler | SamplerName | None = None,
        steps: int | None = None,
        tile: int | None = None,
        callback: StepCallback | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Draw several masks of one image, or of each image of a list, a few of them at a time.

        The same image, seed and sampling give the same masks, and the first k of n masks are those of k. Mask k of all slices
        of a DICOM series or a NIfTI volume comes from the same noise: it is one hypothesis of the volume.

        Args:
            image: the path of a file that holds one image (PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI), the bytes of such a
                file (but NIfTI) or the file opened, a Pillow image, a `Picture`, or an array or tensor (H, W), (H, W, 3) or
                (3, H, W). Floats in [0, 1] mean what 0 … 255 means as uint8; other deep values are stretched. Or a list
                of such images.
            samples: number of masks, at least 1.
            seed: of the random numbers.
            threshold: of the consensus, in (0, 1).
            rois: regions of a crop model, as centres (x, y) in pixels from the top left. All regions are drawn in one batch.
                Where they overlap, the larger probability counts; outside of them it is 0.
            sampling: how masks are drawn; the model's default where a field is not given.
            sampler: shorthand for `sampling`, by name or as an object.
            steps: shorthand for `sampling`.
            tile: draw images larger than this in overlapping windows of so many of their own pixels a side, which the model
                sees at its own size; the whole image at once if None.
            callback: called before each network pass with the completed fraction; raise to cancel.

        Returns:
            Masks and maps at the image's own size; of a list of images, a list of results.

        Raises:
            ManymaskError: the image cannot be read or is flat, or an argument is out of range.
        """
        settings = asked.merged_sampling(sampling, sampler, steps)
        asked.check_asked(samples, seed, threshold)
        images = image if isinstance(image, list) else [image]
        found: list[Segmentation] = []
        together = asked.TOGETHER if tile is None else 1
        for start in range(0, len(images), together):
            some = images[start : start + together]
            found += self._segment(some, samples, seed, threshold, rois, settings, tile, callback)
        return found if isinstance(image, list) else found[0]

    def _segment(self, images: Sequence[ImageLike], samples: int, seed: int, threshold: float,
                 rois: Sequence[Point], sampling: SamplingConfig | None, tile: int | None,
                 callback: StepCallback | None) -> Iterator[Segmentation]:  # fmt: skip
        """The results of a few images, drawn in one batch; seconds are those of an image, on average."""
        start = time.perf_counter()
        pictures = [self.picture(image) for image in images]
        views = [self._view(picture, rois, tile) for picture in pictures]
        looked = time.perf_counter()
        drawing = self._draw(views, samples, seed, sampling, samples, callback)
        (drawn,) = drawing
        seconds = {name: (time.perf_counter() - t) / len(images) for name, t in (("predict", looked), ("total", start))}
        first = 0
        for image, picture, view in zip(images, pictures, views, strict=True):
            rows = slice(first, first + len(view.seen))
            first = rows.stop
            named = isinstance(image, (str, Path)) and not isinstance(picture.origin, DicomFrame)
            source = source_of(picture, Path(image).name if named else None)  # type: ignore[arg-type]
            record = self.record(source, samples, seed, sampling, threshold, rois, tile)
            yield self.answer(picture, view, drawn[rows], drawing.traits.rows(rows), record, seconds)

    def record(
        self,
        source: SourceRecord,
        samples: int,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        threshold: float = 0.5,
        rois: Sequence[Point] = (),
        tile: int | None = None,
    ) -> Record:
        """The record of a result that this model would produce now.

        Args:
            source: the image.
            samples: as in `segment`.
            seed: as in `segment`.
            sampling: as in `segment`.
            threshold: as in `segment`.
            rois: as in `segment`.
            tile: as in `segment`.

        Returns:
            Image, model, version and settings.

        Raises:
            ConfigError: see `check_tile`.
        """
        check_tile(tile, self.recipe.crop)
        used = self.model.resolve(sampling)
        return Record.of(source, self.trained.record, samples=samples, seed=seed, threshold=threshold, tile=tile,
                         rois=asked.centres(rois), sampler=to_dict(used.sampler),
                         orientations=min(used.orientations or 1, samples), guidance_scale=used.guidance_scale,
                         head_share=used.head_share)  # fmt: skip

    def answer(
        self,
        picture: Picture,
        view: View,
        drawn: Tensor,
        traits: ImageTraits,
        record: Record,
        seconds: dict[str, float],
    ) -> Segmentation:
        """Combine masks into a result; no other code builds results.

        Args:
            picture: the image as it was read.
            view: the image as the model received it.
            drawn: masks, probabilities (regions, n, S, S) at the model's own size.
            traits: of the regions, as `Drawing` holds them.
            record: how they were made; those of `record.left_out` do not count.
            seconds: wall times.

        Returns:
            The result with its warnings.
        """
        if record.left_out:
            drawn = drawn[:, [number - 1 for number in record.kept]]
        record = replace(record, noise="volume" if view.volume else "image", tile=view.tile)
        masks = PastedMasks(drawn, view)
        fused = fuse_each(masks, record.threshold)
        why_not = self.uncalibrated(record)
        calibration = None if why_not else self.trained.calibration
        assessments = (
            tuple(calibration.assess(m, *traits.of(i)) for i, m in enumerate(drawn.numpy())) if calibration else ()
        )
        warnings = (
            *cautions(self.trained.intended, self.recipe, picture, view, record.rois, masks, fused.consensus),
            *doubts(assessments, view.regions, record.threshold),
            *([why_not] if why_not and self.trained.calibration is not None else []),
        )
        return Segmentation(**vars(fused), drawn=masks, image=view.image, seconds=seconds, regions=view.regions,
                            warnings=warnings, record=record, assessments=assessments, calibration=calibration,
                            uncalibrated=why_not, spacing=picture.spacing)  # fmt: skip

    def outline_alpha(self, alpha: float | None, record: Record) -> float | None:
        """The share for which a result has an inner and an outer outline.

        Args:
            alpha: the requested share; None for 0.1, or what is nearest to it of `calibration.alphas`.
            record: of the result.

        Returns:
            The share; None if none was requested and results are not calibrated.

        Raises:
            InputError: a share was requested for which there are no outlines.
        """
        return asked.chosen_alpha(alpha, self.trained.calibration, self.uncalibrated(record))

    def uncalibrated(self, record: Record) -> str:
        """Why results of these settings are not calibrated.

        Args:
            record: as returned by `record`.

        Returns:
            A sentence; empty if they are calibrated.
        """
        return asked.off_calibration(record, self.trained.calibration)

    def stream(
        self,
        image: ImageLike,
        samples: int = 5,
        seed: int = 0,
        *,
        rois: Sequence[Point] = (),
        sampling: SamplingConfig | None = None,
        every: int = 1,
        callback: StepCallback | None = None,
        tile: int | None = None,
    ) -> Iterator[Tensor]:
        """The masks of `segment` as they are drawn, a few at a time; the image is encoded once.

        Arguments are checked at the call, not at the first mask.

        Args:
            image: as in `segment`.
            samples: as in `segment`.
            seed: as in `segment`.
            rois: as in `segment`.
            sampling: as in `segment`.
            every: masks at a time, at least 1.
            callback: called before each network pass with the completed fraction; raise to cancel.
            tile: as in `segment`.

        Returns:
            An iterator over probabilities (≤ every, H, W).
        """
        asked.check_asked(samples, seed, 0.5)
        view = self.look(image, rois, tile)
        drawn = self.draw(view, samples, seed, sampling, every, callback)
        return (view.paste(masks) for masks in drawn)

    def draw(
        self,
        view: View,
        samples: int = 5,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        every: int = 1,
        callback: StepCallback | None = None,
    ) -> Drawing:
        """The masks of `stream` at the model's own size; `View.paste` places them in the image.

        Args:
            view: as returned by `look`.
            samples: as in `segment`.
            seed: as in `segment`.
            sampling: as in `segment`.
            every: masks at a time, at least 1.
            callback: as in `stream`.

        Returns:
            An iterable over probabilities (regions, ≤ every, S, S), float32 on the CPU, with the regions' traits; of an
            image in windows (1, ≤ every, h, w), without traits.

        Raises:
            ConfigError: `samples`, `every` or `sampling` is out of range.
        """
        return self._draw([view], samples, seed, sampling, every, callback)

    def _draw(
        self,
        views: Sequence[View],
        samples: int,
        seed: int,
        sampling: SamplingConfig | None,
        every: int = 1,
        callback: StepCallback | None = None,
    ) -> Drawing:
        """The masks of several views in one batch, whose regions follow one another."""
        for name, value in (("samples", samples), ("every", every)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}", parameter=name)
        resolved = self.model.resolve(sampling)
        if views[0].tile is not None:  # such a view comes alone
            windows = draw_in_windows(self.model, views[0], self.recipe.size, samples, seed, resolved, every, callback)
            return Drawing(windows, ImageTraits())
        batch = batch_of(views).to(self.device)
        with torch.inference_mode():
            common = self.model.prepare(batch, samples, resolved)
            traits = self.model.traits(common, len(batch.image))
        masks = self.model.iter_samples(batch, samples, seed, resolved, every, callback, common)
        return Drawing((some.float().cpu() for some in masks), traits)
