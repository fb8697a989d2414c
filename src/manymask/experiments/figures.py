"""The paper's Figures 1, 2 and 4, drawn from a trained model and real cases, where their licence lets them be shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from manymask.data.case import Batch
from manymask.data.raters import raters_consensus
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.ensemble import fuse
from manymask.evaluation.plots import new_figure, picture
from manymask.hub.licenses import licence
from manymask.io.atomic import atomic_file
from manymask.models.latent_diffusion import DiffusionSegmenter
from manymask.rng import SampleNoise
from manymask.runtime import default_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = ("figure-1-forward.png", "figure-2-pipeline.png", "figure-4-samples.png")
SHARES_OF_T = (0, 0.1, 0.25, 0.5, 0.75, 1)
PIPELINE_SAMPLES = 3
SAMPLES = 5
SEED = 0


def draw_figures(
    model: DiffusionSegmenter, store: Store, ids: list[str], folder: Path, sampling: SamplingConfig | None = None
) -> list[Path]:
    """Figures 1, 2 (of the case with the largest lesion) and 4 (of all) in `folder`; none where the data may not be
    shown. The model is a diffusion segmenter."""
    if not licence(store.name).pictures:
        return []
    device = default_device()
    model.to(device).eval()
    batch = store.batch(ids).to(device)
    largest = int(raters_consensus(batch.truth()).sum(dim=(1, 2, 3)).argmax())
    one = store.batch([ids[largest]]).to(device)
    paths = [folder / name for name in FIGURES]
    _forward(model, one, paths[0])
    _pipeline(model, one, sampling, paths[1])
    _samples(model, batch, sampling, paths[2])
    return paths


def _show(
    axis: "Axes", pixels: Any, title: str = "", colours: str = "gray", span: tuple[float, float] = (0, 1)
) -> None:
    values = pixels.detach().float().cpu().numpy() if isinstance(pixels, Tensor) else pixels
    axis.imshow(values, cmap=colours, vmin=span[0], vmax=span[1], interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_linewidth(0.4)
    axis.set_title(title, fontsize=7)


def _save(figure: Any, path: Path) -> None:
    with atomic_file(path) as beside:
        figure.savefig(beside, dpi=200, bbox_inches="tight", pad_inches=0.04)


@torch.inference_mode()
def _forward(model: DiffusionSegmenter, batch: Batch, path: Path) -> None:
    """Figure 1: the mask's latent under more and more noise (Eq. 3), and what the decoder makes of it."""
    process, codec = model.setting.process, model.mask_codec
    z0 = codec.encode(raters_consensus(batch.truth()))
    epsilon = torch.randn(z0.shape, generator=torch.Generator().manual_seed(SEED)).to(z0)
    figure = new_figure(1.15 * len(SHARES_OF_T), 2.5)
    axes = figure.subplots(2, len(SHARES_OF_T))
    for column, share in zip(axes.T, SHARES_OF_T, strict=True):
        t = round(share * process.steps)
        z = process.add_noise(z0, epsilon, torch.full((1,), t, device=z0.device)) if t else z0
        _show(column[0], z[0, 0], f"t = {t}", "gray", (-3, 3))
        _show(column[1], codec.decode(z)[0, 0])
    axes[0, 0].set_ylabel("latent $z_t$,\nfirst channel", fontsize=7)
    axes[1, 0].set_ylabel("decoded", fontsize=7)
    figure.tight_layout(pad=0.3, w_pad=0.2, h_pad=0.3)
    _save(figure, path)


