"""What a segmenter does besides what every model does (see test_every_model.py)."""

from dataclasses import replace

import pytest
import torch

from manymask.data.case import Batch
from manymask.data.dihedral import dihedral, dihedral_inverse
from manymask.diffusion.process import GaussianDiffusion, RectifiedFlow
from manymask.diffusion.samplers import DDIM, DDPM, Euler
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.models.autoencoder import Pixels
from manymask.models.denoisers import PyramidUNet
from manymask.models.deterministic import NNUNet, OneToOne, supervised
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.recipes import RECIPES, STAGES
from tests.factories import SEGMENTERS, SIZE, batch, build, tiny_recipe


def test_condition_is_encoded_once_for_all_samples_and_steps(monkeypatch):
    model, calls = build("pyramid-x0"), []
    original = model.denoiser.condition
    monkeypatch.setattr(model.denoiser, "condition", lambda image, z: calls.append(len(image)) or original(image, z))
    model.sample_all(batch(), 5, seed=0)
    assert calls == [3]


def test_codecs_stay_in_evaluation_mode():
    model = build("concat-v").train()
    assert model.training and not model.mask_codec.training and not model.image_codec.training


@pytest.mark.parametrize("name", [n for n, s in SEGMENTERS.items() if isinstance(s, OneToOne)])
def test_network_answers_turned_passes_turned_back(name):
    """The mean over all eight flips and quarter orientations orientations with the image."""
    model, b = build(name), batch()
    turned = Batch(b.ids, b.image.flip(-1))
    first = model.sample_all(b, 8, seed=0).mean(1)
    assert torch.allclose(model.sample_all(turned, 8, seed=0).mean(1).flip(-1), first, atol=1e-5)
    assert first.shape == b.image[:, 0].shape


def test_samples_spread_over_turns_are_drawn_from_the_turned_image():
    spread, b = build("orientations"), batch()
    plain = build("pyramid-x0")
    plain.load_state_dict(spread.state_dict())
    drawn = spread.sample_all(b, 4, seed=0)
    for k in range(4):
        turned = Batch(b.ids, dihedral(b.image, k % 3))
        alone = dihedral_inverse(plain.sample_all(turned, 4, seed=0)[:, k], k % 3)
        assert torch.allclose(drawn[:, k], alone, atol=1e-4)


def test_watch_hears_the_share_of_each_samples_steps_that_is_done():
    shares = list[float]()
    list(build("pyramid-x0").iter_samples(batch(1), 2, 0, callback=shares.append))
    assert shares == pytest.approx([0, 1 - 667 / 1000, 1 - 333 / 1000] * 2)


def test_dice_term_is_added_to_the_denoising_loss():
    logs = build("dice").train()(batch())
    assert torch.allclose(logs["loss"], logs["denoising"] + logs["dice"]) and 0 < logs["dice"] < 0.5


def test_deep_supervision_weighs_the_finest_answer_most():
    """Stacked answers count 1, ½, ¼ over their sum; a list counts alike; one answer counts as it is."""
    mask = torch.zeros(1, 1, 2, 2)
    levels = [torch.full((1, 1, 2, 2), v) for v in (1.0, 2.0, 4.0)]

    def loss(logits, mask):
        return logits.mean()

    assert float(supervised(loss, torch.stack(levels, dim=1), mask)) == pytest.approx((1 + 2 / 2 + 4 / 4) / 1.75)
    assert float(supervised(loss, levels, mask)) == pytest.approx(7 / 3)
    assert float(supervised(loss, levels[2], mask)) == 4


def test_nnunet_supervises_all_but_the_two_lowest_resolutions():
    network = NNUNet((8, 8, 8, 8, 8)).build(1).train()
    assert network(torch.rand(2, 1, SIZE, SIZE)).shape == (2, 3, 1, SIZE, SIZE)
    names = [id(p) for p in network.state_dict(keep_vars=True).values()]
    assert len(names) == len(set(names)), "a tensor under two names cannot be saved"


def test_every_data_set_has_every_baseline():
    variants = {n.removeprefix("phantom-") for n in RECIPES if n.startswith("phantom-")}
    assert variants >= {
        "paper",
        "unet",
        "unetpp",
        "resunet",
        "nnunet",
        "ensemblediff",
        "segdiff",
        "medsegdiff",
        "prob-unet",
    }
    for data in ("cvc_clinicdb", "isic2018", "lidc_idri"):
        assert {f"{data}-{v}" for v in variants} <= set(RECIPES)


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("phantom-") and n != "phantom-paper"])
def test_baselines_differ_in_the_model_alone(name):
    row, baseline = RECIPES["phantom"], RECIPES[name]
    same = ("dataset", "size", "channels", "training", "augment")
    assert [getattr(row, k) for k in same] == [getattr(baseline, k) for k in same]


