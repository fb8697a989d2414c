"""How large or small each numeric setting may be, so that a damaged or hostile config cannot exhaust a machine.

Bounds are generous: they hold far more than anyone trains, and far less than fills a memory.
"""

import math

Bounds = tuple[float, float]

_SHARE, _WEIGHT, _COUNT, _WIDTH = (0, 1), (0, 1e6), (1, 10**9), (1, 4096)
MOST_ITEMS = 64  # of a tuple of settings

# a field of one class (`Class.field`) goes before the same field of any class
LIMITS: dict[str, Bounds] = {
    # sizes of images and networks
    "size": (8, 4096), "margin": (0, 4096), "Recipe.channels": (1, 64), "Pixels.channels": (1, 64),
    "in_channels": (1, 64), "latent_channels": (1, 64),
    "patch_size": (1, 64), "factor": (1, 64), "growth": _WIDTH, "head_channels": _WIDTH, "channels": _WIDTH,
    "encoder_channels": _WIDTH, "blocks_per_level": (0, 16), "encoder_blocks_per_level": (0, 16),
    "dense_blocks": (0, 16), "units": (0, 16),
    "codebook_size": (2, 65536), "levels": (2, 256), "members": (1, 64), "revive_after": _COUNT,
    # process and samplers
    "steps": (1, 10_000), "Training.steps": _COUNT, "Provenance.steps": (0, 10**12), "eta": (0, 1),
    "beta_start": (1e-12, 0.999), "beta_end": (1e-12, 0.999), "orientations": (1, 8),
    "guidance_scale": (-1000, 1000), "scale": _WEIGHT,
    # losses and training
    "weight": (1e-9, 1e6), "commitment_weight": _WEIGHT, "kl_weight": _WEIGHT, "gamma": (0, 100), "cross_entropy": _WEIGHT,
    "dice_weight": _WEIGHT, "auxiliary_weight": _WEIGHT, "estimate_weight": _WEIGHT, "min_snr": (1e-9, 1e9),
    "noise_levels_per_image": (1, 64), "condition_dropout": _SHARE, "head_share": _SHARE, "presence_shift": (-20, 20),
    "batch_size": (1, 65536), "learning_rate": (0, 10), "warmup": (0, 10**9),
    "decay_after": _COUNT, "weight_decay": (0, 10), "max_grad_norm": (1e-9, 1e9), "ema_decay": _SHARE, "validate_every": _COUNT,
    "validation_cases": _COUNT, "seed": (0, 2**63 - 1),
    # plans
    "Plan.minutes": (1e-3, 1e6), "image_codec_minutes": (0, 1e6), "mask_codec_minutes": (0, 1e6), "segmenter_minutes": (0, 1e6),
    "folds": (0, 20), "positive_weight": (1e-9, 1e6), "codec_learning_rate": (0, 10), "patience": _COUNT,
    # augmentation
    "rotate": (0, 180), "Augment.scale": (0, 0.99), "shift": _SHARE, "brightness": _SHARE, "contrast": _SHARE,
    "colour": _SHARE, "zoom": _SHARE, "inset": _SHARE,
}  # fmt: skip


def limits_of(owner: str, field: str) -> Bounds | None:
    """The bounds of a field of the class named `owner`; None where it has none."""
    return LIMITS.get(f"{owner}.{field}", LIMITS.get(field))


def outside(bounds: Bounds | None, value: float) -> str | None:
    """What is wrong with a number, or None: it is not finite, or lies beyond its bounds."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    low, high = bounds or (-1e15, 1e15)
    if low <= value <= high:
        return None
    shown = str(value) if abs(value) < 1e15 else "a number of more than 15 digits"
    return f"{shown} must lie in {low:g} … {high:g}"
