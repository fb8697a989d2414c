"""Every ablation is a field of the recipe: changed alone, all three stages still train and the segmenter still draws."""

import shutil
from dataclasses import replace

import pytest
import torch

from manymask.diffusion.guidance import PairClassifier
from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.samplers import DDIM, DDPM, PLMS, DPMSolver, Euler, Heun
from manymask.diffusion.sampling import SamplingConfig
from manymask.hub.model_folder import load_model
from manymask.models.denoisers import ConcatUNet
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.nn.losses import MSE, Dice, Focal, WeightedCE
from manymask.nn.quantizers import FSQ, KL, VQ
from manymask.recipes import STAGES
from tests.factories import SIZE, batch, perturb, run, tiny_recipe

BASE = replace(
    tiny_recipe(), segmenter=LatentDiffusion(ConcatUNet((8, 8), 1), GaussianDiffusion("x0"), DDIM(2), "rater")
)


def both(**changes):
    return {k: replace(getattr(BASE, k), **changes) for k in ("image_codec", "mask_codec")}


def mask_codec(**changes):
    return {"mask_codec": replace(BASE.mask_codec, **changes)}


def segmenter(**changes):
    return {"segmenter": replace(BASE.segmenter, **changes)}


ABLATIONS = {
    **{f"f-{2 * stem}": both(patch_size=stem) for stem in (2, 4, 8)},
    **{f"loss-{type(loss).__name__}": mask_codec(loss=loss) for loss in (MSE(True), WeightedCE(50), Focal(), Dice())},
    **{f"bottleneck-{type(b).__name__}": both(bottleneck=b) for b in (VQ(codebook_size=16), KL(), FSQ(5))},
    **{f"quantised-{q}-snap-{s}": both(quantized=q, quantize_on_decode=s) for q in (False, True) for s in (False, True)},
    **{f"trainable-condition-{t}": segmenter(train_image_codec=t) for t in (False, True)},
    **{f"predicts-{p}": segmenter(process=GaussianDiffusion(p)) for p in ("epsilon", "x0", "v")},
    **{f"sampler-{type(s).__name__}": segmenter(sampler=s) for s in (DDPM(3), DDIM(3, eta=1.0), PLMS(3), DPMSolver(3))},
    **{f"flow-{type(s).__name__}": segmenter(process=RectifiedFlow(), sampler=s)
       for s in (Euler(3), Heun(2), DDIM(3), DPMSolver(3))},
    **{f"target-{t}": segmenter(target=t) for t in ("consensus", "rater")},
    "classifier-free": segmenter(condition_dropout=0.1, guidance_scale=3.0),
    "classifier": segmenter(classifier=PairClassifier((8,), scale=2.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", ABLATIONS)
def test_all_stages_train_and_the_segmenter_draws(name):
    recipe = replace(BASE, **ABLATIONS[name])
    for stage in STAGES:
        torch.manual_seed(0)
        model = perturb(recipe.build(stage))
        loss = model.train()(batch())["loss"]
        loss.backward()
        assert torch.isfinite(loss)
    masks = model.eval().sample_all(batch(), 2, seed=0)
    assert masks.shape == (3, 2, SIZE, SIZE) and torch.isfinite(masks).all()


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 50])
def test_number_of_steps_can_be_chosen_for_a_trained_model(steps):
    model = perturb(BASE.build("segmenter")).eval()
    for kind in (DDPM, DDIM, PLMS, DPMSolver):
        assert torch.isfinite(model.sample_all(batch(1), 1, seed=0, sampling=SamplingConfig(kind(steps)))).all()


def test_thirty_samples_begin_with_the_first_five():
    model = perturb(BASE.build("segmenter")).eval()
    many = model.sample_all(batch(2), 30, seed=0)
    assert many.shape[1] == 30 and torch.allclose(many[:, :5], model.sample_all(batch(2), 5, seed=0), atol=1e-4)


def train(monkeypatch, *arguments):
    assert run(monkeypatch, "train", *arguments) == 0


SHORT = (
    "--recipe.training.steps",
    2,
    "--recipe.training.batch-size",
    2,
    "--recipe.training.validation-cases",
    2,
    "--precision",
    "fp32",
)


@pytest.mark.parametrize(
    ("recipe", "flags", "kind"),
    [
        (
            "phantom-segdiff",
            ("--recipe.segmenter.denoiser.channels", 8, 8, "--recipe.segmenter.sampler.steps", 2),
            "LatentDiffusion",
        ),
        ("phantom-resunet", ("--recipe.segmenter.network.channels", 8, 8, 8), "OneToOne"),
        ("phantom-prob-unet", ("--recipe.segmenter.encoder-channels", 8, 8), "ProbUNet"),
    ],
)
def test_model_without_codecs_is_trained_by_one_command(recipe, flags, kind, store, monkeypatch, tmp_path):
    train(monkeypatch, recipe, "segmenter", "--data", store.folder, "--run", tmp_path, *SHORT, *flags)
    trained = load_model(tmp_path)
    assert type(trained.recipe.segmenter).__name__ == kind and trained.provenance.steps == 2
    assert not (tmp_path / "image-codec").exists()


def test_flow_and_guidance_are_flags(trained_run, store, recipe, monkeypatch, tmp_path):
    """On the codecs of a run that was trained with other segmenter settings."""
    for codec in ("image-codec", "mask-codec"):
        shutil.copytree(trained_run / codec, tmp_path / codec)
    monkeypatch.setattr("manymask.recipes.RECIPES", {"tiny": recipe})
    train(monkeypatch, "tiny", "segmenter", "--data", store.folder, "--run", tmp_path, *SHORT,
          "--recipe.segmenter.condition-dropout", 0.1, "recipe.segmenter.process:rectified-flow", "recipe.segmenter.sampler:heun",
          "recipe.segmenter.classifier:pair-classifier")  # fmt: skip
    setting = load_model(tmp_path).model.setting
    assert (setting.process, setting.sampler, setting.condition_dropout) == (RectifiedFlow(), Heun(), 0.1)
    assert setting.classifier == PairClassifier()


def test_codec_of_pixels_is_refused_in_a_line(store, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "train", "phantom-segdiff", "image-codec", "--data", store.folder, "--run", tmp_path) == 2
    assert "has no image-codec to train" in capsys.readouterr().err
