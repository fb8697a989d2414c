"""The plug-in of napari: draws masks of the active image layer, and cuts their mean where a slider says.

`napari.yaml` is its manifest. napari alone imports this module; the extra `napari` has what it needs, apart from Qt.
"""

from typing import Any

import numpy as np
import torch
from magicgui.widgets import ComboBox, Container, FloatSlider, Label, PushButton, SpinBox
from napari.layers import Image, Points
from napari.qt.threading import create_worker

from manymask.ensemble import cut
from manymask.errors import ManymaskError
from manymask.hub.catalogue import list_models
from manymask.inference.preprocess import Point
from manymask.inference.segmentation import Segmentation
from manymask.inference.segmenter import Segmenter
from manymask.io.palette import colour_of

WHITE = (1.0, 1.0, 1.0, 1.0)


class MaskWidget(Container):  # type: ignore[misc]
    """Model, number of masks, seed, a button, and the threshold of the consensus.

    napari_viewer: whose active image layer is segmented. Of a stack it is the slice that is shown. The results are new layers
    at its place: each mask as an outline, confidence, disagreement and the consensus, which follows the slider.
    """

    def __init__(self, napari_viewer: Any) -> None:
        self.model = ComboBox(label="model", choices=list_models())
        self.samples = SpinBox(label="masks", value=5, min=1, max=50)
        self.seed = SpinBox(label="seed", value=0, max=2**31 - 1)
        self.button = PushButton(text="Draw masks")
        self.threshold = FloatSlider(label="threshold 0.50", value=0.5, min=0.01, max=0.99, step=0.01, readout=False)
        self.note = Label(value="Select an image layer. Research only, not for diagnosis or treatment.")
        super().__init__(widgets=[self.model, self.samples, self.seed, self.button, self.threshold, self.note])
        self.note.native.setWordWrap(True)
        self.note.max_width = 360
        self.native.setMaximumWidth(400)
        self.viewer = napari_viewer
        self.result: Segmentation | None = None
        self._consensus: Any = None
        self._segmenters: dict[str, Segmenter] = {}
        self.button.changed.connect(self.draw)
        self.threshold.changed.connect(self.cut)

    def draw(self) -> None:
        """Start drawing, in a thread; the layers come when it is done."""
        layer = self.viewer.layers.selection.active
        if not isinstance(layer, Image):
            self.note.value = "Select an image layer."
            return
        if layer.ndim < 2 or tuple(self.viewer.dims.displayed)[-2:] != (
            self.viewer.dims.ndim - 2,
            self.viewer.dims.ndim - 1,
        ):
            self.note.value = "Show the last two axes of the image: masks are drawn of its slices alone."
            return
        corner = self._corner(layer)
        data = layer.data[0] if layer.multiscale else layer.data
        pixels = np.asarray(data[tuple(corner[:-2].astype(int))])
        self.button.enabled, self.note.value = False, "Drawing …"
        asked = (self.model.value, pixels, self._points(layer), self.samples.value, self.seed.value)
        worker = create_worker(self._segment, *asked, _start_thread=False)
        worker.returned.connect(lambda done: self._show(done, layer, corner))
        worker.finished.connect(lambda: setattr(self.button, "enabled", True))
        worker.start()

    def cut(self, threshold: float) -> None:
        """Cut the confidence of the last result at another threshold."""
        self.threshold.label = f"threshold {threshold:.2f}"
        if self.result is not None and self._consensus in self.viewer.layers:
            labels = cut(self.result.confidence, threshold).numpy().astype(np.uint8)
            self._consensus.data = labels.reshape(self._consensus.data.shape)
            self._consensus.metadata["manymask"]["threshold"] = threshold

    def _segment(
        self, model: str, pixels: np.ndarray, points: list[Point], samples: int, seed: int
    ) -> Segmentation | ManymaskError:
        """Run in the thread."""
        try:
            if model not in self._segmenters:
                self._segmenters[model] = Segmenter.from_pretrained(model)
            segmenter = self._segmenters[model]
            rois = points if segmenter.recipe.crop else ()
            return segmenter.segment(pixels, samples, seed, rois=rois)
        except ManymaskError as error:
            return error

    def _show(self, done: Segmentation | ManymaskError, image: Any, corner: np.ndarray) -> None:
        if isinstance(done, ManymaskError):
            where = " Add a Points layer with a point on each object." if "rois" in done.remedies else ""
            self.note.value = f"{done}.{where}"
            return
        self.result = done
        facts = {**(done.record.facts() if done.record else {}), "warnings": list(done.warnings)}
        place = {"affine": _matrix(image, corner), "metadata": {"manymask": facts}}
        self._add_map("disagreement", done.disagreement, "inferno", 0.5, place)
        self._add_map("confidence", done.confidence, "viridis", 1.0, place)
        self._consensus = self._add_labels("consensus", done.consensus, WHITE, 0, place)
        for number, mask in zip(done.numbers, done.drawn.cuts, strict=True):
            colour = (*(level / 255 for level in colour_of(number)), 1.0)
            self._add_labels(f"mask {number}", torch.as_tensor(mask), colour, 1, place)
        self.cut(self.threshold.value)
        self.viewer.layers.selection.active = image
        expected = done.expected
        dice = [] if expected is None else [
            f"Dice to expect {expected.dice:.2f} ({expected.dice_low:.2f} – {expected.dice_high:.2f})."
        ]  # fmt: skip
        self.note.value = "\n".join([f"{len(done)} masks drawn.", *dice, *done.warnings])

    def _add_map(self, name: str, values: torch.Tensor, colours: str, most: float, place: dict[str, Any]) -> None:
        self.viewer.add_image(
            _shaped(values.numpy(), place), name=name, colormap=colours, contrast_limits=(0, most), opacity=0.6,
            visible=False, **_own(place),
        )  # fmt: skip

    def _add_labels(self, name: str, mask: torch.Tensor, colour: Any, contour: int, place: dict[str, Any]) -> Any:
        labels = self.viewer.add_labels(
            _shaped(mask.numpy().astype(np.uint8), place), name=name, opacity=0.4 if contour == 0 else 1.0,
            colormap={None: (0, 0, 0, 0), 1: colour}, **_own(place),
        )  # fmt: skip
        labels.contour = contour
        return labels

    def _corner(self, image: Any) -> np.ndarray:
        """The place of the first pixel of the slice that is shown, in pixels of the layer."""
        shown = np.round(image.world_to_data(self.viewer.dims.point)[-image.ndim :])
        corner = np.clip(shown, 0, np.array(_shape(image)) - 1)
        corner[-2:] = 0
        return np.asarray(corner)

    def _points(self, image: Any) -> list[Point]:
        """Visible points as (x, y) in pixels of the image."""
        layers = [each for each in self.viewer.layers if isinstance(each, Points) and each.visible]
        found = [image.world_to_data(each.data_to_world(point))[-2:] for each in layers for point in each.data]
        return [(round(float(column)), round(float(row))) for row, column in found]


def _shape(image: Any) -> tuple[int, ...]:
    data = image.data[0] if image.multiscale else image.data
    return tuple(data.shape[:-1] if image.rgb else data.shape)


def _matrix(image: Any, corner: np.ndarray) -> np.ndarray:
    """From pixels of a slice, whose first pixel lies at `corner` of the image, to napari's world."""
    origin = np.array(image.data_to_world(corner))
    steps = [np.array(image.data_to_world(corner + step)) - origin for step in np.eye(len(corner))]
    return np.vstack([np.column_stack([*steps, origin]), np.eye(len(corner) + 1)[-1]])


def _shaped(values: np.ndarray, place: dict[str, Any]) -> np.ndarray:
    """A map (H, W) with the axes of its image; those of slices have one entry."""
    return values[(None,) * (len(place["affine"]) - 3)]


def _own(place: dict[str, Any]) -> dict[str, Any]:
    """A copy, since layers may change their metadata."""
    return {**place, "metadata": {"manymask": dict(place["metadata"]["manymask"])}}
