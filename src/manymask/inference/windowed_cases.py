"""Cases with masks of raters, drawn in windows of their images at native size, to be scored."""

from collections.abc import Iterable

import numpy as np
import torch

from manymask.choices import Engine
from manymask.data.case import Case
from manymask.data.datasets.pairs import Pair
from manymask.diffusion.sampling import SamplingConfig
from manymask.hub.model_folder import TrainedModel
from manymask.inference.preprocess import check_tile, view_of
from manymask.inference.segmenter import Segmenter


class WindowedCases:
    """Draws the masks of cases as `Segmenter.segment(…, tile=…)` draws those of images.

    Args:
        trained: the model.
        cases: the images, at native size.
        samples: masks per image.
        seed: of the random numbers.
        sampling: how masks are drawn.
        tile: side of the windows in pixels of the image.
        engine: what runs the networks, as `Segmenter` takes it.

    Raises:
        ManymaskError: the model is a codec or segments regions, or the side is out of range.
    """

    def __init__(
        self, trained: TrainedModel, cases: Iterable[Case], samples: int, seed: int, sampling: SamplingConfig, tile: int,
        engine: Engine = "torch",
    ) -> None:  # fmt: skip
        check_tile(tile, trained.recipe.crop)
        self._segmenter = Segmenter(trained, engine=engine)
        self._reads = {case.id: case.read for case in cases}
        self._samples, self._seed, self._sampling, self._tile = samples, seed, sampling, tile

    def __call__(self, case: str) -> np.ndarray:
        """The masks of a case.

        Args:
            case: its id.

        Returns:
            Probabilities (n, h, w) at the scale of the windows; (n, S, S) of an image that one window covers.
        """
        read = self._reads[case]
        pixels = read.at_full_depth()[0] if isinstance(read, Pair) else read()[0]
        view = view_of(pixels, self._segmenter.recipe, name=case, tile=self._tile)
        drawing = self._segmenter.draw(view, self._samples, self._seed, self._sampling, every=self._samples)
        drawn: np.ndarray = torch.cat(list(drawing), dim=1)[0].numpy()
        return drawn
