"""Tables that the command line prints; imports torch, so verbs import it when they run."""

from rich.table import Table

from manymask.models.latent_diffusion import LatentDiffusion
from manymask.recipes import RECIPES, ROWS, VARIANTS, Recipe


def recipes_table() -> Table:
    """A line for each row of `recipes.py` with what tells it from the others, then what its variants change."""
    table = Table(title="recipes (NAME: any of them without a hyphen)")
    for name in ("recipe", "size", "network", "latents", "predicts", "sampler", "learns from"):
        table.add_column(name, no_wrap=True)
    for name, row in ROWS.items():
        size = f"{row.size}²×{row.channels}" + (" crop" if row.crop else "")
        table.add_row(name, size, *_of_segmenter(row), row.segmenter.target)
    table.add_section()
    for variant in VARIANTS:
        table.add_row(f"NAME-{variant}", "", *_of_segmenter(RECIPES[f"folder-{variant}"]), "")
    return table


def _of_segmenter(row: Recipe) -> list[str]:
    """Network, latents, what it predicts, sampler."""
    setting, codec = row.segmenter, row.mask_codec
    if not isinstance(setting, LatentDiffusion):
        return [type(getattr(setting, "network", setting)).__name__, "–", "–", "–"]
    latent = f"{row.size // codec.factor}²×{codec.latent_channels}"
    sampler = f"{type(setting.sampler).__name__}-{setting.sampler.steps}"
    return [type(setting.denoiser).__name__, latent, setting.process.prediction, sampler]
