"""Words that users choose from; here, so that the command line can name them without importing torch."""

from typing import Literal

SamplerName = Literal["ddpm", "ddim", "plms", "dpm-solver", "euler", "heun"]  # see `samplers.KINDS`
Precision = Literal["auto", "fp32", "bf16"]
