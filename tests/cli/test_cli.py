"""The verbs as a user types them: what they leave, what they say, and with which status they end."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from manymask import __version__
from manymask.cli import main as cli
from manymask.cli.tables import purpose
from manymask.data.datasets import phantom
from manymask.errors import ConfigError, InputError, Interruption, ManymaskError
from manymask.recipes import RECIPES, RECOMMENDED
from tests.factories import run


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(phantom.draw(0).image[:, :, 0]).save(folder / "grey.png")
    Image.fromarray(phantom.draw(1).image[:, :, 0]).convert("RGB").resize((100, 80)).save(folder / "colour.jpg")
    Image.fromarray(phantom.draw(2).image[:, :, 0].astype(np.uint16) * 200).save(folder / "deep.tif")
    return folder


def test_segment_leaves_a_folder_for_each_image(monkeypatch, trained_run, images, tmp_path, capsys):
    assert run(monkeypatch, "segment", images, "--model", trained_run, "--out", tmp_path / "out", "--samples", 3) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["colour", "deep", "grey", "summary.csv"]
    with Image.open(tmp_path / "out/colour/consensus.png") as consensus:
        assert consensus.size == (100, 80)
    result = json.loads((tmp_path / "out/colour/result.json").read_text())
    assert result["samples"] == 3 and len(result["areas"]) == 3 and result["sampler"]["kind"] == "DDIM"
    assert "3 of 3" in capsys.readouterr().out


def test_one_bad_file_is_reported_and_the_rest_go_on(monkeypatch, trained_run, images, tmp_path, capsys):
    (images / "bad.png").write_bytes(b"not an image")
    Image.new("L", (64, 64)).save(images / "black.png")
    assert run(monkeypatch, "segment", images, "--model", trained_run, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "bad.png is not an image" in said.err and "black.png" in said.err and "flat" in said.err
    assert "3 of 5" in said.out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["colour", "deep", "grey", "summary.csv"]


def test_samplers_and_steps_can_be_chosen(monkeypatch, trained_run, images, tmp_path):
    for name in ("ddpm", "ddim", "plms", "dpm-solver"):
        out = tmp_path / name
        assert run(monkeypatch, "segment", images / "grey.png", "--model", trained_run, "--out", out,
                   "--sampler", name, "--steps", 4) == 0  # fmt: skip
        assert json.loads((out / "grey/result.json").read_text())["sampler"]["steps"] == 4


def test_images_of_one_name_do_not_overwrite_each_other(monkeypatch, trained_run, images, tmp_path):
    Image.fromarray(phantom.draw(5).image[:, :, 0]).save(images / "grey.bmp")
    assert run(monkeypatch, "segment", images, "--model", trained_run, "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "nowhere.png", "--model", "MODEL", "--out", "o"], "nowhere.png: no such file"),
        (["segment", "IMAGES", "--model", "nowhere", "--out", "o"], "nowhere: no such model folder"),
        (
            ["segment", "IMAGES", "--model", "MODEL", "--out", "o", "--steps", "5000"],
            "the sampler takes 5000 steps, the process has 1 … 1000",
        ),
        (["segment", "IMAGES", "--model", "MODEL", "--out", "o", "--threshold", "2"], "--threshold must lie between"),
        (["evaluate", "--model", "MODEL", "--data", "nowhere"], "nowhere is no folder: give a prepared store"),
        (["segment", "IMAGES", "--model", "MODEL", "--out", "o", "--samples", "0"], "--samples must be at least 1"),
        (["evaluate", "--model", "MODEL", "--data", "STORE", "--limit", "0"], "--limit must be at least 1"),
        (["segment", "IMAGES", "--model", "MODEL", "--out", "FILE"], "grey.png is a file; --out names a folder"),
        (["segment", "IMAGES", "-m", "isic2018", "--model=MODEL", "--out", "o"], "--model is given more than once"),
        (["serve", "--model", "isic2018", "--model", "polyps"], "--model is given more than once"),
        (
            [
                "train",
                "phantom",
                "mask-codec",
                "--data",
                "STORE",
                "--run",
                "r",
                "--recipe.size",
                "64",
                "--recipe.size",
                "32",
            ],
            "--recipe.size is given more than once",
        ),
        (["evaluate", "--model", "MODEL", "--data", "STORE", "--out", "FILE"], "grey.png"),
        (["evaluate", "--model", "MODEL", "--data", "STORE", "--out", "MINE"], "results.json exists already"),
        (["prepare", "isic2018", "--out", "o"], "needs --source"),
        (["prepare", "nonsense", "--out", "o"], "there is no recipe 'nonsense'"),
        (["prepare", "isic", "--out", "o"], "did you mean isic2018"),
        (["segement", "a.jpg"], "there is no verb 'segement'; did you mean segment?"),
        (["serve", "--model", "MODEL", "--port", "80000"], "--port must lie in 1 … 65535, not 80000"),
        (["serve", "--model", "nowhere"], "nowhere: no such model folder"),
        (["serve", "--model", "RUNS"], "is no model: it has no config.json"),
        (["evaluate", "--model", "models/lost", "--data", "STORE"], "models/lost: no such model folder"),
        (["train", "phantom", "segmentor", "--data", "d", "--run", "r"], "did you mean segmenter?"),
        (
            ["train", "phantom", "mask-codec", "--data", "STORE", "--run", "r", "--recipe.size", "-3"],
            "recipe.size: -3 must lie",
        ),
        (["train", "phantom"], "phantom is a recipe: name its stage too"),
        (["train", "phantom", "everything", "--data", "d", "--run", "r"], "'everything' is no stage"),
        (["train", "phantom", "segmenter", "--data", "nowhere", "--run", "r"], "nowhere is no prepared data set"),
    ],
)
def test_mistakes_end_in_one_line_and_status_two(
    monkeypatch, trained_run, store, images, tmp_path, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    places = {
        "MODEL": str(trained_run),
        "STORE": str(store.folder),
        "RUNS": str(trained_run.parent),
        "IMAGES": str(images),
        "FILE": str(images / "grey.png"),
        "MINE": str(tmp_path / "mine"),
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/results.json").write_text('{"mine": 1}')
    assert run(monkeypatch, *(places.get(a, a) for a in arguments)) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.startswith("manymask: ") and "\n" not in said and "Traceback" not in said


def test_evaluate_leaves_results_and_figure(monkeypatch, trained_run, store, tmp_path, capsys):
    out = tmp_path / "scores"
    assert (
        run(monkeypatch, "evaluate", "--model", trained_run, "--data", store.folder, "--out", out, "--samples", 2) == 0
    )
    assert {p.name for p in out.iterdir()} == {"results.json", "figure.png"}
    assert json.loads((out / "results.json").read_text())["protocol"]["samples"] == 2
    said = capsys.readouterr().out
    assert "dice" in said and "disk" in said and "one rater against the others" in said


def test_prepare_own_folder_then_train_with_changed_settings(monkeypatch, tmp_path, capsys):
    for i in range(10):
        p = phantom.draw(i)
        for name, pixels in (("images", p.image[:, :, 0]), ("masks", p.masks[0])):
            (tmp_path / "mine" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.png")
    assert run(monkeypatch, "prepare", "folder", "--source", tmp_path / "mine", "--out", tmp_path / "store") == 0
    assert "10 cases, 1 rater" in capsys.readouterr().out
    assert run(monkeypatch, "prepare", "folder", "--source", tmp_path / "mine", "--out", tmp_path / "store") == 2
    changed = [
        "--recipe.codec-training.steps",
        2,
        "--recipe.codec-training.batch-size",
        2,
        "recipe.mask-codec.loss:focal",
    ]
    flags = ["--data", tmp_path / "store", "--run", tmp_path / "run", "--precision", "fp32"]
    assert run(monkeypatch, "train", "folder", "mask-codec", *flags, *changed) == 0
    config = json.loads((tmp_path / "run/mask-codec/model/config.json").read_text())
    assert config["recipe"]["mask_codec"]["loss"]["kind"] == "Focal"


def test_stage_says_that_it_learns_a_consensus_or_that_its_mask_codec_will_collapse(monkeypatch, tmp_path, capsys):
    for i in range(10):
        p = phantom.draw(i)
        for name, pixels in (("images", p.image[:, :, 0]), ("masks-0", p.masks[0]), ("masks-1", p.masks[1])):
            (tmp_path / "mine" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.png")
    assert run(monkeypatch, "prepare", "folder", "--source", tmp_path / "mine", "--out", tmp_path / "store") == 0
    monkeypatch.setattr("manymask.training.trainer.fit", lambda job, minutes: job.run)
    flags = ["--data", tmp_path / "store", "--run", tmp_path / "run"]
    said = "2 raters marked these images; this recipe learns their consensus"
    assert run(monkeypatch, "train", "folder", "segmenter", *flags) == 0 and said in capsys.readouterr().err
    assert run(monkeypatch, "train", "folder", "mask-codec", *flags) == 0 and said not in capsys.readouterr().err
    one = ["--recipe.segmenter.target", "rater"]
    assert run(monkeypatch, "train", "folder", "segmenter", *flags, *one) == 0 and said not in capsys.readouterr().err
    collapses, along = "collapses", ["--recipe.segmenter.train-mask-codec"]
    assert (
        run(monkeypatch, "train", "folder", "segmenter", *flags, *along) == 0 and collapses in capsys.readouterr().err
    )
    assert (
        run(monkeypatch, "train", "folder-ldseg", "segmenter", *flags) == 0 and collapses not in capsys.readouterr().err
    )


@pytest.mark.parametrize("width", ["50", "80", "200"])
def test_recipes_are_listed_by_their_whole_names_at_any_width(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", width)
    assert run(monkeypatch, "recipes") == 0
    few = capsys.readouterr().out
    assert "your own images" in few and "* " in few and "folder-nnunet" not in few
    assert set(RECOMMENDED) <= set(few.split())
    assert run(monkeypatch, "recipes", "--all") == 0
    assert set(RECIPES) <= set(capsys.readouterr().out.split())


def test_every_recipe_says_what_its_variant_is_for():
    assert all(";" in purpose(name) for name in RECIPES if "-" in name)


def test_help_comes_without_waiting_for_torch():
    code = (
        "import sys; from manymask.cli.main import main\n"
        "sys.argv = ['manymask', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("prepare", "train", "segment", "evaluate", "demo", "recipes"))


@pytest.mark.slow
def test_demo_learns_how_often_the_halo_belongs(monkeypatch, tmp_path):
    assert run(monkeypatch, "demo", "--out", tmp_path / "demo") == 0
    found = json.loads((tmp_path / "demo/results.json").read_text())
    many, best = found["halo"], found["best_single_mask"]["halo"]
    assert (tmp_path / "demo/figure.png").exists() and (tmp_path / "demo/model/config.json").exists()
    assert many["mean_absolute_error"] < min(0.2, best["mean_absolute_error"])
    assert many["rank_correlation"] > 0.8 and many["undecided_with_both_answers"] > 0.5


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (ManymaskError("a.png is damaged\nbeyond repair"), "a.png is damaged beyond repair", 2),
        (OSError(28, "No space left on device", "/out/x.png"), "/out/x.png: No space left on device", 2),
        (MemoryError(), "not enough memory", 2),
        (RecursionError(), "nested too deeply", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (Interruption(15, "stopped at step 3; the same command goes on"), "stopped at step 3; the same", 143),
        (TypeError("odd"), "TypeError: odd (a fault of the program; MANYMASK_DEBUG=1", 1),
    ],
)
def test_every_error_is_one_line_and_a_trace_only_on_request(monkeypatch, capsys, error, message, status):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "run", fail)
    assert run(monkeypatch, "recipes") == status
    said = capsys.readouterr().err
    assert message in said and said.startswith("manymask: ") and said.count("\n") == 1
    monkeypatch.setenv("MANYMASK_DEBUG", "1")
    with pytest.raises(type(error)):
        run(monkeypatch, "recipes")


@pytest.mark.parametrize(
    ("verb", "error", "said"),
    [
        (
            "prepare",
            InputError("a.png", remedies=("mask_threshold", "skip_bad")),
            "a.png (--mask-threshold, --skip-bad)",
        ),
        ("segment", InputError("say where to look", remedies=("rois",)), "say where to look (--roi X,Y)"),
        ("evaluate", ConfigError("steps must be 1", parameter="steps"), "steps must be 1 (--steps)"),
        ("train", ConfigError("other settings", remedies=("run",)), "other settings (--run)"),
        ("train", ConfigError("steps must be 1", parameter="steps"), "steps must be 1"),
        ("typo", ConfigError("steps must be 1", parameter="steps"), "steps must be 1"),
    ],
)
def test_command_line_adds_the_flags_that_its_verb_has(verb, error, said):
    assert cli.explain(error, cli.accepted_by([verb])) == (said, 2)


def test_module_runs_and_tells_its_version():
    done = subprocess.run([sys.executable, "-m", "manymask", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(f"manymask {__version__}") and "torch" in done.stdout


def test_reader_who_leaves_early_is_no_error():
    command = f"{sys.executable} -m manymask --version | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "141" and done.stderr == ""


def test_path_that_is_no_unicode_can_be_printed(monkeypatch, capsys):
    assert run(monkeypatch, "segment", "l\udce9sion.png", "--model", "nowhere", "--out", "o") == 2
    assert capsys.readouterr().err.count("\n") == 1
