"""Older formats: what was renamed still loads and gives equal masks; what is newer or was removed is one line."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml

from manymask import migrations, recipes
from manymask.config import from_dict, to_dict
from manymask.data import augment
from manymask.diffusion import guidance, process
from manymask.errors import ManymaskError
from manymask.experiments import cell, matrix
from manymask.hub.model_folder import load_model
from manymask.migrations import FORMAT, upgraded, upgraded_results
from manymask.models import autoencoder, denoisers, deterministic, latent_diffusion, prob_unet
from manymask.nn import quantizers
from manymask.recipes import Recipe
from manymask.training.trainer import Trainer
from tests.factories import batch, job, stopped_after, tiny_recipe

OLD = json.loads(Path(__file__).with_name("config-format-1.json").read_text(encoding="utf-8"))
MODULES = (autoencoder, quantizers, latent_diffusion, denoisers, deterministic, guidance, process, prob_unet, recipes,
           augment, matrix, cell)  # fmt: skip


def current(name: str) -> type:
    """The class that is now called so."""
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


def test_recipe_of_format_one_is_the_same_recipe():
    assert from_dict(Recipe, upgraded(OLD["recipe"], 1, "old")) == tiny_recipe()


def test_model_folder_of_format_one_gives_equal_masks(drawing_model, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    for path in drawing_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps(OLD))
    old, new = load_model(folder), load_model(drawing_model)
    assert old.recipe == new.recipe and old.fingerprint == new.fingerprint
    image = batch().image.repeat(1, 1, 2, 2)
    b = replace(batch(), image=image, masks=None)
    assert torch.equal(old.model.sample_all(b, 2, seed=3), new.model.sample_all(b, 2, seed=3))


def test_every_new_name_of_the_table_is_a_setting_today():
    for old, names in migrations.RENAMED_FIELDS.items():
        kind = current(migrations.RENAMED_CLASSES.get(old, old))
        known = {field.name for field in fields(kind)}
        assert set(names.values()) <= known, old
        assert not (set(names) - set(names.values())) & known - {"channels"}, old


def test_run_that_began_in_format_one_goes_on(store, tmp_path):
    given = job(store, tmp_path, steps=6)
    stopped_after(given, 2)
    path = given.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    old = OLD["recipe"] | {"codec_training": OLD["recipe"]["codec_training"] | {"steps": 6}}
    old["training"] = old["training"] | {"steps": given.recipe.training.steps}
    assert from_dict(Recipe, upgraded(old, 1, "old")) == given.recipe
    del config["format"]
    path.write_text(yaml.safe_dump(config | {"recipe": old}))
    trainer = Trainer.start(given)
    assert trainer.progress.step == 2
    trainer.close()


def test_run_that_used_what_was_removed_says_so(store, tmp_path):
    old = json.loads(json.dumps(OLD["recipe"]))
    old["segmenter"]["coarse"] = 0.5
    assert from_dict(Recipe, upgraded(old, 1, "old")) == tiny_recipe(), "masks are drawn as before"
    with pytest.raises(ManymaskError, match=r"LatentDiffusion\.coarse = 0\.5 was removed"):
        upgraded(old, 1, "old", training=True)


@pytest.mark.parametrize(("found", "message"), [(FORMAT + 1, "newer than this version reads"), ("2", "no format"),
                                                (0, "no format"), (True, "no format")])  # fmt: skip
def test_unknown_format_is_one_line(found, message, drawing_model, tmp_path):
    config = json.loads((drawing_model / "config.json").read_text()) | {"format": found}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ManymaskError, match=message) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_the_newest_format_is_left_as_it_is():
    new = to_dict(tiny_recipe())
    assert upgraded(new, FORMAT, "new") is new


def test_results_of_format_one_are_read_in_todays_words():
    old = {"metrics": {"spread": {"mean": 0.2}, "dice_all_slots_filled": {"mean": 0.8}}, "seconds_an_image": 0.5,
           "cases": [{"id": "a", "readers": 3}], "model": {"recipe": OLD["recipe"]}}  # fmt: skip
    new = upgraded_results(old)
    assert new["metrics"] == {"relative_std": {"mean": 0.2}, "dice_all_raters": {"mean": 0.8}}
    assert new["latency_s"] == 0.5 and new["cases"] == [{"id": "a", "raters": 3}] and new["format"] == FORMAT
    assert from_dict(Recipe, new["model"]["recipe"]) == tiny_recipe()
    assert upgraded_results(new) is new


def test_part_that_a_file_names_twice_is_not_copied():
    shared = {"kind": "VQ", "codes": 16}
    new = upgraded({"kind": "Anything", "a": shared, "b": [shared, shared]}, 1, "old")
    assert new["a"] is new["b"][0] is new["b"][1] and new["a"]["codebook_size"] == 16
