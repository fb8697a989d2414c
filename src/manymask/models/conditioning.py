"""What a diffusion model computes from images once, before sampling."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from manymask.errors import ConfigError


@dataclass(frozen=True)
class ImageTraits:
    """What a model computes of images beside their masks.

    Attributes:
        presence: p(anything is marked), (B,); None without a presence head.
        embedding: features of the images, (B, d) float32; None for models without image features.
    """

    presence: Tensor | None = None
    embedding: Tensor | None = None

    def of(self, image: int) -> tuple[float | None, np.ndarray | None]:
        """Presence and features (d,), float64, of one image."""
        presence = None if self.presence is None else float(self.presence[image])
        embedding = None if self.embedding is None else self.embedding[image].cpu().double().numpy()
        return presence, embedding

    def rows(self, images: slice) -> "ImageTraits":
        """Those of some of the images."""
        return ImageTraits(*(None if each is None else each[images] for each in (self.presence, self.embedding)))


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser receives of B images, encoded once for all samples.

    Attributes:
        cond: condition maps (B, c, h, w), finest first; the first is the image latent.
        uncond: the same maps for "no image", for classifier-free guidance.
        image_latent: z_X (B, c, h, w), for classifier guidance.
        presence: p(anything is marked), (B,).
        head: the auxiliary mask head's map, (B, H, W) in [0, 1], where it has a share in the drawn masks.
    """

    cond: list[Tensor]
    uncond: list[Tensor] | None = None
    image_latent: Tensor | None = None
    presence: Tensor | None = None
    head: Tensor | None = None

    def rows(self, orientations: list[int], cases: int) -> "Conditioning":
        """Select the rows of some orientations, case by case.

        Args:
            orientations: indices of orientations, one per row of each case.
            cases: number of images; the rows of orientation k start at row k · cases.

        Returns:
            Conditioning of cases · len(orientations) rows, without `presence`.
        """
        index = torch.tensor([turn * cases + case for case in range(cases) for turn in orientations])

        def pick(x: Tensor) -> Tensor:
            return x[index.to(x.device)]

        uncond = None if self.uncond is None else [pick(x) for x in self.uncond]
        image_latent = None if self.image_latent is None else pick(self.image_latent)
        head = None if self.head is None else pick(self.head)
        return Conditioning([pick(x) for x in self.cond], uncond, image_latent, head=head)

    def traits(self, images: int) -> ImageTraits:
        """What is known of the images, as means over their orientations.

        Args:
            images: number of images; the rows of orientation k start at row k · images.

        Returns:
            Presence, and the mean of each feature map over positions.
        """
        pooled = [x.float().mean(dim=(2, 3)) for x in self.cond[1:]]
        features = torch.cat(pooled, dim=1) if pooled else None
        return ImageTraits(
            None if self.presence is None else self.presence.reshape(-1, images).mean(dim=0),
            None if features is None else features.reshape(-1, images, features.shape[1]).mean(dim=0),
        )


def feature_channels(denoiser: nn.Module) -> tuple[int, ...]:
    """Channels of a denoiser's image features: of the condition maps after the image latent.

    Args:
        denoiser: the denoiser.

    Returns:
        The channels, finest first.

    Raises:
        ConfigError: the denoiser has no such features.
    """
    widths: tuple[int, ...] | None = getattr(denoiser, "features", None)
    if widths is None:
        raise ConfigError(f"this needs a denoiser with features of the image, not {type(denoiser).__name__}")
    return widths
