"""Builders that tests share: tiny recipes, models of every family, batches, jobs, the command line."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manymask.calibration.calibration import Calibration, Origin
from manymask.calibration.confidence import Temperature
from manymask.calibration.evidence import NAMES
from manymask.calibration.foreignness import Foreignness
from manymask.calibration.presence import USED, PresenceMap
from manymask.calibration.quality import PredictedDice
from manymask.calibration.risk import RiskControl
from manymask.cli import main as cli
from manymask.data.case import Batch
from manymask.diffusion.guidance import PairClassifier
from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.samplers import DDIM, DDPM, PLMS, DPMSolver, Euler, Heun
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.models.autoencoder import Autoencoder, Pixels
from manymask.models.denoisers import ConcatUNet, MedSegDiff, PyramidUNet, SegDiff
from manymask.models.deterministic import NNUNet, OneToOne, Pyramid, ResUNet, UNet, UNetPlusPlus
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.models.prob_unet import ProbUNet
from manymask.nn.losses import MSE, Dice, Focal, WeightedCE
from manymask.nn.quantizers import FSQ, KL, VQ
from manymask.recipes import Recipe, Training
from manymask.rng import TrainingNoise
from manymask.training.trainer import TrainConfig, Trainer

# here, since processes that tests start import this file: equal weights need equal numbers of threads
if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # more threads than cores spin


def tiny_recipe() -> Recipe:
    """The phantom's `fast` row with every width cut down."""
    shape = {"channels": (8, 16), "blocks_per_level": 1, "patch_size": 2, "quantized": False, "latent_channels": 2}
    training = Training(batch_size=4, warmup=2, validate_every=1000, validation_cases=2, learning_rate=1e-3)
    return Recipe(
        "phantom",
        64,
        1,
        image_codec=Autoencoder("image", 1, loss=MSE(), **shape),
        mask_codec=Autoencoder("mask", 1, loss=WeightedCE(2.0, unbias=True), **shape),
        segmenter=LatentDiffusion(
            PyramidUNet((8, 8), 1, (8, 8, 16), 1), GaussianDiffusion("x0"), DDIM(3), "rater", noise_levels_per_image=2
        ),
        codec_training=training,
        training=training,
    )


def shortened(recipe: Recipe, steps: int) -> Recipe:
    return replace(
        recipe,
        training=replace(recipe.training, steps=steps),
        codec_training=replace(recipe.codec_training, steps=steps),
    )


