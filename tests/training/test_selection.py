"""What training keeps: which weights are scored, which are kept and exported, and how gradients are clipped."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from manymask.data.raters import raters_consensus
from manymask.diffusion.guidance import PairClassifier
from manymask.evaluation.evaluator import Scores
from manymask.hub.model_folder import load_model
from manymask.training.optim import clipping_groups
from manymask.training.trainer import TrainConfig, Trainer, fit
from tests.factories import shortened, tiny_recipe


def job(store, run, stage="mask-codec", steps=6, **changes) -> TrainConfig:
    recipe = shortened(replace(tiny_recipe(), **changes), steps)
    return TrainConfig(recipe, stage, store, run, precision="fp32")


def with_codecs(trained_run: Path, run: Path) -> Path:
    for codec in ("image-codec", "mask-codec"):
        shutil.copytree(trained_run / codec, run / codec)
    return run


def scored(monkeypatch, scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Validation gives these scores, one after another; returns the weights that each was given for."""
    seen, left = [], iter(scores)

    def evaluate(model, *_, **__):
        seen.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return Scores({"dice": {"mean": next(left)}}, [])

    monkeypatch.setattr("manymask.training.validation.evaluate", evaluate)
    return seen


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """But for the latents' statistics, which are measured on export."""
    names = first.keys() - {"mean", "std"}
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in names)


def test_the_best_averaged_weights_are_exported_not_the_last_or_the_worst(store, tmp_path, monkeypatch):
    """Of three validations the second is best."""
    seen = scored(monkeypatch, [0.4, 0.9, 0.2])
    training = replace(tiny_recipe().codec_training, validate_every=2, learning_rate=1e-2)
    place = fit(job(store, tmp_path, steps=6, codec_training=training))
    exported = load_file(place / "codec.safetensors")
    assert len(seen) == 3 and not equal(seen[0], seen[1]) and not equal(seen[1], seen[2])
    assert equal(exported, seen[1])
    assert equal(load_file(tmp_path / "mask-codec/checkpoints/best.safetensors"), seen[1])
    assert load_model(place).provenance.steps == 4 and "dice 0.9000" in load_model(place).provenance.score


def test_of_presence_the_last_weights_are_exported(store, trained_run, tmp_path, monkeypatch, capsys):
    """Dice, of images that all hold something, would choose a model that always says so; it ends no training either."""
    seen = scored(monkeypatch, [0.9, 0.2, 0.1])
    recipe = tiny_recipe()
    training = replace(recipe.training, validate_every=1, part="presence", learning_rate=1e-2)
    changes = {"segmenter": replace(recipe.segmenter, presence=True, target="consensus"), "training": training}
    start = trained_run / "segmenter" / "model"
    alone = shortened(replace(recipe, **changes), 3)
    job = TrainConfig(alone, "segmenter", store, tmp_path, init=start, precision="fp32", patience=1)
    exported = load_model(fit(job))
    assert "segmenter: presence as it is after step 3" in capsys.readouterr().out
    name = next(k for k in seen[0] if k.startswith("presence"))
    assert len(seen) == 3 and not torch.equal(seen[1][name], seen[2][name])
    assert torch.equal(exported.model.state_dict()[name], seen[2][name]) and exported.provenance.steps == 3


def test_averaged_weights_are_validated_not_the_raw_ones(store, tmp_path, monkeypatch):
    """θ̄ after two steps by hand: d = min(0.9999, (1 + n)/(10 + n)), n counting the updates before."""
    seen = scored(monkeypatch, [0.5])
    training = Trainer.start(job(store, tmp_path, steps=2))
    raw = []
    for _ in range(2):
        training.step()
        raw.append({k: v.detach().clone() for k, v in training.unwrapped.state_dict().items()})
    training.validate()
    name = next(k for k in raw[0] if k.startswith("decoder"))
    by_hand = torch.lerp(raw[0][name], raw[1][name], 1 - 2 / 11)  # the first update copies
    assert torch.allclose(seen[0][name], by_hand, atol=1e-7) and not torch.equal(seen[0][name], raw[1][name])


def test_denoiser_and_classifier_are_clipped_each_by_itself(store, trained_run, tmp_path):
    recipe = tiny_recipe()
    segmenter = replace(recipe.segmenter, classifier=PairClassifier((8,)))
    training = replace(recipe.training, max_grad_norm=0.01)
    run = with_codecs(trained_run, tmp_path)
    started = Trainer.start(job(store, run, "segmenter", segmenter=segmenter, training=training))
    norms = {}

    def look(*_, **__):
        for part in ("denoiser", "classifier"):
            gradients = [p.grad for p in getattr(started.unwrapped, part).parameters()]
            norms[part] = float(torch.stack([g.norm() for g in gradients]).norm())

    started.optimiser.optimizer.register_step_pre_hook(look)
    raw = started.step()["gradient_norm"]
    assert norms["denoiser"] == pytest.approx(0.01, rel=1e-3) and norms["classifier"] == pytest.approx(0.01, rel=1e-3)
    assert float(raw) > 0.05
    groups = clipping_groups(started.unwrapped)
    assert [len(group) for group in groups[1:]] == [len(list(started.unwrapped.classifier.parameters()))]
    assert sum(len(group) for group in groups) == len(list(started.unwrapped.parameters()))


def test_latents_are_standardised_over_what_the_segmenter_learns(store, tmp_path):
    """The recipe's codec learns one rater at random, its segmenter the consensus."""
    segmenter = replace(tiny_recipe().segmenter, target="consensus")
    codec = load_model(fit(job(store, tmp_path, steps=2, segmenter=segmenter))).model
    with torch.no_grad():
        z = codec.encode(raters_consensus(store.batch(store.part(None, "train")).truth()))
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(z.shape[1]), atol=1e-3)
    assert torch.allclose(z.std(dim=(0, 2, 3), correction=0), torch.ones(z.shape[1]), atol=1e-2)


def test_without_a_validation_the_averaged_weights_are_exported(store, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "validate", lambda self: None)
    training = Trainer.start(job(store, tmp_path, steps=2))
    exported = load_file(training.run() / "codec.safetensors")
    assert equal(exported, dict(training.ema.module.state_dict()))
    assert not equal(exported, dict(training.unwrapped.state_dict()))
