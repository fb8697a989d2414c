"""Small real things that the tests share: a store of a few phantoms, and a recipe that trains in seconds."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from manymask.cli import main as cli
from manymask.data.case import Source, random_scheme
from manymask.data.datasets import phantom
from manymask.data.store import Store, prepare
from manymask.diffusion.process import Diffusion
from manymask.diffusion.samplers import DDIM
from manymask.models.autoencoder import Autoencoder
from manymask.models.denoisers import PyramidUNet
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.nn.losses import MSE, WeightedCE
from manymask.recipes import Recipe, Training

torch.set_num_threads(len(os.sched_getaffinity(0)))  # more threads than cores spin


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


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return tiny_recipe()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    cases = phantom.read().cases[:24]
    source = Source("phantom", cases, {"random": random_scheme({c.id: c.id for c in cases}, 0)}, "Apache-2.0")
    return prepare(source, tmp_path_factory.mktemp("data") / "store", 64, 1)


@pytest.fixture(scope="session")
def trained_run(recipe: Recipe, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all three stages trained for two steps."""
    from manymask.training.trainer import Job, fit

    run = tmp_path_factory.mktemp("run")
    short = shortened(recipe, 2)
    for stage in ("image-codec", "mask-codec", "segmenter"):
        fit(Job(short, stage, store, run, precision="fp32"))
    return run


@pytest.fixture(scope="session")
def drawing_model(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose masks are neither empty nor full, nor equal: what two steps of training do not give."""
    from manymask.hub.model_folder import TrainedModel, save_model
    from manymask.hub.provenance import Provenance

    folder = tmp_path_factory.mktemp("drawing") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = perturb(recipe.build("segmenter"), scale=0.2)
    save_model(TrainedModel(model, recipe, "segmenter", Provenance(), []), folder)
    return folder


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


@pytest.fixture(scope="session")
def page_server(tmp_path_factory: pytest.TempPathFactory):
    """`manymask serve`, shared by all tests of the page."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    from .page_server import serving

    flags = ("--max-megabytes", "3", "--max-megabytes-at-once", "8", "--max-waiting", "20", "--max-waiting-each", "21")
    with serving(tmp_path_factory.mktemp("page"), *flags) as server:
        yield server


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of `manymask ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["manymask", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
