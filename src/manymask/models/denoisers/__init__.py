"""The networks that predict ε, x₀ or v from a noisy mask latent and an image, one file each.

A denoiser offers `condition(image, z_image)`, which runs once per image and returns a list of maps, and
`forward(z, t, condition)`, which runs at every step for every sample. Images are (B, C, H, W) in [0, 1], image latents
z_image and noisy mask latents z are (B, c, h, w), and t (B,) lies in [0, 1000].
"""

from manymask.models.denoisers.concat_unet import ConcatUNet
from manymask.models.denoisers.medsegdiff import MedSegDiff
from manymask.models.denoisers.pyramid_unet import PyramidUNet
from manymask.models.denoisers.segdiff import SegDiff

Denoiser = ConcatUNet | PyramidUNet | SegDiff | MedSegDiff

__all__ = ["ConcatUNet", "Denoiser", "MedSegDiff", "PyramidUNet", "SegDiff"]