@torch.inference_mode()
def _pipeline(model: DiffusionSegmenter, batch: Batch, sampling: SamplingConfig | None, path: Path) -> None:
    """Figure 2: image → latent → n noises → n latents → n masks → confidence → consensus."""
    n, codec = PIPELINE_SAMPLES, model.mask_codec
    shape = (codec.latent_channels, *(side // codec.factor for side in batch.image.shape[-2:]))
    noise = SampleNoise(SEED, batch.noise_names, n)
    begun = noise.normal(*shape).to(batch.image.device)
    conditioning = model.encode_condition(batch.image, sampling).rows([0] * n, 1)
    z_image = model.image_codec.encode(batch.image)
    sampler: Any = model.resolve(sampling).sampler
    z = sampler(model.denoise(conditioning, sampling), model.setting.process, begun, noise)
    masks = codec.decode(z)[:, 0]
    fused = fuse(masks.float().cpu())
    figure = new_figure(8.6, 3.1)
    grid = figure.add_gridspec(n, 7, wspace=0.5, hspace=0.12, width_ratios=(1.5, 1, 1, 1, 1, 1.5, 1.5))
    _show(figure.add_subplot(grid[:, 0]), picture(batch.image[0]), "image X")
    _show(figure.add_subplot(grid[:, 1]), z_image[0, 0], "$z_X$", "gray", (-3, 3))
    columns = (
        (begun[:, 0], "noise $z_{S,T}$", (-3, 3)),
        (z[:, 0], "latent $z_{S,0}$", (-3, 3)),
        (masks, "mask $S^i$", (0, 1)),
    )
    for k, (values, title, span) in enumerate(columns):
        for i in range(n):
            _show(figure.add_subplot(grid[i, 2 + k]), values[i], title if i == 0 else "", "gray", span)
    _show(figure.add_subplot(grid[:, 5]), fused.confidence, "confidence", "viridis")
    _show(figure.add_subplot(grid[:, 6]), fused.consensus, "consensus (≥ 0.5)")
    draw = f"{type(sampler).__name__}\n{sampler.steps} ×"  # as wide as the gap
    steps = (("→", "$\\mathcal{E}_X$"), ("⊕", ""), ("→", draw), ("→", "$\\mathcal{D}_S$"), ("→", "mean"), ("→", "cut"))
    _arrows(figure, grid, steps)
    _save(figure, path)


def _scale(figure: Any, top: "Axes", bottom: "Axes") -> None:
    """The colours of confidence, beside the column from `top` to `bottom`."""
    from matplotlib.cm import ScalarMappable

    high, low = top.get_position(), bottom.get_position()
    beside = figure.add_axes((high.x1 + 0.012, low.y0, 0.012, high.y1 - low.y0))
    figure.colorbar(ScalarMappable(cmap="viridis"), cax=beside).ax.tick_params(labelsize=6, width=0.4, length=2)


def _arrows(figure: Any, grid: Any, steps: tuple[tuple[str, str], ...]) -> None:
    """What happens between two columns, named below a sign."""
    left, right = (grid.get_grid_positions(figure)[side] for side in (2, 3))
    for k, (sign, label) in enumerate(steps):
        middle = (right[k] + left[k + 1]) / 2
        figure.text(middle, 0.5, sign, ha="center", va="center", fontsize=10)
        figure.text(middle, 0.455, label, ha="center", va="top", fontsize=5.5)


@torch.inference_mode()
def _samples(model: DiffusionSegmenter, batch: Batch, sampling: SamplingConfig | None, path: Path) -> None:
    """Figure 4: image, truth, two masks, their mean cut at 0.5, and the confidence map."""
    drawn = model.sample_all(batch, SAMPLES, SEED, sampling).float().cpu()
    truth = raters_consensus(batch.truth()).cpu()
    titles = ("image", "truth", "mask 1", "mask 2", f"mean of {SAMPLES} ≥ 0.5", "confidence")
    figure = new_figure(1.15 * len(titles), 1.18 * len(drawn) + 0.2)
    axes = figure.subplots(len(drawn), len(titles), squeeze=False)
    for i, row in enumerate(axes):
        fused = fuse(drawn[i])
        shown: tuple[np.ndarray | Tensor, ...] = (
            picture(batch.image[i]), truth[i, 0], drawn[i, 0], drawn[i, 1], fused.consensus, fused.confidence
        )  # fmt: skip
        for axis, pixels, title in zip(row, shown, titles, strict=True):
            _show(axis, pixels, title if i == 0 else "", "viridis" if title == "confidence" else "gray")
    figure.tight_layout(pad=0.3, w_pad=0.2, h_pad=0.2)
    _scale(figure, axes[0, -1], axes[-1, -1])
    _save(figure, path)
