"""The noisy latents of a training step (Eq. 3), and what a denoiser's answers to them lose (Eq. 4 in latent space)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from manymask.diffusion.process import Process
from manymask.models.presence import mean_over_marked
from manymask.rng import TrainingNoise


@dataclass(frozen=True)
class NoisyLatents:
    """k noise levels of each of B images, image by image: latents (B · k, c, h, w) at times (B · k,).

    Attributes:
        process: the forward process.
        levels: k.
        z0: the latents without noise.
        z: with noise.
        t: times.
        target: what the denoiser should answer.
    """

    process: Process
    levels: int
    z0: Tensor
    z: Tensor
    t: Tensor
    target: Tensor

    @classmethod
    def draw(cls, process: Process, z0: Tensor, levels: int, noise: TrainingNoise) -> "NoisyLatents":
        """Noise of random times for latents (B · k, c, h, w), image by image; the times of an image are evenly spread."""
        t = process.draw_times(noise, len(z0) // levels, levels).to(z0.device)
        epsilon = noise.normal(*z0.shape).to(z0)
        return cls(process, levels, z0, process.add_noise(z0, epsilon, t), t, process.target(z0, epsilon, t))

    def denoising_loss(self, output: Tensor, marked: Tensor) -> Tensor:
        """E w_t ‖target − output‖², mean over elements.

        Args:
            output: of the denoiser, (B · k, c, h, w).
            marked: which masks count, (B,) or (B · k,).

        Returns:
            A scalar.
        """
        errors = F.mse_loss(output, self.target, reduction="none").mean(dim=(1, 2, 3))
        return self._over_marked(errors * self.process.loss_weight(self.t), marked)

    def estimate_loss(self, output: Tensor, marked: Tensor) -> Tensor:
        """E|ẑ_0 − z_0|, mean over elements; the arguments are those of `denoising_loss`."""
        z0, _ = self.process.to_x0_eps(output, self.z, self.t)
        return self._over_marked((z0 - self.z0).abs().mean(dim=(1, 2, 3)), marked)

    def dice_loss(self, output: Tensor, decode: Callable[[Tensor], Tensor], masks: Tensor, marked: Tensor) -> Tensor:
        """Dice loss of the decoded ẑ_0 on one noise level per image, since decoding is expensive.

        Args:
            output: of the denoiser, (B · k, c, h, w).
            decode: latents → masks.
            masks: of the images, (B, 1, H, W).
            marked: which of them count, (B,).

        Returns:
            A scalar.
        """
        from monai.losses import DiceLoss

        k = self.levels
        z0, _ = self.process.to_x0_eps(output[::k], self.z[::k], self.t[::k])
        overlap = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, reduction="none")(decode(z0), masks).flatten()
        return mean_over_marked(overlap, marked)

    def _over_marked(self, errors: Tensor, marked: Tensor) -> Tensor:
        return mean_over_marked(errors, marked.repeat_interleave(len(errors) // len(marked)))
