"""Builders that tests share: tiny recipes, models of every family, batches, jobs, the command line."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from manymask.cli import main as cli
from manymask.data.case import Batch
from manymask.diffusion.guidance import PairClassifier
from manymask.diffusion.process import Diffusion, Flow
from manymask.diffusion.samplers import DDIM, DDPM, PLMS, DPMSolver, Euler, Heun
from manymask.models.autoencoder import Autoencoder, Pixels
from manymask.models.denoisers import ConcatUNet, MedSegDiff, PyramidUNet, SegDiff
from manymask.models.deterministic import NNUNet, OneToOne, Pyramid, ResUNet, UNet, UNetPlusPlus
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.models.prob_unet import ProbUNet
from manymask.nn.losses import MSE, Dice, Focal, WeightedCE
from manymask.nn.quantizers import FSQ, KL, VQ
from manymask.recipes import Recipe, Training
from manymask.rng import TrainingNoise
from manymask.training.trainer import Fit, Job


def tiny_recipe() -> Recipe:
    """The phantom's `fast` row with every width cut down."""
    shape = {"widths": (8, 16), "blocks": 1, "stem": 2, "quantised": False, "latent": 2}
    training = Training(batch=4, warmup=2, validate_every=1000, validation_cases=2, learning_rate=1e-3)
    return Recipe(
        "phantom",
        64,
        1,
        image_codec=Autoencoder("image", 1, loss=MSE(), **shape),
        mask_codec=Autoencoder("mask", 1, loss=WeightedCE(2.0, unbias=True), **shape),
        segmenter=LatentDiffusion(
            PyramidUNet((8, 8), 1, (8, 8, 16), 1), Diffusion("x0"), DDIM(3), "reader", noise_levels=2
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
    "concat-epsilon": LatentDiffusion(CONCAT, Diffusion("epsilon"), DDIM(5), noise_levels=1),
    "concat-v": LatentDiffusion(CONCAT, Diffusion("v"), PLMS(5)),
    "pyramid-x0": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), noise_levels=3),
    "pyramid-reader": LatentDiffusion(PYRAMID, Diffusion("x0"), DPMSolver(4), "reader"),
    "ddpm": LatentDiffusion(CONCAT, Diffusion("x0"), DDPM(5)),
    "trainable-condition": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), train_image_codec=True),
    "trainable-quantised": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), train_image_codec=True),
    "presence": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), "reader", noise_levels=2, presence=True, turns=2),
    "turns": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), turns=3),
    "dice": LatentDiffusion(PYRAMID, Diffusion("v"), DDIM(3), noise_levels=2, dice=0.5),
    "imagenet": LatentDiffusion(PyramidUNet((8, 8), 1, (8, 16), backbone="efficientnet-lite0"), Diffusion("x0"), DDIM(3)),
    "flow-euler": LatentDiffusion(PYRAMID, Flow(), Euler(4), noise_levels=2),
    "flow-heun": LatentDiffusion(CONCAT, Flow(), Heun(2)),
    "classifier-free": LatentDiffusion(PYRAMID, Diffusion("x0"), DDIM(3), drop_condition=0.5, guidance=2.0),
    "classifier": LatentDiffusion(CONCAT, Diffusion("x0"), DDIM(3), noise_levels=2, classifier=PairClassifier((8, 16))),
    "both-on-flow": LatentDiffusion(
        CONCAT, Flow(), Euler(3), drop_condition=0.5, guidance=0.5, classifier=PairClassifier((8,))
    ),
}  # fmt: skip


PIXEL = {
    "ensemblediff": LatentDiffusion(ConcatUNet((8, 8, 8), 1), Diffusion("epsilon"), DDIM(3)),
    "segdiff": LatentDiffusion(SegDiff((8, 8), 1, dense_blocks=1, growth=4), Diffusion("epsilon"), DDIM(3)),
    "medsegdiff": LatentDiffusion(MedSegDiff((8, 16), 1, size=SIZE), Diffusion("epsilon"), DDIM(3)),
    "pixel-flow": LatentDiffusion(SegDiff((8, 8), 1, dense_blocks=1, growth=4), Flow(), Heun(2), drop_condition=0.5),
}


ONCE = {
    "unet": OneToOne(UNet(SIX)),
    "unetpp": OneToOne(UNetPlusPlus(SIX)),
    "resunet": OneToOne(ResUNet((8, 8, 16))),
    "nnunet": OneToOne(NNUNet((8, 8, 8, 8))),
    "twin": OneToOne(Pyramid((8, 8, 16), 1, factor=2, width=8)),
    "random-reader": OneToOne(Pyramid((8, 16), backbone="efficientnet-lite0", width=8), WeightedCE(1), "reader"),
}


MANY = {"prob-unet": ProbUNet(SIX, (8, 8), 1)}


SEGMENTERS = {**LATENT, **PIXEL, **ONCE, **MANY}


CODECS = {
    "image-vq": {"image_codec": {"bottleneck": VQ(codes=16), "quantised": True}},
    "image-kl": {"image_codec": {"bottleneck": KL()}},
    "mask-fsq": {"mask_codec": {"bottleneck": FSQ(5), "loss": Dice(), "snap": True}},
    "mask-f16": {"mask_codec": {"stem": 8, "loss": Focal()}},
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
        return replace(recipe, image_codec=replace(recipe.image_codec, quantised=True))
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
    if hasattr(model, "predict"):
        return model.predict(b, n, seed)
    with torch.no_grad():
        return model.reconstruct(b)[1]


def row(b, i):
    return Batch(b.ids[i : i + 1], b.image[i : i + 1], b.truth()[i : i + 1], b.noise)


def job(store, run, stage="mask-codec", steps=6, **changes):
    recipe = shortened(replace(tiny_recipe(), **changes), steps)
    return Job(recipe, stage, store, run, precision="fp32")


def same(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stopped_after(job: Job, steps: int) -> None:
    """Trains some steps, leaves a checkpoint, and forgets everything else."""
    started = Fit(job)
    for _ in range(steps):
        started.step()
    started.checkpoint()
