"""Models by name: found alike by every door, never fetched, and brought along by a wheel."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import manymask
from manymask.errors import ConfigError, InputError
from manymask.hub import catalogue
from manymask.hub.catalogue import default_model, find_model, is_shared, model_entries, named_models
from manymask.serving.server import load_segmenters
from tests.factories import run

ROOT = Path(__file__).parents[2]
SHIPPED = {"cvc_clinicdb", "isic2018", "lidc_idri", "lidc_idri_readers", "polyps"}
EXAMPLE = ROOT / "src/manymask/serving/static/examples/ISIC_0010249.jpg"


def folder_of(place: Path, name: str, **changes) -> Path:
    """A model folder with a config alone, which is all that a name needs."""
    recipe = {"dataset": changes.pop("dataset", name), "size": 64}
    (place / name).mkdir(parents=True)
    config = {"purpose": "Outlines a thing.", "modality": ["MR"], "recipe": recipe} | changes
    (place / name / "config.json").write_text(json.dumps(config))
    return place / name


@pytest.fixture
def only(monkeypatch, tmp_path):
    """A machine whose models are in this folder alone."""
    monkeypatch.setattr(catalogue, "_places", lambda: iter([tmp_path / "shelf"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shelf"


def test_shipped_models_are_found_by_name_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert set(manymask.list_models()) >= SHIPPED
    assert find_model("isic2018") == find_model(Path("isic2018")) == ROOT / "models/isic2018"
    trained = manymask.load_model("isic2018")
    assert (trained.name, trained.recipe.dataset) == ("isic2018", "isic2018")
    assert manymask.Segmenter.from_pretrained("isic2018").trained.fingerprint == trained.fingerprint
    assert list(load_segmenters(["isic2018"])) == ["isic2018"]


def test_checkout_goes_before_package_and_package_before_cache(monkeypatch, tmp_path):
    package, cache = tmp_path / "site/manymask_models", tmp_path / "cache"
    for place in (package, cache / "models"):
        folder_of(place, "isic2018")
        folder_of(place, "ours")
    theirs = folder_of(cache / "models", "theirs")
    monkeypatch.setenv("MANYMASK_CACHE", str(cache))
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = named_models()
    assert list(found) == sorted(found)
    assert found["isic2018"] == ROOT / "models/isic2018"
    assert found["ours"] == package / "ours" and found["theirs"] == theirs


def test_cache_follows_the_custom_of_the_system(monkeypatch, tmp_path):
    monkeypatch.delenv("MANYMASK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert catalogue.cache_folder() == tmp_path / "manymask"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert catalogue.cache_folder() == Path.home() / ".cache/manymask"


def test_folder_goes_before_a_model_of_its_name_unless_it_is_no_model(only, tmp_path):
    named = folder_of(only, "isic2018")
    (tmp_path / "isic2018").mkdir()  # the data set, for example
    assert find_model("isic2018") == named
    (tmp_path / "isic2018/config.json").write_text("{}")
    assert find_model("isic2018") == Path("isic2018") and not is_shared("isic2018")


def test_run_folder_is_found_by_its_path(trained_run):
    assert find_model(trained_run) == trained_run / "segmenter/model"
    assert not is_shared(trained_run) and is_shared("isic2018") and is_shared("hf://org/name")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("isic", "isic: no such model folder; did you mean isic2018?; models by name: isic2018, polyps"),
        ("models/isic2018", "did you mean isic2018?"),
        ("/srv/polyp", "/srv/polyp: no such model folder; did you mean polyps?"),
        ("org/name", "a model of the Hugging Face Hub is named hf://ORG/NAME"),
        ("zzz", "models by name: isic2018, polyps"),
    ],
)
def test_typo_gets_a_guess_and_the_list(only, name, said):
    folder_of(only, "isic2018")
    folder_of(only, "polyps")
    with pytest.raises(ConfigError) as error:
        find_model(name)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_absolute_path_is_not_answered_with_the_list(only):
    folder_of(only, "isic2018")
    with pytest.raises(ConfigError) as error:
        find_model("/patients/meier")
    assert str(error.value) == "/patients/meier: no such model folder"


def test_entries_tell_purpose_licence_dice_and_size():
    entries = {each.name: each for each in model_entries()}
    isic, lidc = entries["isic2018"], entries["lidc_idri"]
    scores = [
        draw["metrics"]["dice"]["mean"] for draw in json.loads((isic.folder / "metrics.json").read_text())["segmenter"]
    ]
    assert isic.dice == pytest.approx(sum(scores) / len(scores)) and len(scores) == 3
    assert (isic.size, isic.crop, lidc.crop, lidc.modality) == (256, False, True, ("CT",))
    assert "CC0" in isic.licence and "skin lesion" in isic.purpose
    assert isic.bytes == sum(file.stat().st_size for file in isic.folder.iterdir())
    assert entries["lidc_idri_readers"].purpose != lidc.purpose


def test_model_without_scores_is_listed_and_a_damaged_one_is_named(only, capsys, monkeypatch):
    folder_of(only, "mine")
    assert run(monkeypatch, "models") == 0
    assert "mine  64²    –" in capsys.readouterr().out
    folder_of(only, "damaged", recipe=3)
    with pytest.raises(InputError, match=r"damaged/config\.json is not the configuration of a model"):
        model_entries()


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_models_are_listed_by_their_whole_names_at_any_width(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", width)
    assert run(monkeypatch, "models") == 0
    said = capsys.readouterr().out
    assert set(said.split()) >= SHIPPED and "no commercial use" in " ".join(said.split())
    dice = [f"{each.dice:.3f}" for each in model_entries()]
    assert len(dice) == len(SHIPPED) and all(each in said for each in dice)


def test_only_model_is_the_default(only):
    folder_of(only, "mine")
    assert default_model().name == default_model({"MR"}).name == "mine"


def test_ct_takes_the_model_of_ct_that_is_named_after_its_data_set():
    assert default_model({"CT"}).name == "lidc_idri"


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((), r"do not tell which model they want: choose one of cvc_clinicdb \(polyps .*; isic2018 \(one skin lesion"),
        ({"MR"}, "no model is for MR: choose one of cvc_clinicdb"),
        ({"CT", "endoscopy"}, "no model is for CT and endoscopy"),
    ],
)
def test_images_that_tell_no_model_get_the_choices(kinds, said):
    with pytest.raises(ConfigError, match=said):
        default_model(kinds)


def test_two_models_of_unlike_data_leave_the_choice_to_the_user(only):
    folder_of(only, "polyps", modality=["endoscopy"])
    folder_of(only, "cvc_clinicdb", modality=["endoscopy"])
    with pytest.raises(ConfigError, match=r"choose one of cvc_clinicdb .*; polyps"):
        default_model({"endoscopy"})


def test_no_model_at_all_is_said(only):
    with pytest.raises(ConfigError, match="no model is installed"):
        default_model()


def wheel(source: Path, names: list[str], work: Path) -> Path:
    """The wheel of a copy of a folder's parts, so that the checkout gets no build/."""
    copy = work / source.name
    for name in names:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        place = source / name
        if place.is_dir():
            shutil.copytree(place, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(place, target)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*build, "-w", work, copy], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return max(work.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


def test_wheels_of_code_and_models_segment_without_the_checkout(tmp_path):
    pytest.importorskip("setuptools", "77", reason="builds wheels")
    site = tmp_path / "site"
    for source, names in (
        (ROOT, ["pyproject.toml", "README.md", "LICENSE", "src"]),
        (ROOT / "models", ["pyproject.toml", "README.md", "__init__.py", "isic2018"]),
    ):
        with zipfile.ZipFile(wheel(source, names, tmp_path)) as archive:
            archive.extractall(site)
    assert {path.name for path in (ROOT / "models/isic2018").iterdir()} == {
        path.name for path in (site / "manymask_models/isic2018").iterdir()
    }
    environment = os.environ | {"PYTHONPATH": str(site), "MANYMASK_CACHE": str(tmp_path / "none")}
    command = [sys.executable, "-m", "manymask", "segment", "-i", EXAMPLE, "-n", "2", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "taking the model isic2018" in done.stderr  # there is no other
    result = json.loads((tmp_path / "out" / EXAMPLE.stem / "result.json").read_text())
    assert result["model"]["name"] == "isic2018"
    assert result["model"]["weights_sha256"] == manymask.load_model("isic2018").fingerprint
