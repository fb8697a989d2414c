"""Where windows of a large image meet: seams, and whether mask k stays one hypothesis.

manymask demo --out demo
python benchmarks/tiling.py --demo demo --work runs/tiling --out docs/results/tiling/phantom.json

The model of the demonstration goes on training on windows of phantom scenes: many lesions on one ground, some of them cut by the
window's edge or absent. Scenes are then drawn in windows in several ways. Each row has

- the seam: how much more neighbouring pixels of a mask differ across the borders of windows than inside; 1 shows no border
- Dice of the consensus with the consensus of the raters, and GED² to the raters
- undecided: share of the pixels of halos that a mask gives neither to the lesion nor to the ground (0.2 … 0.8). A halo is either
  in a mask or not; the mean of windows that contradict one another is neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from monai.data.utils import compute_importance_map, dense_patch_slices
from scipy.ndimage import gaussian_filter
from torch import Tensor

from manymask.data.case import Case, Source, random_scheme
from manymask.data.datasets import phantom
from manymask.data.store import Store, prepare
from manymask.hub.model_folder import load_model
from manymask.io.atomic import write_json
from manymask.metrics import ged, overlap
from manymask.models.latent_diffusion import DiffusionSegmenter
from manymask.recipes import Stage, get_recipe
from manymask.rng import SampleNoise, seed_of
from manymask.runtime import git_revision, hardware
from manymask.training.initialization import TrainConfig
from manymask.training.trainer import fit

SHARES = {Stage.IMAGE_CODEC: 0.05, Stage.MASK_CODEC: 0.05, Stage.SEGMENTER: 0.9}  # the codecs hardly differ
SIZE = phantom.SIZE
CASES = 2000
AT_ONCE = 16  # windows


@dataclass(frozen=True)
class Options:
    """What `manymask demo` left, where store and model are kept, and where the results go; minutes of training."""

    demo: Path
    work: Path
    out: Path
    minutes: float = 3.0
    side: int = 512
    scenes: int = 1
    masks: int = 4


@dataclass(frozen=True)
class Scene:
    """Many lesions on one ground; arrays are (side, side)."""

    image: np.ndarray  # uint8
    raters: np.ndarray  # bool (4, side, side)
    halos: np.ndarray  # bool: in a halo, in no core


def scene(index: int, side: int) -> Scene:
    """Phantoms strewn over a ground, about one on every 80² pixels; a rater decides about every halo by itself."""
    rng = np.random.default_rng(seed_of("scene", index, side))
    ground = 0.30 + sum(a * _texture(rng, side, scale) for a, scale in ((0.05, 4.0), (0.03, 1.0)))
    raters, halos = np.zeros((phantom.RATERS, side, side), bool), np.zeros((side, side), bool)
    step = 80
    for top in range(0, side - SIZE + 1, step):
        for left in range(0, side - SIZE + 1, step):
            if rng.random() < 0.2:
                continue
            y, x = (int(min(at + rng.integers(0, step - SIZE + 1), side - SIZE)) for at in (top, left))
            place = (slice(y, y + SIZE), slice(x, x + SIZE))
            core, halo = phantom._shapes(rng)
            contrast = rng.uniform(0.02, 0.16)
            p = phantom.visibility_to_probability(contrast)
            soft = [gaussian_filter((d <= 0).astype(np.float32), 0.8) for d in (core, halo)]
            ground[place] += contrast * soft[1] + 0.30 * soft[0]
            for rater in raters:
                chosen = halo if rng.random() < p else core
                rater[place] |= chosen <= phantom.BORDER_SPREAD * rng.standard_normal()
            halos[place] |= (halo <= -1.5) & (core > 1.5)
    return Scene(np.round(ground.clip(0, 1) * 255).astype(np.uint8), raters, halos)


def _texture(rng: np.random.Generator, side: int, scale: float) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal((side, side)), scale, mode="wrap")
    result: np.ndarray = noise / noise.std()
    return result


def _window_case(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A window at a random place of a scene of its own."""
    whole = scene(index, 4 * SIZE)
    rng = np.random.default_rng(seed_of("window", index))
    y, x = rng.integers(0, 3 * SIZE, size=2)
    place = (slice(y, y + SIZE), slice(x, x + SIZE))
    return whole.image[place][:, :, None], np.stack([mask[place] for mask in whole.raters])