def test_pixel_recipe_has_no_codec_to_train():
    for stage in STAGES[:2]:
        with pytest.raises(ConfigError, match=f"it has no {stage} to train"):
            RECIPES["phantom-segdiff"].build(stage)


def test_sampler_that_cannot_run_the_process_is_refused_in_a_line():
    recipe = replace(tiny_recipe(), segmenter=LatentDiffusion(process=RectifiedFlow(), sampler=DDPM(5)))
    with pytest.raises(ConfigError, match="DDPM cannot sample a RectifiedFlow: choose DDIM, DPMSolver, Euler, Heun"):
        recipe.build("segmenter")
    with pytest.raises(ConfigError, match="Euler cannot sample a GaussianDiffusion"):
        build("concat-v").sample_all(batch(), 1, seed=0, sampling=SamplingConfig(Euler(2)))


def test_each_noise_level_of_an_image_learns_from_a_rater_of_its_own():
    recipe = tiny_recipe()
    model = replace(recipe, segmenter=replace(recipe.segmenter, noise_levels_per_image=4)).build("segmenter")
    four = batch()
    four = replace(four, masks=torch.arange(4.0).reshape(1, 4, 1, 1).expand(len(four.image), 4, SIZE, SIZE))
    drawn = model.targets(four).mean(dim=(1, 2, 3)).reshape(len(four.image), 4)
    assert (drawn.sort(dim=1).values == torch.arange(4.0)).all()
    consensus = replace(recipe, segmenter=replace(recipe.segmenter, target="consensus", noise_levels_per_image=4))
    assert len(consensus.build("segmenter").targets(batch())) == len(batch().image)


def test_codecs_of_two_factors_and_too_deep_pyramids_are_refused_in_a_line():
    recipe = tiny_recipe()
    with pytest.raises(ConfigError, match="the codecs shrink by 8 and 4"):
        replace(recipe, image_codec=replace(recipe.image_codec, patch_size=4)).build("segmenter")
    deep = LatentDiffusion(PyramidUNet((8,), 1, (8, 8), 1), GaussianDiffusion("x0"), DDIM(2))
    with pytest.raises(ConfigError, match="too deep for f = 1"):
        replace(recipe, image_codec=Pixels(1), mask_codec=Pixels(1), segmenter=deep).build("segmenter")


@pytest.mark.parametrize("name", ["lidc_idri", "polyps-256", "cvc_clinicdb"])
def test_the_twin_has_the_encoder_of_its_row_and_nothing_else_of_it(name):
    row, twin = RECIPES[name], RECIPES[f"{name}-twin"]
    assert (twin.training, twin.augment, twin.size, twin.margin) == (row.training, row.augment, row.size, row.margin)
    theirs, own = row.segmenter.denoiser, twin.segmenter.network
    assert (own.encoder_channels[-len(theirs.encoder_channels) :], own.backbone) == (
        theirs.encoder_channels,
        theirs.backbone,
    )
    with torch.device("meta"):
        built = twin.build("segmenter").network[0], row.build("segmenter").denoiser.pyramid[0]
    weights = [{k: v.shape for k, v in each.state_dict().items() if "lateral" not in k} for each in built]
    assert weights[0].items() >= weights[1].items()


def test_end_to_end_all_of_the_mask_codec_learns_from_the_denoiser_and_nothing_of_the_image_codec():
    model = build("end-to-end").train()
    losses = model(batch())
    assert set(losses) == {"loss", "denoising", "dice", "mask_codec"}
    losses["loss"].backward()
    learning = {name for name, p in model.mask_codec.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {name.split(".")[0] for name in learning}
    assert parts == {"encoder", "decoder"} and all(p.grad is None for p in model.image_codec.parameters())


def test_end_to_end_the_encoder_is_led_by_the_denoising_loss_too(monkeypatch):
    """Where the codec's own loss is nothing, what is left is the gradient of predicting its latents."""
    model = build("end-to-end").train()
    model.setting = replace(model.setting, dice_weight=0.0)
    along = model.mask_codec.encode_along
    monkeypatch.setattr(model.mask_codec, "encode_along", lambda x: (along(x)[0], torch.tensor(0.0)))
    model(batch())["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in model.mask_codec.encoder.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in model.mask_codec.decoder.parameters())


@pytest.mark.parametrize("change", [{"mask_codec": Pixels(1), "image_codec": Pixels(1)}, {"quantized": True}])
def test_codec_that_cannot_be_trained_along_is_refused(change):
    recipe = replace(tiny_recipe(), segmenter=replace(SEGMENTERS["concat-epsilon"], train_mask_codec=True))
    if "quantized" in change:
        change = {"mask_codec": replace(recipe.mask_codec, quantized=True)}
    with pytest.raises(ConfigError, match="train_mask_codec: needs a mask codec with continuous latents"):
        replace(recipe, **change).build("segmenter")