def perturb(model: torch.nn.Module, seed: int = 0, scale: float = 0.05) -> torch.nn.Module:
    """Moves every weight off its start: zero-initialised layers would make equality tests empty."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return model


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of `manymask ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["manymask", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


SIZE = 32


CONCAT = ConcatUNet((8, 8), 1)


PYRAMID = PyramidUNet((8, 8), 1, (8, 8, 16), 1)


SIX = (8, 8, 8, 8, 8, 8)


LATENT = {
    "concat-epsilon": LatentDiffusion(CONCAT, GaussianDiffusion("epsilon"), DDIM(5), noise_levels_per_image=1),
    "concat-v": LatentDiffusion(CONCAT, GaussianDiffusion("v"), PLMS(5)),
    "pyramid-x0": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DDIM(3), noise_levels_per_image=3),
    "pyramid-rater": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DPMSolver(4), "rater"),
    "ddpm": LatentDiffusion(CONCAT, GaussianDiffusion("x0"), DDPM(5)),
    "trainable-condition": LatentDiffusion(CONCAT, GaussianDiffusion("x0"), DDIM(3), train_image_codec=True),
    "trainable-quantised": LatentDiffusion(CONCAT, GaussianDiffusion("x0"), DDIM(3), train_image_codec=True),
    "presence": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DDIM(3), "rater", noise_levels_per_image=2,
                                presence=True, orientations=2),
    "auxiliary": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DDIM(3), auxiliary=Dice(1.0)),
    "head-share": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DDIM(3), auxiliary=Dice(1.0), head_share=0.4, orientations=3),
    "orientations": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DDIM(3), orientations=3),
    "dice": LatentDiffusion(PYRAMID, GaussianDiffusion("v"), DDIM(3), noise_levels_per_image=2, dice_weight=0.5),
    "imagenet": LatentDiffusion(PyramidUNet((8, 8), 1, (8, 16), backbone="efficientnet-lite0"), GaussianDiffusion("x0"), DDIM(3)),
    "end-to-end": LatentDiffusion(PYRAMID, GaussianDiffusion("x0", min_snr=5.0), DDIM(3), noise_levels_per_image=2,
                                  train_mask_codec=True, dice_weight=0.2),
    "one-step": LatentDiffusion(CONCAT, GaussianDiffusion("epsilon", beta_start=8.5e-4, beta_end=0.012), DDIM(1),
                                train_image_codec=True, estimate_weight=1.0),
    "flow-euler": LatentDiffusion(PYRAMID, RectifiedFlow(), Euler(4), noise_levels_per_image=2),
    "flow-heun": LatentDiffusion(CONCAT, RectifiedFlow(), Heun(2)),
    "classifier-free": LatentDiffusion(PYRAMID, GaussianDiffusion("x0"), DDIM(3), condition_dropout=0.5, guidance_scale=2.0),
    "classifier": LatentDiffusion(CONCAT, GaussianDiffusion("x0"), DDIM(3), noise_levels_per_image=2,
                                  classifier=PairClassifier((8, 16))),
    "both-on-flow": LatentDiffusion(
        CONCAT, RectifiedFlow(), Euler(3), condition_dropout=0.5, guidance_scale=0.5, classifier=PairClassifier((8,))
    ),
}  # fmt: skip


PIXEL = {
    "ensemblediff": LatentDiffusion(ConcatUNet((8, 8, 8), 1), GaussianDiffusion("epsilon"), DDIM(3)),
    "segdiff": LatentDiffusion(SegDiff((8, 8), 1, dense_blocks=1, growth=4), GaussianDiffusion("epsilon"), DDIM(3)),
    "medsegdiff": LatentDiffusion(MedSegDiff((8, 16), 1, size=SIZE), GaussianDiffusion("epsilon"), DDIM(3)),
    "pixel-flow": LatentDiffusion(
        SegDiff((8, 8), 1, dense_blocks=1, growth=4), RectifiedFlow(), Heun(2), condition_dropout=0.5
    ),
}


ONCE = {
    "unet": OneToOne(UNet(SIX)),
    "unetpp": OneToOne(UNetPlusPlus(SIX)),
    "resunet": OneToOne(ResUNet((8, 8, 16))),
    "nnunet": OneToOne(NNUNet((8, 8, 8, 8))),
    "twin": OneToOne(Pyramid((8, 8, 16), 1, factor=2, head_channels=8)),
    "random-reader": OneToOne(Pyramid((8, 16), backbone="efficientnet-lite0", head_channels=8), WeightedCE(1), "rater"),
}


MANY = {"prob-unet": ProbUNet(SIX, (8, 8), 1)}


SEGMENTERS = {**LATENT, **PIXEL, **ONCE, **MANY}


CODECS = {
    "image-vq": {"image_codec": {"bottleneck": VQ(codebook_size=16), "quantized": True}},
    "image-kl": {"image_codec": {"bottleneck": KL()}},
    "mask-fsq": {"mask_codec": {"bottleneck": FSQ(5), "loss": Dice(), "quantize_on_decode": True}},
    "mask-f16": {"mask_codec": {"patch_size": 8, "loss": Focal()}},
}


MODELS = [*SEGMENTERS, *CODECS]


def stage_of(name):
    return "segmenter" if name in SEGMENTERS else f"{name.split('-')[0]}-codec"


def recipe_of(name):
    recipe = tiny_recipe()
    if name in CODECS:
        return replace(recipe, **{k: replace(getattr(recipe, k), **v) for k, v in CODECS[name].items()})
    recipe = replace(recipe, segmenter=SEGMENTERS[name])
    if name in PIXEL:
        return replace(recipe, image_codec=Pixels(1), mask_codec=Pixels(1))
    if name == "trainable-quantised":
        return replace(recipe, image_codec=replace(recipe.image_codec, quantized=True))
    return recipe


def build(name):
    torch.manual_seed(0)
    return perturb(recipe_of(name).build(stage_of(name))).eval()


def batch(n=3, step=0):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(n, 1, SIZE, SIZE, generator=generator)
    masks = (torch.rand(n, 4, SIZE, SIZE, generator=generator) > 0.6).float()
    return Batch([f"case-{i}" for i in range(n)], image, masks, TrainingNoise(0, step))


def answer(model, b, n=2, seed=0):
    """What the model is for: n masks for each image, or a codec's reconstruction; (B, n, H, W)."""
    if hasattr(model, "sample_all"):
        return model.sample_all(b, n, seed)
    with torch.no_grad():
        return model.reconstruct(b)[1]