def trained_on_windows(options: Options) -> DiffusionSegmenter:
    """The model, trained unless it is there."""
    cases = [Case(f"window-{i:05}", f"window-{i:05}", partial(_window_case, i)) for i in range(CASES)]
    scheme = random_scheme({case.id: case.id for case in cases}, 42)
    source = Source("phantom", cases, {"random": scheme}, "Apache-2.0 (generated)")
    folder, run = options.work / "data", options.work / "run"
    store = Store(folder) if folder.exists() else prepare(source, folder, SIZE, 1)
    for stage, share in SHARES.items():
        if not (run / stage / "model").exists():
            start = options.demo / "work" / "manymask" / stage / "model"
            fit(TrainConfig(get_recipe("phantom"), stage, store, run, init=start), options.minutes * share)
    segmenter = load_model(run / Stage.SEGMENTER / "model").segmenter.eval()
    assert isinstance(segmenter, DiffusionSegmenter)
    return segmenter


Windows = list[tuple[slice, slice]]


def windows_of(side: int, overlap: float) -> Windows:
    """All windows of a scene."""
    step = int(SIZE * (1 - overlap))
    return dense_patch_slices((side, side), (SIZE, SIZE), (step, step))  # type: ignore[return-value]


def _some(windows: Windows) -> Iterator[Windows]:
    return (windows[start : start + AT_ONCE] for start in range(0, len(windows), AT_ONCE))


@dataclass(frozen=True)
class Blend:
    """A weighted mean over windows of a map."""

    total: Tensor
    weights: Tensor

    @classmethod
    def of(cls, channels: int, side: int) -> "Blend":
        return cls(torch.zeros(channels, side, side), torch.zeros(side, side))

    def add(self, place: tuple[slice, slice], part: Tensor, weight: Tensor) -> None:
        self.total[:, place[0], place[1]] += part * weight
        self.weights[place] += weight

    @property
    def mean(self) -> Tensor:
        return self.total / self.weights


