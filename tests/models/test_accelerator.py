"""Every model trains and draws masks on an accelerator, a simulated one, and gives there what it gives on the CPU."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from manymask.data.store import Store
from manymask.hub.model_folder import load_model
from manymask.inference.segmenter import Segmenter
from manymask.training.optim import clipping_groups
from manymask.training.trainer import TrainConfig, fit
from tests.accelerator import AVAILABLE, NAME, DeviceTensor, SimulatedAccelerator, register
from tests.factories import MODELS, answer, batch, build, shortened, tiny_recipe

DEVICE = os.environ.get("MANYMASK_TEST_DEVICE", "cuda")


@pytest.fixture(scope="module")
def elsewhere():
    """Runs a function of this file in a process of its own that has a simulated accelerator."""
    if not AVAILABLE:
        pytest.skip("this torch cannot simulate a device")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=register) as process:
        yield lambda function, *args: process.submit(function, *args).result()


def trained_and_asked(name, device):
    """Loss, gradients and masks, after which one optimiser step is made."""
    model = build(name).train().to(device)
    # as a store gives it: who read an image is known on the CPU
    data = replace(batch().to(device), read_by=torch.tensor([[True, True, False, True]] * 3))
    torch.manual_seed(0)
    loss = model(data)["loss"]
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    masks = answer(model.eval(), data)
    for group in clipping_groups(model):
        torch.nn.utils.clip_grad_norm_(group, 1.0)
    torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4).step()
    return [loss.detach(), *gradients, masks]


def agrees_with_the_cpu(name):
    here = trained_and_asked(name, "cpu")
    with SimulatedAccelerator():
        there = trained_and_asked(name, NAME)
        assert all(isinstance(tensor, DeviceTensor) for tensor in there)
        there = [tensor.cpu() for tensor in there]
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_model_trains_and_answers_as_on_the_cpu(name, elsewhere):
    elsewhere(agrees_with_the_cpu, name)


def usable(device):
    """Whether torch has this device."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True


@pytest.mark.skipif(not usable(DEVICE), reason=f"no {DEVICE} here")
@pytest.mark.parametrize("name", MODELS)
def test_model_trains_and_answers_on_this_device(name, monkeypatch):
    """A real accelerator, in single precision; `MANYMASK_TEST_DEVICE` names another than CUDA."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    there = [tensor.cpu() for tensor in trained_and_asked(name, DEVICE)]
    torch.testing.assert_close(there, trained_and_asked(name, "cpu"), rtol=1e-3, atol=2e-3)


def fitted(store, run):
    os.environ["ACCELERATE_TORCH_DEVICE"] = NAME
    with SimulatedAccelerator():
        for stage in ("image-codec", "mask-codec", "segmenter"):
            fit(TrainConfig(shortened(tiny_recipe(), 2), stage, Store(store), run, precision="fp32"))


def test_trainer_gives_the_weights_of_the_cpu(elsewhere, store, trained_run, tmp_path):
    """All stages, with augmentation, validation, checkpoints and export."""
    elsewhere(fitted, store.folder, tmp_path)
    for stage in ("image-codec", "mask-codec", "segmenter"):
        there, here = (
            load_file(next((run / stage / "model").glob("*.safetensors"))) for run in (tmp_path, trained_run)
        )
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def segmented(folder):
    image = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)).numpy()
    here = Segmenter(load_model(folder), "cpu").segment(image, 3)
    with SimulatedAccelerator():
        there = Segmenter(load_model(folder), NAME).segment(image, 3)
    torch.testing.assert_close(there.masks, here.masks, rtol=1e-4, atol=1e-4)


def test_segmenter_gives_the_masks_of_the_cpu(elsewhere, drawing_model):
    elsewhere(segmented, Path(drawing_model))


def checked():
    """What `benchmarks/gpu.py` does there: masks of a shipped model against the CPU's, training and the masks after it."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import gpu

    os.environ["ACCELERATE_TORCH_DEVICE"] = NAME
    options = gpu.Options(device=NAME, quick=True)
    with SimulatedAccelerator():
        rows = [*gpu.compare(options), *gpu.train("phantom-prob-unet", gpu.Stage.SEGMENTER)(options)]
    assert [row.get("stage") for row in rows] == [None, "segmenter"]
    assert all(row["max_difference"] <= row["limit"] for row in rows)


def test_check_of_a_gpu_runs_on_the_simulated_one(elsewhere):
    elsewhere(checked)


class Wrong(torch.nn.Module):
    """One step of a model, wrong in one of several ways."""

    def __init__(self, mistake):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.shift = torch.ones(4)  # neither parameter nor buffer: it stays behind
        self.mistake = mistake

    def forward(self, x):
        return MISTAKES[self.mistake][0](self, x * self.weight)


MISTAKES = {
    "stays behind": (lambda self, x: x + self.shift, "same device"),
    "created on the CPU": (lambda self, x: x * torch.arange(4), "same device"),
    "in inference mode": (torch.inference_mode()(lambda self, x: torch.where(self.shift > 0, x, 0)), "same device"),
    "joined": (lambda self, x: torch.stack([x.sum(), torch.tensor(1.0)]), "same device"),
    "device index on the CPU": (lambda self, x: self.shift[x.argmax()[None]], "same device"),
    "result on the CPU": (lambda self, x: self.shift.add_(x.detach()), "same device"),
    "generator of the CPU": (lambda self, x: x + torch.randn(4, generator=torch.Generator(), device=x.device), "generator"),
    "numpy": (lambda self, x: x.detach().numpy(), "numpy"),
    "CPU only": (lambda self, x: torch.histogram(x.detach(), 4), "kernel for the CPU only"),
}  # fmt: skip


def refuses(mistake):
    model = Wrong(mistake)
    with SimulatedAccelerator():
        model.to(NAME)(torch.ones(4, device=NAME))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake, elsewhere):
    with pytest.raises((RuntimeError, TypeError), match=MISTAKES[mistake][1]):
        elsewhere(refuses, mistake)


def allows():
    with SimulatedAccelerator():
        x = torch.arange(4.0, device=NAME)
        assert (x * torch.tensor(2.0)).tolist() == [0, 2, 4, 6]
        assert x[torch.tensor([1, 3])].cpu().tolist() == [1, 3]
        x[2:].zero_()  # views share memory
        assert float(x.sum()) == 1
        assert x.to("cpu", torch.float64).numpy().dtype == "float64"
        assert torch.tensor([1.0], device=x.device).device == x.device


def test_what_cuda_allows_is_allowed(elsewhere):
    elsewhere(allows)
