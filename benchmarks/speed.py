"""Where the time and the memory go: five masks for one image, and a training step at batch 16.

python benchmarks/speed.py --model runs/isic/segmenter/model          inference
python benchmarks/speed.py --recipe isic2018                          peak memory of training
"""

import resource
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from manymask.data.case import Batch
from manymask.data.dihedral import dihedral
from manymask.hub.model_folder import load_model
from manymask.recipes import get_recipe
from manymask.rng import SampleNoise, TrainingNoise
from manymask.runtime import faster_precision


@dataclass
class Options:
    """Give a model, a recipe, or both."""

    model: Path | None = None
    recipe: str | None = None
    samples: int = 5
    runs: int = 9
    batch: int = 16
    shares: dict[str, list[float]] = field(default_factory=lambda: {"encode": [], "sample": [], "decode": []})


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def inference(options: Options) -> None:
    """Median seconds over runs, and the share of encoding, sampling and decoding."""
    trained = load_model(options.model)
    model, row = trained.model, trained.recipe
    image = torch.rand(1, row.channels, row.size, row.size)
    shape = torch.Size((model.mask_codec.latent_channels, *[row.size // model.mask_codec.factor] * 2))
    orientations = model.setting.orientations
    for run in range(options.runs + 1):
        marks = [time.perf_counter()]
        turned = torch.cat([dihedral(image, k) for k in range(min(orientations, options.samples))])
        told = model.encode_condition(turned).rows([k % orientations for k in range(options.samples)], 1)
        marks.append(time.perf_counter())
        noise = SampleNoise(run, ["x"], options.samples)
        z = model.setting.sampler(model.denoise(told), model.setting.process, noise.normal(*shape), noise)
        marks.append(time.perf_counter())
        model.mask_codec.decode(z)
        marks.append(time.perf_counter())
        if run:  # the first warms up
            for name, start, end in zip(options.shares, marks, marks[1:], strict=False):
                options.shares[name].append(end - start)
    medians = {name: statistics.median(times) for name, times in options.shares.items()}
    total = sum(medians.values())
    print(
        f"{options.samples} masks of {row.size}², {model.setting.sampler}: {total:.3f} s per image (median of {options.runs})"
    )
    print(", ".join(f"{name} {seconds / total:.0%}" for name, seconds in medians.items()))
    print(f"peak memory {peak_megabytes():.0f} MB, {torch.get_num_threads()} threads, torch {torch.__version__}")


def training(options: Options) -> None:
    """Peak memory of a few optimiser steps."""
    row = get_recipe(options.recipe)
    precision, n = faster_precision(), options.batch
    for stage in ("image-codec", "mask-codec", "segmenter"):
        model = row.build(stage).train()
        optimiser = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
        masks = (torch.rand(n, 1, row.size, row.size) > 0.5).float()
        batch = Batch(
            [str(i) for i in range(n)], torch.rand(n, row.channels, row.size, row.size), masks, TrainingNoise(0, 0)
        )
        times = []
        for _ in range(5):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model(batch)["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            times.append(time.perf_counter() - start)
        print(
            f"{stage}: {statistics.median(times[1:]):.3f} s per step of {n} ({precision}), peak {peak_megabytes():.0f} MB so far"
        )


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    if chosen.model:
        inference(chosen)
    if chosen.recipe:
        training(chosen)
