"""The networks that predict (ε, x₀ or v) from a noisy mask latent and an image; a file for each.

A denoiser offers `condition(image, z_image)`, which runs once an image and gives a list of maps, and
`forward(z, t, condition)`, which runs at every step for every sample.
"""

from manymask.denoisers.concat_unet import ConcatUNet
from manymask.denoisers.pyramid_unet import PyramidUNet

Denoiser = ConcatUNet | PyramidUNet

__all__ = ["ConcatUNet", "Denoiser", "PyramidUNet"]
