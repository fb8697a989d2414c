"""What the configuration of a MONAI bundle builds (`export/bundle.py`): network, images and evaluator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manymask.choices import Form, SamplerName
from manymask.data.case import Batch, pixel_name
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError
from manymask.inference.asked import check_asked
from manymask.inference.batch import segment_all
from manymask.inference.entries import Entry, announce, find_entries
from manymask.inference.preprocess import Point
from manymask.inference.request import Request
from manymask.inference.segmenter import Segmenter
from manymask.inference.tally import RunSummary
from manymask.io.inputs import FoundInputs


class MaskNetwork(nn.Module):
    """A segmenter as a network: images in, the probabilities of n masks out.

    Args:
        folder: a model folder.
        samples: number of masks per image.
        seed: of the random numbers.
        sampler: by name; the model's own if None.
        steps: of the sampler; the model's own number if None.
        name: of the model in results; its folder's if None.

    Attributes:
        segmenter: the same model with reading and writing of files.
        sampling: how masks are drawn.
    """

    segmenter: Segmenter
    sampling: SamplingConfig

    def __init__(
        self,
        folder: Path | str,
        samples: int = 5,
        seed: int = 0,
        sampler: SamplerName | None = None,
        steps: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.segmenter = Segmenter.from_pretrained(folder, device="cpu")
        self.segmenter.trained.name = name or self.segmenter.trained.name
        self.model = self.segmenter.model
        self.samples, self.seed = samples, seed
        self.sampling = SamplingConfig(sampler, steps)

    def _apply(self, fn: Any, recurse: bool = True) -> "MaskNetwork":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.segmenter.to(next(self.parameters()).device)
        return self

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """Draw masks.

        Args:
            image: (B, C, S, S) in [0, 1], at the model's own size S.

        Returns:
            float32 (B, samples, S, S): probabilities. The same pixels and seed give the same masks.
        """
        names = [pixel_name(each) for each in (image * 255).round().byte().cpu().numpy()]
        batch = Batch(names, image)
        return self.model.sample_all(batch, self.samples, self.seed, self.sampling)


class FolderOfImages(Sequence[Entry]):
    """The images, series and volumes in a folder.

    Args:
        folder: is searched as `manymask segment` does.

    Attributes:
        found: what cannot be read, and remarks.

    Raises:
        InputError: there is nothing to segment.
    """

    found: FoundInputs

    def __init__(self, folder: Path | str) -> None:
        self._entries, self.found = find_entries([str(folder)])
        if not self._entries:
            raise InputError(f"{folder}: {'; '.join(self.found.problems) or 'there are no images'}", path=folder)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        return self._entries[index]


class FolderEvaluator:
    """Segments images and writes the files of `manymask segment`.

    Args:
        network: the model.
        dataset: the images.
        out: gets one folder for each image.
        threshold: of the consensus, in (0, 1).
        rois: centres (x, y) of regions, for a model of crops.
        forms: "png", "nifti", "dicom"; PNG and the form of the input if empty.
    """

    def __init__(
        self,
        network: MaskNetwork,
        dataset: FolderOfImages,
        out: Path | str,
        threshold: float = 0.5,
        rois: Sequence[Point] = (),
        forms: Sequence[Form] = (),
    ) -> None:
        self.network, self.dataset = network, dataset
        check_asked(network.samples, network.seed, threshold)
        centres = [(int(x), int(y)) for x, y in rois]
        self.request = Request(Path(out), network.samples, network.seed, network.sampling, threshold, centres,
                               forms=tuple(forms))  # fmt: skip

    def run(self) -> None:
        """Segment all images.

        Raises:
            InputError: some could not be segmented; the others are written.
        """
        tally = RunSummary()
        announce(self.dataset.found, tally)
        segment_all(self.network.segmenter, self.dataset, self.request, tally)
        print("\n".join(tally.lines(self.request.out)))
        if tally.failed or tally.incomplete:
            raise InputError(f"{tally.failed + tally.incomplete} image(s) or series could not be segmented completely")
