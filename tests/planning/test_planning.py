"""From a folder of images to a model and a verdict: what is found, what is decided, what the owner edits, what is said."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from manymask.data.datasets import phantom
from manymask.data.store import Store
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.hub.model_folder import load_model
from manymask.io.masks import MaskReading
from manymask.planning import decide as rules
from manymask.planning.decide import decide, starts, with_codec
from manymask.planning.look import Found, look_at_source
from manymask.planning.plan import Plan, read_plan, recipe_of, with_values, write_plan
from manymask.planning.request import Request
from manymask.planning.run import train_planned
from manymask.planning.verdict import Verdict
from manymask.recipes import Stage, get_recipe
from tests.factories import run

FOUND = Found(60, 60, (("384×288", 60),), 3, 1, 0.1, 0.02, 0.0)


def folder(place: Path, raters: int = 1, count: int = 12, side: int = 64) -> Path:
    """Grey phantoms as a user lays them out."""
    for k in range(count):
        drawn = phantom.draw(k)
        pixels = [drawn.image[:, :, 0], *(np.uint8(255) * mask for mask in drawn.masks[:raters])]
        names = ["images", *([f"masks-{r}" for r in range(raters)] if raters > 1 else ["masks"])]
        for name, each in zip(names, pixels, strict=True):
            (place / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(each.astype(np.uint8)).resize((side, side)).point(
                (lambda v: 255 * (v > 127)) if name != "images" else (lambda v: v)
            ).save(place / name / f"p{k}__a.png")
    return place


@pytest.fixture
def mine(tmp_path):
    return folder(tmp_path / "mine")


def ask(mine: Path, trained_run: Path, **changes) -> Request:
    """Seconds of training from a tiny model."""
    return replace(Request(mine, mine.parent / "run", 0.01, str(trained_run), precision="fp32"), **changes)


def plan(**changes) -> Plan:
    own = {"data": "/mine", "minutes": 30.0, "image_codec_minutes": 3.75, "mask_codec_minutes": 3.75,
           "segmenter_minutes": 22.5, "scheme": "random", "size": 128, "channels": 3, "factor": 4,
           "positive_weight": 5.0, "encoder": "own", "target": "consensus"}  # fmt: skip
    return Plan(**own | changes)


def test_look_counts_what_a_plan_needs(mine):
    found = look_at_source(phantom_source(mine))
    assert (found.images, found.groups, found.channels, found.raters) == (12, 12, 1, 1)
    assert found.sizes == (("64×64", 12),)
    areas = [(np.asarray(Image.open(path)) > 127).mean() for path in (mine / "masks").iterdir()]
    assert found.lesion == pytest.approx(np.median([area for area in areas if area]))
    assert "12 images, one mask each" in found.lines


def phantom_source(place: Path):
    from manymask.data.datasets import DATASETS

    return DATASETS["folder"].read(place, 3)


def test_masks_without_foreground_are_refused_before_anything_is_planned(mine):
    for path in (mine / "masks").iterdir():
        Image.new("L", (64, 64)).save(path)
    with pytest.raises(InputError, match="none of the masks"):
        look_at_source(phantom_source(mine))


def decided(start=None, minutes=30.0, **found) -> tuple[Plan, list[str]]:
    return decide(replace(FOUND, **found), Path("/mine"), "random", minutes, 0, start, None, None, False)


def test_time_is_split_between_the_stages_and_a_good_codec_takes_none():
    zero, _ = decided()
    assert (zero.image_codec_minutes, zero.mask_codec_minutes, zero.segmenter_minutes) == (3.75, 3.75, 22.5)
    assert sum(zero.minutes_of(stage) for stage in Stage) == 30
    start = starts("auto", ["isic2018"], FOUND, "folder", None)[0]
    begun, _ = decided(start)
    assert (begun.image_codec_minutes, begun.mask_codec_minutes, begun.segmenter_minutes) == (0, 0, 30)
    assert with_codec(begun, 0.99)[0] == begun
    poor, said = with_codec(begun, 0.8)
    assert (poor.mask_codec_minutes, poor.segmenter_minutes) == (3.75, 26.25) and "0.800 only" in said


def test_size_follows_the_time_and_the_target_the_raters():
    assert decided(minutes=30)[0].size == 256 and decided(minutes=5)[0].size == 128
    assert decided(raters=1)[0].target == "consensus"
    several, reasons = decided(raters=3)
    assert several.target == "rater" and several.dice_weight == 0
    assert any("there are 3 raters; the model learns one rater at random" in line for line in reasons)


def test_nearest_model_fits_channels_and_size_and_has_not_seen_the_data():
    shipped = ["cvc_clinicdb", "isic2018", "lidc_idri", "lidc_idri_readers", "polyps"]
    first = starts("auto", shipped, FOUND, "folder", None)[0]
    assert (first.name, first.recipe.size) == ("isic2018", 256), "of three of one size, the one whose terms are free"
    assert all(each.recipe.channels == 3 for each in starts("auto", shipped, FOUND, "folder", None))
    grey = starts("auto", shipped, replace(FOUND, channels=1), "folder", None)
    assert not grey[0].recipe.crop and {each.recipe.channels for each in grey} == {1, 3}
    assert "isic2018" not in [each.name for each in starts("auto", shipped, FOUND, "isic2018", None)]
    assert starts("none", shipped, FOUND, "folder", None) == []
    with pytest.raises(ConfigError, match="no such model"):
        starts("isic", shipped, FOUND, "folder", None)


def test_terms_of_the_first_model_are_said():
    start = starts("auto", ["cvc_clinicdb"], FOUND, "folder", None)[0]
    assert any("no commercial use" in line for line in decided(start)[1])


def test_plan_is_read_as_it_was_written_whatever_its_values(tmp_path):
    own = plan(init="/a folder/with: signs # and more", learning_rate=3e-5)
    write_plan(own, FOUND.lines, ["size 128: why"], tmp_path)
    assert read_plan(tmp_path) == own
    text = (tmp_path / "plan.yaml").read_text()
    assert "#   60 images, one mask each" in text and "# f, side of the pixels" in text
    longer = replace(own, minutes=60.0)
    with_values(tmp_path, longer)
    assert read_plan(tmp_path) == longer
    assert (tmp_path / "plan.yaml").read_text().replace("minutes: 60.0", "minutes: 30.0") == text


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("size: big", "'big' is not of type int"),
        ("size: 100000", "must lie in 8 … 4096"),
        ("factor: 16", "factor must be 4 or 8"),
        ("speed: 3", "Plan has no setting speed"),
    ],
)
def test_mistake_in_an_edited_plan_is_named(tmp_path, edit, said):
    write_plan(plan(), [], [], tmp_path)
    path = tmp_path / "plan.yaml"
    name = edit.partition(":")[0]
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(name)) + edit)
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_plan(tmp_path)


def test_plan_decides_the_recipe():
    row = recipe_of(plan(), "folder")
    assert (row.size, row.channels, row.mask_codec.factor, row.encoder) == (128, 3, 4, "own")
    assert row.segmenter.denoiser == get_recipe("folder").segmenter.denoiser
    row = recipe_of(plan(size=256, factor=8, encoder="efficientnet-lite0", channels=1, batch_size=8), "folder")
    assert row.segmenter.denoiser == get_recipe("folder-256").segmenter.denoiser
    assert (row.image_codec.in_channels, row.training.batch_size, row.mask_codec.factor) == (1, 8, 8)
    begun = recipe_of(plan(init="isic2018", size=256, factor=8, encoder="efficientnet-lite0"), "folder")
    assert begun.image_codec == load_model("isic2018").recipe.image_codec and begun.dataset == "folder"
    with pytest.raises(ConfigError, match="isic2018 does not fit the plan: factor is 8, the plan says 4"):
        recipe_of(plan(init="isic2018", size=256, factor=4, encoder="efficientnet-lite0"), "folder")


def test_folder_becomes_a_model_with_a_verdict(mine, trained_run, capsys):
    done = train_planned(ask(mine, trained_run))
    assert isinstance(done, Verdict)
    place = mine.parent / "run"
    names = {path.name for path in place.iterdir()}
    assert {"plan.yaml", "store", "segmenter", "scores", "verdict.txt"} <= names
    shown = capsys.readouterr().out
    assert shown.endswith((place / "verdict.txt").read_text())
    mean, low, high = done.dice
    count = len(done.record.cases)
    assert f"Dice {mean:.3f} ({low:.3f} – {high:.3f}) on {count} test images" in shown
    assert count < 10 and f"Do not rely on the interval: these images are of {count} group(s)" in shown
    assert "--folds 5 scores nearly all" in shown
    assert "best dice" in shown and f"--model {place}" in shown and "--minutes 0.02" in shown
    assert load_model(place).provenance.parent is not None
    begun = load_model(place).provenance.steps
    again = train_planned(ask(mine, trained_run))
    assert again.text == done.text and load_model(place).provenance.steps == begun, "the same command trains no further"
    assert "since this run began" not in capsys.readouterr().err
    first, *_, last = sorted((mine / "images").iterdir())
    for folder in ("images", "masks"):
        (mine / folder / first.name).rename(mine / folder / f"new-{first.name}")
        (mine / folder / f"newer-{last.name}").write_bytes((mine / folder / last.name).read_bytes())
    train_planned(ask(mine, trained_run))
    said = capsys.readouterr().err
    assert f"2 images were added to {mine} since this run began" in said and "1 image was taken out of" in said


def test_more_minutes_go_on_and_other_wishes_are_refused(mine, trained_run):
    train_planned(ask(mine, trained_run))
    place = mine.parent / "run"
    step = len((place / "segmenter/metrics.jsonl").read_text().splitlines())
    train_planned(ask(mine, trained_run, minutes=0.05))
    assert read_plan(place).minutes == 0.05
    assert len((place / "segmenter/metrics.jsonl").read_text().splitlines()) > step
    with pytest.raises(ConfigError, match="holds another plan \\(folds: 0 → 3\\)"):
        train_planned(ask(mine, trained_run, folds=3))
    with pytest.raises(ConfigError, match="belongs to"):
        train_planned(ask(folder(mine.parent / "other"), trained_run, run=place))


def shares(run):
    """The foreground of each image of a run."""
    store = Store(run / "store")
    return [float(store.native_masks(case).mean()) for case in store.ids]


def test_masks_are_prepared_again_where_flags_or_files_change(mine, trained_run, capsys):
    """With and without plan.yaml, until training has begun."""
    place = mine.parent / "run"
    train_planned(ask(mine, trained_run, plan_only=True))
    plain = shares(place)
    inverted = {"reading": MaskReading(invert=True), "plan_only": True}
    train_planned(ask(mine, trained_run, **inverted))
    assert shares(place) == pytest.approx([1 - share for share in plain])
    assert "images are prepared again, plan.yaml stays" in capsys.readouterr().err
    train_planned(ask(mine, trained_run, **inverted))
    assert "prepared again" not in capsys.readouterr().err
    (place / "plan.yaml").unlink()
    train_planned(ask(mine, trained_run, plan_only=True))
    assert shares(place) == plain
    path = sorted((mine / "masks").iterdir())[0]
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    train_planned(ask(mine, trained_run, plan_only=True))
    assert sorted(shares(place))[-1] == 1


def test_once_training_has_begun_other_masks_are_refused_or_told(mine, trained_run, capsys):
    place = mine.parent / "run"
    train_planned(ask(mine, trained_run, reading=MaskReading(threshold=0.4)))
    held, _ = shares(place), capsys.readouterr()
    with pytest.raises(ConfigError, match=r"began with masks that were read in another way \(mask_threshold: 0.4\)"):
        train_planned(ask(mine, trained_run, reading=MaskReading(threshold=0.6)))
    with pytest.raises(ConfigError, match="invert: False"):
        train_planned(ask(mine, trained_run, reading=MaskReading(threshold=0.4, invert=True)))
    path = sorted((mine / "masks").iterdir())[0]
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    train_planned(ask(mine, trained_run))
    said = capsys.readouterr().err
    assert "masks stay as they were read when this run began (mask_threshold: 0.4)" in said
    assert f"images or masks in {mine} were changed since this run began" in said and shares(place) == held


def test_the_same_wishes_resume_a_run_however_they_are_written(mine, trained_run, monkeypatch):
    """Zero folds are no folds, and a model is the same by a relative path."""
    monkeypatch.chdir(trained_run.parent)
    train_planned(ask(mine, trained_run, init=trained_run.name, folds=0, plan_only=True))
    train_planned(ask(mine, trained_run, init=trained_run.name, folds=0, plan_only=True))
    train_planned(ask(mine, trained_run, init=str(trained_run.resolve()), plan_only=True))
    with pytest.raises(ConfigError, match="holds another plan"):
        train_planned(ask(mine, trained_run, init="none", plan_only=True))


def test_fewer_minutes_are_taken_from_every_stage_and_more_are_the_segmenters():
    begun = plan()
    shorter = begun.lasting(6.0)
    stages = ("image_codec_minutes", "mask_codec_minutes", "segmenter_minutes")
    assert [getattr(shorter, name) for name in stages] == pytest.approx([0.75, 0.75, 4.5]) and shorter.minutes == 6
    longer = shorter.lasting(30.0)
    assert [getattr(longer, name) for name in stages] == pytest.approx([0.75, 0.75, 28.5])
    assert begun.lasting(30.0) == begun


def test_files_behind_a_link_are_watched_too(mine, trained_run, tmp_path):
    (mine / "masks").rename(tmp_path / "elsewhere")
    (mine / "masks").symlink_to(tmp_path / "elsewhere")
    train_planned(ask(mine, trained_run, plan_only=True))
    path = sorted((tmp_path / "elsewhere").iterdir())[0]
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    train_planned(ask(mine, trained_run, plan_only=True))
    assert sorted(shares(mine.parent / "run"))[-1] == 1


def test_edited_plan_is_respected(mine, trained_run):
    train_planned(ask(mine, trained_run, plan_only=True))
    path = mine.parent / "run" / "plan.yaml"
    assert not (mine.parent / "run" / "segmenter").exists()
    text = path.read_text().replace("size: 64", "size: 32").replace("batch_size: 8", "batch_size: 2")
    path.write_text(text)
    train_planned(ask(mine, trained_run))
    config = yaml.safe_load((mine.parent / "run/segmenter/config.yaml").read_text())
    assert (config["recipe"]["size"], config["recipe"]["training"]["batch_size"]) == (32, 2)
    path.write_text(text.replace("size: 32", "size: 64"))
    with pytest.raises(ConfigError, match="training began at 32²"):
        train_planned(ask(mine, trained_run))


def test_model_that_has_seen_what_is_held_out_is_passed_over(mine, trained_run, tmp_path, monkeypatch, capsys):
    train_planned(ask(mine, trained_run))
    seen = mine.parent / "run" / "segmenter" / "model"
    other = folder(tmp_path / "other")
    for kind in ("images", "masks"):  # what was trained on becomes what is tested on
        for k, path in enumerate(sorted((other / kind).iterdir())):
            path.rename(path.with_name(f"q{(k + 5) % 12:02}__a.png"))
    monkeypatch.setattr("manymask.planning.run.named_models", lambda: {"first": seen})
    monkeypatch.setattr("manymask.hub.catalogue.named_models", lambda: {"first": seen})
    monkeypatch.setattr(rules, "FEWEST_STEPS", 10**9)
    train_planned(Request(other, tmp_path / "fresh", 0.01, plan_only=True))
    assert read_plan(tmp_path / "fresh").init is None
    assert "not started from first: it has seen images like" in capsys.readouterr().err


def test_folds_become_one_model_and_every_case_is_scored(mine, trained_run, capsys):
    done = train_planned(ask(mine, trained_run, folds=2))
    place = mine.parent / "run"
    assert {"fold-1", "fold-2", "model"} <= {path.name for path in place.iterdir()}
    assert load_model(place).recipe.segmenter.members == 2
    assert len(done.course) == 2 and "images of 2 folds" in done.text


def test_several_raters_are_learnt_and_it_is_said(tmp_path, trained_run, capsys):
    done = train_planned(ask(folder(tmp_path / "mine", raters=3), trained_run))
    shown = capsys.readouterr()
    assert "target rater: there are 3 raters" in shown.err and "GED²" in done.text
    assert read_plan(tmp_path / "run").target == "rater"


def test_prepared_store_is_taken_as_it_is(store, trained_run, tmp_path, capsys):
    """Of the phantom, whose cases the first model has trained on; its split is kept."""
    done = train_planned(Request(store.folder, tmp_path / "run", 0.01, str(trained_run), precision="fp32"))
    assert not (tmp_path / "run/store").exists() and read_plan(tmp_path / "run").scheme == store.default_scheme
    assert done.record.data.hash == store.hash


@pytest.mark.parametrize(
    "asked", [{"reading": MaskReading(invert=True)}, {"options": {"parts": True}}, {"skip_bad": True}]
)
def test_masks_of_a_prepared_store_are_not_read_in_another_way(store, tmp_path, asked):
    with pytest.raises(ConfigError, match="were read when it was prepared"):
        train_planned(Request(store.folder, tmp_path / "run", 0.01, plan_only=True, **asked))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("init", ["none", "auto"])
def test_a_split_that_there_is_not_is_refused_before_it_is_planned(mine, tmp_path, init):
    with pytest.raises(ManymaskError, match="has no split 'nope'"):
        train_planned(Request(mine, tmp_path / "run", 0.01, init, scheme="nope", plan_only=True))
    assert not (tmp_path / "run/plan.yaml").exists()


def test_command_line_tells_a_folder_from_a_recipe(mine, trained_run, monkeypatch, capsys):
    monkeypatch.chdir(mine.parent)
    assert run(monkeypatch, "train", "mine", "--plan-only", "--minutes", "0.01", "--init", trained_run) == 0
    assert (mine.parent / "runs/mine/plan.yaml").exists()
    assert run(monkeypatch, "train", "--minutes", "0.01", "mine", "--plan-only") == 0, (
        "flags may stand first, as usage says"
    )
    assert run(monkeypatch, "train", "--plan-only", "mine") == 0
    for arguments, said in (
        (("train", "nowhere"), "nowhere: no such folder"),
        (("train", "folder"), "folder is a recipe: name its stage too"),
        (("train", "folder", "codec"), "'codec' is no stage"),
        (("train", "mine", "--minutes", "0"), "--minutes"),
        (("train", "mine", "--folds", "1"), "folds must be 0 or lie in 2 … 20"),
    ):
        capsys.readouterr()
        assert run(monkeypatch, *arguments) == 2
        assert said in capsys.readouterr().err
