"""Several models as one: the same interface, masks from every member, and all that they have seen."""

from dataclasses import replace

import pytest
import torch

from manymask import Segmenter
from manymask.data.folds import fold, fold_name, scheme_of
from manymask.errors import ConfigError
from manymask.evaluation.held_out import held_out_cases
from manymask.hub.catalogue import find_model
from manymask.hub.ensembling import ensemble
from manymask.hub.model_folder import load_model, save_model
from manymask.models.ensembled import Ensembled
from manymask.rng import seed_of
from tests.factories import perturb, run


@pytest.fixture
def members(drawing_model, store, tmp_path):
    """Two models of one recipe with different weights, as folds leave them."""
    folders = []
    for k in (1, 2):
        trained = load_model(drawing_model)
        perturb(trained.model, seed=k, scale=0.02)
        scheme = fold_name("random", k, 2)
        own = replace(trained.provenance, data=store.name, data_hash=store.hash, scheme=scheme, minutes=3.0)
        ids = store.part(scheme, "train")
        folders.append(tmp_path / f"fold-{k}")
        save_model(replace(trained, provenance=own, training_ids=ids), folders[-1])
    return folders


def test_masks_come_from_every_member_in_turn(members, store, tmp_path):
    combined = ensemble(members, tmp_path / "model").segmenter
    batch = store.batch(store.ids[:2])
    drawn = combined.sample_all(batch, 5, seed=3)
    assert drawn.shape == (2, 5, 64, 64)
    for index, folder in enumerate(members):
        own = load_model(folder).segmenter.sample_all(batch, 3 - index, seed=seed_of("member", 3, index))
        assert torch.allclose(drawn[:, index::2], own, atol=1e-5)


def test_number_of_masks_at_a_time_changes_nothing(members, store, tmp_path):
    combined = ensemble(members, tmp_path / "model").segmenter
    batch = store.batch(store.ids[:1])
    whole = combined.sample_all(batch, 5, seed=0)
    assert torch.allclose(whole, torch.cat(list(combined.iter_samples(batch, 5, 0, every=2)), dim=1), atol=1e-5)
    assert torch.allclose(whole[:, :3], combined.sample_all(batch, 3, seed=0), atol=1e-5)


def test_ensemble_is_a_model_folder_like_any_other(members, store, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "ensemble", *members, "--out", tmp_path / "model") == 0
    assert "2 models that saw" in capsys.readouterr().out
    found = load_model(tmp_path / "model")
    assert isinstance(found.recipe.segmenter, Ensembled) and found.recipe.segmenter.members == 2
    assert found.provenance.scheme == "random" and found.provenance.minutes == 6.0
    outside = {*store.part("random", "train"), *store.part("random", "val")}
    assert set(found.training_ids) == outside
    assert held_out_cases(found, store, "test") == store.part("random", "test")
    pixels = (store.images[0, 0]).copy()
    result = Segmenter.from_pretrained(tmp_path / "model").segment(pixels, samples=4, seed=0)
    assert result.masks.shape == (4, 64, 64) and float(result.disagreement.max()) > 0


def test_models_that_do_not_belong_together_are_refused(members, trained_run, tmp_path):
    with pytest.raises(ConfigError, match="at least two"):
        ensemble(members[:1], tmp_path / "model")
    with pytest.raises(ConfigError, match="no single segmenter"):
        ensemble([members[0], trained_run / "mask-codec"], tmp_path / "model")
    other = load_model(members[1])
    save_model(replace(other, provenance=replace(other.provenance, data_hash="sha256:other")), tmp_path / "other")
    with pytest.raises(ConfigError, match="other data or another split"):
        ensemble([members[0], tmp_path / "other"], tmp_path / "model")
    with pytest.raises(ConfigError, match="are one model"):
        ensemble([*members, members[0]], tmp_path / "model")
    with pytest.raises(ConfigError, match="is a member of the ensemble and would be lost"):
        ensemble(members, find_model(members[1]))
    ensemble(members, tmp_path / "model")
    with pytest.raises(ConfigError, match="no single segmenter"):
        ensemble([members[0], tmp_path / "model"], tmp_path / "twice")


def test_folds_part_groups_and_leave_the_test_part_alone(store):
    groups = {case: case[:-1] for case in store.ids}  # cases that differ in their last digit belong together
    scheme = {part: store.part("random", part) for part in ("train", "val", "test")}
    cut = [fold(scheme, groups, fold_name("random", k, 3)) for k in (1, 2, 3)]
    held = [case for each in cut for case in each["val"]]
    assert sorted(held) == sorted([*scheme["train"], *scheme["val"]]) and len(set(held)) == len(held)
    for each in cut:
        assert each["test"] == scheme["test"]
        assert not {groups[case] for case in each["train"]} & {groups[case] for case in each["val"]}
        assert sorted([*each["train"], *each["val"]]) == sorted(held)


def test_fold_that_does_not_exist_is_refused(store):
    for name in ("random/fold-4-of-3", "random/fold-0-of-3", "random/fold-1-of-1"):
        with pytest.raises(ConfigError, match="folds are numbered from 1"):
            store.part(name, "train")
    with pytest.raises(ConfigError, match="groups cannot be cut"):
        store.part("random/fold-1-of-99", "train")
    with pytest.raises(ConfigError, match="has no split 'other/fold-1-of-3'"):
        store.part("other/fold-1-of-3", "train")
    assert scheme_of("random/fold-1-of-3") == "random" and scheme_of("random") == "random"
