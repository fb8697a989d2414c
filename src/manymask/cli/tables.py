"""What `manymask recipes` prints; imports torch, so the verb imports it when it runs."""

from manymask.data.datasets import DATASETS
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.recipes import RECIPES, RECOMMENDED, ROWS, Recipe

_DATA = {"folder": "your own images and masks", "phantom": "simulated lesions: everything in minutes, with known truth"}
_ENDINGS = {
    "256": "sharper and slower; ImageNet encoder (extra imagenet)",
    "320": "sharper and slower still, for small lesions; ImageNet encoder (extra imagenet)",
    "paper": "settings of the paper; wants a GPU",
    "imagenet": "ImageNet encoder (extra imagenet)",
    "unet": "baseline: U-Net, one mask",
    "unetpp": "baseline: U-Net++, one mask",
    "resunet": "baseline: residual U-Net, one mask",
    "nnunet": "baseline: the network of nnU-Net, one mask",
    "random-reader": "baseline: one mask, trained on one rater at random",
    "twin": "the same encoder without diffusion: one mask",
    "imagenet-twin": "the same ImageNet encoder without diffusion: one mask",
    "imagenet-random-reader": "ImageNet encoder, one mask, trained on one rater at random",
    "ensemblediff": "baseline: diffusion on pixels, EnsembleDiff",
    "segdiff": "baseline: diffusion on pixels, SegDiff",
    "medsegdiff": "baseline: diffusion on pixels, MedSegDiff",
    "ensemblediff-x0": "baseline: diffusion on pixels, EnsembleDiff with x₀-prediction",
    "segdiff-x0": "baseline: diffusion on pixels, SegDiff with x₀-prediction",
    "medsegdiff-x0": "baseline: diffusion on pixels, MedSegDiff with x₀-prediction",
    "ldseg": "as LDSeg: mask codec and denoiser end to end, ε",
    "sdseg": "as SDSeg: drawn in one step",
    "prob-unet": "baseline: Probabilistic U-Net",
}


def recipe_rows(every: bool) -> list[tuple[str, ...]]:
    """The lines of the table, the heading first: all recipes with what tells them apart, or those for a start."""
    if not every:
        names = [name for name in RECIPES if name in ROWS or name in RECOMMENDED]
        rows = [("*" if name in RECOMMENDED else "", name, _size(RECIPES[name]), purpose(name)) for name in names]
        return [("", "recipe", "size", "for"), *rows]
    heading = ("", "recipe", "size", "network", "latents", "predicts", "sampler", "learns from", "for")
    found: list[tuple[str, ...]] = [heading]
    for name, row in RECIPES.items():
        mark = "*" if name in RECOMMENDED else ""
        found.append((mark, name, _size(row), *_of_segmenter(row), row.segmenter.target, purpose(name)))
    return found


def purpose(name: str) -> str:
    """What a recipe is for: its data, and what its variant changes."""
    row = RECIPES[name]
    data = (
        _DATA.get(row.dataset)
        or DATASETS[row.dataset].use.trained_on.partition(":")[0]
        or f"the data set {row.dataset}"
    )
    if name.startswith("lidc_idri_readers"):
        data += "; masks as single raters draw them"
    ending = name.partition("-")[2]
    parts = [_ENDINGS[part] for part in _known_parts(ending)]
    return "; ".join([data, *parts]) if parts else data


def _known_parts(ending: str) -> list[str]:
    """An ending as one of the known ones, or as two: `256-twin`."""
    if not ending or ending in _ENDINGS:
        return [ending] if ending else []
    head, _, tail = ending.partition("-")
    return [part for part in (head, tail) if part in _ENDINGS]


def _size(row: Recipe) -> str:
    return f"{row.size}²×{row.channels}" + (" region" if row.crop else "")


def _of_segmenter(row: Recipe) -> list[str]:
    """Network, latents, what it predicts, sampler."""
    setting, codec = row.segmenter, row.mask_codec
    if not isinstance(setting, LatentDiffusion):
        return [type(getattr(setting, "network", setting)).__name__, "–", "–", "–"]
    latent = f"{row.size // codec.factor}²×{codec.latent_channels}"
    sampler = f"{type(setting.sampler).__name__}-{setting.sampler.steps}"
    return [type(setting.denoiser).__name__, latent, setting.process.prediction, sampler]
