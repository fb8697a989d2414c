"""The public names: what `import manymask` offers, and that it costs nothing before it is used."""

import subprocess
import sys
from dataclasses import replace

import pytest

import manymask
from manymask.errors import ConfigError
from tests.factories import shortened, tiny_recipe

NAMES = {
    "ManymaskError", "Recipe", "SamplingConfig", "Segmentation", "Segmenter", "Store", "__version__", "calibrate",
    "datasets", "ensemble", "evaluate", "get_recipe", "list_models", "list_recipes", "load_model", "metrics", "prepare",
    "samplers", "save_model", "train", "train_folder",
}  # fmt: skip


def test_public_names_are_the_documented_ones_and_all_can_be_had():
    assert set(manymask.__all__) == NAMES <= set(dir(manymask))
    assert all(getattr(manymask, name) is not None for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'segmentor'"):
        manymask.segmentor  # noqa: B018


def test_importing_manymask_loads_no_torch():
    code = "import sys, manymask; dir(manymask); assert not {'torch', 'numpy', 'PIL', 'monai'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_recipes_are_listed_by_name_and_had_by_it():
    assert {"phantom", "lidc_idri_readers", "isic2018-256"} <= set(manymask.list_recipes())
    assert manymask.get_recipe("phantom").dataset == "phantom"


def test_train_and_evaluate_are_one_call_each(store, tmp_path):
    recipe = shortened(tiny_recipe(), 2)
    model = manymask.train(recipe, store, tmp_path / "run", precision="fp32")
    assert model == tmp_path / "run" / "segmenter" / "model"
    sampling = manymask.SamplingConfig("ddim", steps=2, orientations=3)
    record = manymask.evaluate(
        model, store.folder, samples=2, ged_samples=2, limit=2, sampling=sampling, progress=False
    )
    assert len(record.cases) == 2 and record.protocol["orientations"] == 3
    assert record.protocol["sampler"] == {"kind": "DDIM", "steps": 2, "eta": 0.0}
    again = manymask.evaluate(
        manymask.load_model(model), store, samples=2, ged_samples=2, limit=2, sampling=sampling, progress=False
    )
    assert again.metrics == record.metrics


def test_a_start_belongs_to_one_stage(store, tmp_path):
    with pytest.raises(ConfigError, match="give stage too"):
        manymask.train(tiny_recipe(), store, tmp_path, init=tmp_path)
    with pytest.raises(ConfigError, match=r"'segmentr' is no stage; did you mean .*segmenter"):
        manymask.train(tiny_recipe(), store, tmp_path, stage="segmentr")


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": -1}, {"samples": 0}, {"ged_samples": 0}, {"samples": 1.5}, {"sampling": "ddim"}]
)
def test_impossible_evaluation_is_refused_before_anything_is_loaded(asked, tmp_path):
    with pytest.raises(ConfigError, match=next(iter(asked))):
        manymask.evaluate(tmp_path / "no model", tmp_path / "no store", **asked)


def test_prepare_writes_a_store_and_needs_a_source(tmp_path):
    with pytest.raises(ConfigError, match="give source"):
        manymask.prepare("isic2018", tmp_path / "store")
    small = replace(manymask.get_recipe("phantom"), size=32)
    assert manymask.prepare(small, tmp_path / "store").stored == (32, 32)


def test_a_segmenter_is_had_without_the_libraries_of_training_and_baselines():
    code = (
        "import sys; from manymask import Segmenter; "
        "assert not {'monai', 'matplotlib', 'accelerate', 'tensorboard'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