def row(b, i):
    return Batch(b.ids[i : i + 1], b.image[i : i + 1], b.truth()[i : i + 1], b.noise)


def job(store, run, stage="mask-codec", steps=6, **changes):
    recipe = shortened(replace(tiny_recipe(), **changes), steps)
    return TrainConfig(recipe, stage, store, run, precision="fp32")


def calibration_of(trained: TrainedModel, data: Batch, samples: int = 5, foreign: bool = False) -> Calibration:
    """A calibration by hand: temperature 2, Dice 0.8 whatever the masks, outlines at fixed confidence, presence 0.75.

    foreign: whether every image is unlike those of the training.
    """
    with torch.inference_mode():
        embedding = trained.segmenter.traits(
            trained.segmenter.prepare(data, 1, trained.segmenter.resolve(None)), len(data.image)
        ).embedding
    n, d = 19, len(NAMES)
    level = np.zeros((2, d + 1))
    level[:, -1] = 0.8
    width = np.zeros((2, d + 1))
    width[:, -1] = -2.0
    error = np.linspace(-1, 1, n)
    reach = 1e-6 if foreign else 1e6
    sampling = trained.segmenter.resolve(None).record(samples)
    origin = Origin(trained.fingerprint, trained.settings_sha256, "phantom", "sha256:0123456789abcdef", "random", "val",
                    tuple("abcdefghijklmnopqrst"), 20, 3, sampling, 0, "", "2026-01-01T00:00:00Z")  # fmt: skip
    return Calibration(
        origin,
        Temperature(2.0, 0.0),
        (RiskControl(0.05, 0.2, 0.8), RiskControl(0.1, 0.3, 0.7), RiskControl(0.2, 0.4, 0.6)),
        PredictedDice(np.zeros(d), np.ones(d), level, width, error, np.arange(n) % 2.0),
        PresenceMap(np.zeros(len(USED)), np.ones(len(USED)), np.append(np.zeros(len(USED)), np.log(3.0))),
        None if embedding is None else Foreignness(
            embedding.mean(0).double().numpy(), np.zeros((1, embedding.shape[1])), np.ones(1), 1.0,
            np.linspace(0.1, 1, 20) * reach,
        ),
    )  # fmt: skip


def save_calibrated(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a model folder, with the calibration of `calibration_of`."""
    trained = load_model(source)
    size = trained.recipe.size
    data = Batch(["a"], torch.rand(1, trained.recipe.channels, size, size, generator=torch.Generator().manual_seed(0)))
    trained.calibration = calibration_of(trained, data, **changes)
    save_model(trained, folder)
    return folder


def same(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stopped_after(job: TrainConfig, steps: int) -> None:
    """Trains some steps, leaves a checkpoint, and forgets everything else."""
    started = Trainer.start(job)
    for _ in range(steps):
        started.step()
    started.checkpoint()
