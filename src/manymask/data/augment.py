"""Augmentation of a whole batch at once, on the device that holds it: one affine warp and one colour change per case."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from manymask.data.case import Batch
from manymask.rng import TrainingNoise

SMALLEST_WINDOW = 0.3  # share of the side: the smallest of `zoom`


@dataclass(frozen=True)
class Augment:
    """The random changes of each case; zeros and False change nothing.

    Attributes:
        flip: whether cases are mirrored left–right with probability ½.
        dihedral: whether they are also mirrored top–bottom and transposed, each with probability ½.
        rotate: largest angle, in degrees.
        scale: largest relative change of size, drawn log-uniformly.
        shift: largest shift, as a share of the side.
        brightness: largest value that is added or subtracted.
        contrast: largest relative change of contrast.
        colour: largest relative change of contrast of each channel separately.
        zoom: share of cases that are reduced to a random window, 0.3 to 0.8 of the side. Half of these windows hold no
            lesion, where such a window is found.
        inset: share of cases that are shrunk to 0.4 to 0.9 of the side, with a black border.
    """

    flip: bool = True
    dihedral: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    zoom: float = 0.0
    inset: float = 0.0

    def __call__(self, batch: Batch, size: int | None = None, stretched: bool = False) -> Batch:
        """Augment a batch with random numbers from the batch's noise.

        Args:
            batch: images (B, C, H, W) in [0, 1] and masks (B, R, H, W) in {0, 1}.
            size: side of the result in pixels. If it is smaller than the image, the result is a window of real pixels at
                a random place; if None, the image keeps its size.
            stretched: whether the intensities of such a window are stretched to [0, 1].

        Returns:
            The batch with images in [0, 1] and masks in {0, 1}.
        """
        image = batch.image
        masks = batch.truth()
        draw = batch.noise.uniform(len(image), 12)
        image, masks = self._mirror(image, masks, draw)
        if size is not None and size < image.shape[-1]:
            image, masks = self._window(image, masks, size, draw)
            image = _stretched(image) if stretched else image
        elif self.rotate or self.scale or self.shift:
            image, masks = self._warp(image, masks, 2 * draw[:, 4:8] - 1)
        if self.brightness or self.contrast or self.colour:
            image = self._tint(image, batch.noise)
        if self.zoom or self.inset:
            image, masks = self._frame(image, masks, batch.noise)
        return replace(batch, image=image, masks=masks)

    def _mirror(self, image: Tensor, masks: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([image, masks], dim=1)
        operations: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
        if self.flip or self.dihedral:
            operations.append((draw[:, 0] < 0.5, lambda x: x.flip(-1)))
        if self.dihedral:
            operations.append((draw[:, 1] < 0.5, lambda x: x.flip(-2)))
            operations.append((draw[:, 2] < 0.5, lambda x: x.transpose(-1, -2)))
        for chosen, operation in operations:
            both = torch.where(chosen.to(both.device)[:, None, None, None], operation(both), both)
        return both[:, : image.shape[1]], both[:, image.shape[1] :]

    def _window(self, image: Tensor, masks: Tensor, size: int, draw: Tensor) -> tuple[Tensor, Tensor]:
        """A square of `size` pixels, scaled and placed at random.

        It is neither rotated nor shifted further, so nothing is filled in. A filled border would show where the middle of
        the image was.
        """
        zoom = torch.exp((2 * draw[:, 5] - 1) * math.log1p(self.scale))
        side = (zoom * size / image.shape[-1]).clamp(max=1)
        centre = (2 * draw[:, 6:8] - 1) * (1 - side)[:, None]
        theta = torch.cat([torch.eye(2) * side[:, None, None], centre[:, :, None]], dim=2).to(image)
        grid = F.affine_grid(theta, [len(image), 1, size, size], align_corners=False)
        image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        masks = F.grid_sample(masks, grid, padding_mode="border", align_corners=False)
        return image, (masks >= 0.5).to(image.dtype)

    def _warp(self, image: Tensor, masks: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        angle = draw[:, 0] * math.radians(self.rotate)
        zoom = torch.exp(draw[:, 1] * math.log1p(self.scale))
        shift = 2 * self.shift * draw[:, 2:4]
        rows = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)
        theta = torch.cat([rows * zoom[:, None, None], shift[:, :, None]], dim=2).to(image)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        masks = F.grid_sample(masks, grid, padding_mode="zeros", align_corners=False)
        return image, (masks >= 0.5).to(image.dtype)

    def _frame(self, image: Tensor, masks: Tensor, noise: TrainingNoise) -> tuple[Tensor, Tensor]:
        """Reduce some cases to a window (`zoom`) or surround them with black (`inset`): x_in = side · x_out + centre."""
        which, empty, size, place = _columns(noise.uniform(len(image), 4 + 2 * WINDOWS).to(image))
        side = SMALLEST_WINDOW + 0.5 * size
        centres = (2 * place - 1) * (1 - side)[:, None, None]
        marked = _marked_share(masks, centres, side)
        found = torch.where(empty < 0.5, (marked == 0).float().argmax(dim=1), 0)
        centre = centres[torch.arange(len(image)), found]
        inset = (which >= self.zoom) & (which < self.zoom + self.inset)
        grow = 1 / (0.4 + 0.5 * size)
        side = torch.where(inset, grow, side)
        centre = torch.where(inset[:, None], (2 * place[:, 0] - 1) * (grow - 1)[:, None], centre)
        theta = torch.cat([torch.eye(2).to(image) * side[:, None, None], centre[:, :, None]], dim=2)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        inside = (grid.abs() <= 1).all(dim=3)[:, None]
        seen = F.grid_sample(image, grid, padding_mode="border", align_corners=False) * inside
        drawn = (F.grid_sample(masks, grid, padding_mode="zeros", align_corners=False) >= 0.5).to(masks)
        changed = (which < self.zoom + self.inset)[:, None, None, None]
        return torch.where(changed, seen, image), torch.where(changed, drawn, masks)

    def _tint(self, image: Tensor, noise: TrainingNoise) -> Tensor:
        draw = (2 * noise.uniform(len(image), 2 + image.shape[1]) - 1).to(image)[:, :, None, None]
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        gain = 1 + self.contrast * draw[:, :1] + self.colour * draw[:, 2:]
        return ((image - mean) * gain + mean + self.brightness * draw[:, 1:2]).clamp(0, 1)


def _stretched(image: Tensor) -> Tensor:
    """Each of (B, C, H, W) from its own minimum (0) to its maximum (1)."""
    low = image.amin(dim=(1, 2, 3), keepdim=True)
    high = image.amax(dim=(1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp(min=1e-6)


WINDOWS = 8  # places tried for a window without a lesion


def _columns(draw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uniform numbers (B, 4 + 2 · WINDOWS) as which, empty, size (B,) and place (B, WINDOWS, 2); the fourth is not used."""
    which, empty, size = draw[:, :3].unbind(1)
    place = draw[:, 4:].reshape(len(draw), WINDOWS, 2)
    return which, empty, size, place


def _marked_share(masks: Tensor, centres: Tensor, side: Tensor) -> Tensor:
    """Share of each window's pixels that any rater marked, (B, WINDOWS); centres (B, WINDOWS, 2) are (x, y) in [−1, 1]."""
    size = 48  # pixels, in which a window is sampled
    count = centres.shape[1]
    eye = torch.eye(2).to(masks) * side[:, None, None]
    theta = torch.cat([eye[:, None].expand(-1, count, -1, -1), centres[..., None]], dim=3).flatten(0, 1)
    grid = F.affine_grid(theta, [len(theta), 1, size, size], align_corners=False)
    marked = masks.amax(dim=1, keepdim=True).repeat_interleave(count, dim=0)
    return F.grid_sample(marked, grid, align_corners=False).mean(dim=(1, 2, 3)).reshape(-1, count)