def _finer(windows: Windows, factor: int) -> Windows:
    """The same windows in latents."""
    return [tuple(slice(at.start // factor, at.stop // factor) for at in place) for place in windows]  # type: ignore[misc]


Draw = Callable[[DiffusionSegmenter, Tensor, int], Tensor]
"""(model, image (1, side, side), number of masks) → probabilities (n, side, side)."""


def by_window(model: DiffusionSegmenter, image: Tensor, n: int, *, overlap: float, shared: bool, mode: str) -> Tensor:
    """Every window is drawn on its own; the mean of the probabilities of mask k."""
    factor, side = model.mask_codec.factor, image.shape[-1]
    z_channels, sampling = model.mask_codec.latent_channels, model.resolve(None)
    fields = SampleNoise(0, ["scene"], n).normal(z_channels, side // factor, side // factor)
    blend, weight = Blend.of(n, side), compute_importance_map((SIZE, SIZE), mode=mode)
    for some in _some(windows_of(side, overlap)):
        own = SampleNoise(0, [str(place) for place in some], n)
        whole = model.encode_condition(torch.stack([image[:, y, x] for y, x in some]), sampling)
        condition = whole.rows([0] * n, len(some))
        if shared:
            start = torch.cat([fields[:, :, y, x] for y, x in _finer(some, factor)])
        else:
            start = own.normal(z_channels, SIZE // factor, SIZE // factor)
        z = sampling.sampler(model.denoise(condition, sampling), model.setting.process, start, own)  # type: ignore[operator, misc]
        for place, part in zip(some, model.mask_codec.decode(z).reshape(len(some), n, SIZE, SIZE), strict=True):
            blend.add(place, part, weight)
    return blend.mean


def by_step(model: DiffusionSegmenter, image: Tensor, n: int, *, overlap: float) -> Tensor:
    """One latent field; every step takes the mean x̂₀ over windows (MultiDiffusion, Bar-Tal et al. 2023)."""
    factor, side = model.mask_codec.factor, image.shape[-1]
    channels, sampling, process = model.mask_codec.latent_channels, model.resolve(None), model.setting.process
    windows, small = windows_of(side, overlap), SIZE // factor
    conditions = [model.encode_condition(torch.stack([image[:, y, x] for y, x in some]), sampling)
                  for some in _some(windows)]  # fmt: skip
    weight = compute_importance_map((small, small), mode="gaussian")

    def denoise(z: Tensor, t: Any) -> tuple[Tensor, Tensor]:
        blend = Blend.of(n * channels, side // factor)
        for some, whole in zip(_some(windows), conditions, strict=True):
            places = _finer(some, factor)
            cut = torch.cat([z[:, :, y, x] for y, x in places])
            z0 = model.denoise(whole.rows([0] * n, len(some)), sampling)(cut, t)[0]
            for place, part in zip(places, z0.reshape(len(some), n * channels, small, small), strict=True):
                blend.add(place, part, weight)
        z0 = blend.mean.reshape(z.shape)
        a, s = process.alpha_sigma(t)
        return z0, (z - a * z0) / s

    noise = SampleNoise(0, ["scene"], n)
    start = noise.normal(channels, side // factor, side // factor)
    z = sampling.sampler(denoise, process, start, noise)  # type: ignore[operator, misc]
    blend, weight_of_pixels = Blend.of(n, side), compute_importance_map((SIZE, SIZE), mode="gaussian")
    for some in _some(windows):
        cut = torch.cat([z[:, :, y, x] for y, x in _finer(some, factor)])
        for place, part in zip(some, model.mask_codec.decode(cut).reshape(len(some), n, SIZE, SIZE), strict=True):
            blend.add(place, part, weight_of_pixels)
    return blend.mean


WAYS: dict[str, Draw] = {
    "overlap 0.5, shared noise": partial(by_window, overlap=0.5, shared=True, mode="gaussian"),
    "overlap 0.5, every step": partial(by_step, overlap=0.5),
    "overlap 0.5, noise of their own": partial(by_window, overlap=0.5, shared=False, mode="gaussian"),
    "tiles side by side, noise of their own": partial(by_window, overlap=0, shared=False, mode="constant"),
    "overlap 0.25, shared noise": partial(by_window, overlap=0.25, shared=True, mode="gaussian"),
    "overlap 0.25, every step": partial(by_step, overlap=0.25),
}


def seam(masks: Tensor, overlap: float) -> float:
    """How much more neighbouring pixels differ across the borders of windows than next to them, both ways; (n, H, W).

    Pixels on either side of a latent differ more than those within. It is therefore given over the same at the other lines of a
    grid of 16 pixels, which all borders lie on.
    """
    side, grid = masks.shape[-1], 16
    borders = {edge for y, _ in windows_of(side, overlap) for edge in (y.start, y.stop)} - {0, side}
    inside = set(range(grid, side, grid)) - borders
    steps = [(way[:, 1:] - way[:, :-1]).abs().mean(dim=(0, 2)) for way in (masks, masks.transpose(-1, -2))]
    found = []
    for lines in (borders, inside):
        at, beside = (sum(float(each[line - 1 + off]) for each in steps for line in lines for off in offs)
                      for offs in ((0,), (-1, 1)))  # fmt: skip
        found.append(2 * at / beside)
    return found[0] / found[1]


def score(masks: Tensor, truth: Scene, overlap_of_windows: float) -> dict[str, float]:
    """The figures of one way on one scene."""
    ring = masks[:, torch.from_numpy(truth.halos)]
    agreed = truth.raters.mean(axis=0) >= 0.5
    return {
        "seam": seam(masks, overlap_of_windows),
        "dice": overlap(masks.mean(dim=0).numpy() >= 0.5, agreed)[0],
        "ged": ged(masks.numpy() >= 0.5, truth.raters),
        "undecided": float(((ring > 0.2) & (ring < 0.8)).float().mean()),
        "halo": float(ring.mean()),
    }


def run(options: Options) -> dict[str, Any]:
    """Draws, scores, and returns what the file holds."""
    model = trained_on_windows(options)
    found: dict[str, Any] = {}
    scenes = [scene(10_000 + k, options.side) for k in range(options.scenes)]
    for name, draw in WAYS.items():
        rows = []
        for each in scenes:
            with torch.inference_mode():
                masks = draw(model, torch.from_numpy(each.image)[None].float() / 255, options.masks)
            rows.append(score(masks, each, draw.keywords["overlap"]))  # type: ignore[attr-defined]
        found[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        print(name, {key: round(value, 4) for key, value in found[name].items()}, flush=True)
    raters = [float(each.raters[:, each.halos].mean()) for each in scenes]
    return {"ways": found, "raters": {"halo": float(np.mean(raters))},
            "protocol": {"side": options.side, "window": SIZE, "scenes": options.scenes, "masks": options.masks,
                         "minutes": options.minutes}, "git": git_revision(), "hardware": hardware()}  # fmt: skip


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    write_json(chosen.out, run(chosen))
