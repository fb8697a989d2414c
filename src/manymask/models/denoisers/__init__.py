"""The networks that predict (ε, x₀ or v) from a noisy mask latent and an image; a file for each.

A denoiser offers `condition(image, z_image)`, which runs once an image and gives a list of maps, and
`forward(z, t, condition)`, which runs at every step for every sample.
"""

from manymask.models.denoisers.concat_unet import ConcatUNet
from manymask.models.denoisers.medsegdiff import MedSegDiff
from manymask.models.denoisers.pyramid_unet import PyramidUNet
from manymask.models.denoisers.segdiff import SegDiff

Denoiser = ConcatUNet | PyramidUNet | SegDiff | MedSegDiff

__all__ = ["ConcatUNet", "Denoiser", "MedSegDiff", "PyramidUNet", "SegDiff"]
