"""A new sampler and a new data set take one file each: a copy of the package with two more files has both everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import manymask
from manymask.data.datasets import phantom

SAMPLER = '''
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from manymask.diffusion.process import GaussianDiffusion, Process, RectifiedFlow
from manymask.diffusion.samplers.base import Denoise, NoiseSource, register


@register
@dataclass(frozen=True)
class FirstOrder:
    """Moves along the estimates of image and noise from each time to the next."""

    label: ClassVar[str] = "First order"
    serves: ClassVar[tuple[type[Process], ...]] = (GaussianDiffusion, RectifiedFlow)
    deterministic: ClassVar[bool] = True
    steps: int = 20

    def __call__(self, denoise: Denoise, process: Process, z: Tensor, noise: NoiseSource) -> Tensor:
        for t, s in pairwise(process.timesteps(self.steps)):
            z0, epsilon = denoise(z, t)
            alpha, sigma = process.alpha_sigma(s)
            z = alpha * z0 + sigma * epsilon
        return z
'''

DATA_SET = """
from pathlib import Path

import numpy as np

from manymask.data.case import Case, Source, random_scheme
from manymask.data.datasets.base import Dataset, Intended, Licence, Option
from manymask.io.dicom.finding import Finding
from manymask.io.masks import MaskReading


def _case(number: int) -> Case:
    def load() -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[:64, :64]
        mask = abs(y - 20 - number) + abs(x - 32) < 12
        noise = np.random.default_rng(number).integers(0, 60, (64, 64))
        return (noise + 120 * mask).astype(np.uint8)[:, :, None], mask[None]

    return Case(f"diamond-{number}", f"patient-{number}", load)


def read(source: Path, channels: int = 1, reading: MaskReading | None = None, count: int = 20) -> Source:
    cases = [_case(number) for number in range(count)]
    return Source("diamonds", cases, {"random": random_scheme({c.id: c.group for c in cases}, 42)}, "CC0-1.0")


DATASET = Dataset(
    "diamonds",
    read,
    licence=Licence("cc0-1.0", "Released under CC0 1.0.", pictures=True),
    use=Intended("Outlines a diamond.", ("simulation",), "simulated diamonds"),
    finding=Finding(("1234", "Diamond")),
    options=(Option("count", int, 20, "how many images are made."),),
    size=64,
    channels=1,
    positive_weight=3,
)
"""

EVERYWHERE = """
import sys
from dataclasses import replace

from manymask.cli.tables import recipe_rows
from manymask.config import from_dict, to_dict
from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.samplers import SAMPLERS
from manymask.diffusion.sampling import SamplingConfig
from manymask.experiments.matrix import compared_samplers, matrix
from manymask.experiments.report.plots import _sampler_title
from manymask.experiments.report.tables import _compared
from manymask.hub.intended_use import finding, intended
from manymask.hub.licenses import licence
from manymask.hub.model_folder import load_model
from manymask.inference.segmenter import Segmenter
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.recipes import RECIPES, Recipe
from manymask.serving.app import _controls
from manymask.serving.service import Limits
from manymask.serving.session import SessionManager, segment_request_of

kind = SAMPLERS["first-order"]
row = RECIPES["diamonds"]
changed = replace(row, segmenter=replace(row.segmenter, sampler=kind(7)))
assert from_dict(Recipe, to_dict(changed)) == changed

import gradio as gr
from pathlib import Path

office = SessionManager({"own": Segmenter(load_model(Path(sys.argv[1])))}, Limits(), Path(sys.argv[2]))
with gr.Blocks():
    assert ("First order", "First order") in _controls(office).sampler.choices
assert segment_request_of(Limits(), 1, 0, "First order", 3, "").sampler == "first-order"

assert kind() in compared_samplers(GaussianDiffusion) and kind() not in compared_samplers(RectifiedFlow)
assert "FirstOrder" in _compared(GaussianDiffusion) and _sampler_title("FirstOrder") == "First order"

assert (row.size, row.channels, row.mask_codec.loss.weight) == (64, 1, 3)
assert {"ours", "unet", "segdiff", "loss-focal"} <= {line.name for line in matrix("diamonds", raters=1)}
assert licence("diamonds").tag == "cc0-1.0" and intended(row).purpose == "Outlines a diamond."
assert finding("diamonds").finding == ("1234", "Diamond")
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has two more files."""
    folder = tmp_path_factory.mktemp("extended")
    copy = folder / "manymask"
    shutil.copytree(Path(manymask.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "diffusion/samplers/first_order.py").write_text(SAMPLER)
    (copy / "data/datasets/diamonds.py").write_text(DATA_SET)
    return folder


def run_in(folder: Path, *arguments: object) -> str:
    """The output of the extended package's Python."""
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "120"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_new_sampler_is_a_flag_that_help_lists_and_that_draws(extended, trained_run, tmp_path):
    assert "first-order" in run_in(extended, "-m", "manymask", "segment", "--help")
    Image.fromarray(phantom.draw(0).image[:, :, 0]).save(tmp_path / "grey.png")
    flags = ("--model", trained_run, "--out", tmp_path / "out", "--sampler", "first-order", "--steps", 3)
    run_in(extended, "-m", "manymask", "segment", tmp_path / "grey.png", *flags)
    sampler = json.loads((tmp_path / "out/grey/result.json").read_text())["sampler"]
    assert sampler == {"kind": "FirstOrder", "steps": 3}


def test_new_data_set_has_recipes_and_is_prepared_with_its_own_options(extended, tmp_path):
    assert "diamonds" in run_in(extended, "-m", "manymask", "recipes")
    assert "--count" in run_in(extended, "-m", "manymask", "prepare", "--help")
    flags = ("--source", tmp_path, "--out", tmp_path / "store", "--count", 12)
    assert "12 cases, 1 rater" in run_in(extended, "-m", "manymask", "prepare", "diamonds", *flags)
    assert json.loads((tmp_path / "store/manifest.json").read_text())["name"] == "diamonds"


def test_configs_page_matrix_report_and_model_facts_have_both(extended, trained_run, tmp_path):
    (tmp_path / "check.py").write_text(EVERYWHERE)
    run_in(extended, tmp_path / "check.py", trained_run, tmp_path)
