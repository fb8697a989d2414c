"""What a command line owes its user: short flags, one line for a mistake, guesses, quiet pipes, completion."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manymask import runtime
from manymask.cli import train as train_flags
from manymask.cli.main import COMPUTING, VERBS, on_device
from manymask.cli.parsing import BRIEF, parse
from manymask.cli.train import planned_flags
from manymask.data.datasets import phantom
from manymask.errors import ConfigError
from manymask.hub import catalogue
from manymask.progress import Progress
from manymask.recipes import RECIPES
from tests.dicom_files import save, slice_at
from tests.factories import run

ROOT = Path(__file__).parents[2]


def command(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manymask", *words], capture_output=True, text=True, timeout=120, **options
    )


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(phantom.draw(0).image[:, :, 0]).save(path)
    return path


@pytest.fixture
def device(monkeypatch):
    """Forgets the device that a test chooses."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", os.environ.get("ACCELERATE_USE_CPU", "false"))
    monkeypatch.setattr(runtime, "_chosen", [])


def test_short_flags_are_the_long_ones(monkeypatch, trained_run, image, tmp_path):
    out = tmp_path / "here"
    assert run(monkeypatch, "segment", "-i", image, "-m", trained_run, "-o", out, "-n", 3) == 0
    assert json.loads((out / "grey/result.json").read_text())["samples"] == 3


def test_results_go_to_out_unless_told_otherwise(monkeypatch, trained_run, image, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "segment", image, "-m", trained_run, "-n", 1) == 0
    assert (tmp_path / "out/grey/result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segment", "x", "--sample", "3"], "there is no flag --sample; did you mean --samples, --sampler"),
        (["segment", "x", "--stepps=3"], "there is no flag --stepps; did you mean --steps"),
        (["segment", "x", "-n", "many"], "--samples must be a whole number, not 'many'"),
        (["segment", "x", "--threshold", "low"], "--threshold must be a number, not 'low'"),
        (
            ["segment", "x", "--sampler", "ddimm"],
            "--sampler is one of ddim, ddpm, dpm-solver, euler, heun, plms, not 'ddimm'; did you mean ddim",
        ),
        (["segment", "x", "-o"], "--out needs a value (manymask segment --help)"),
        (["segment", "x", "--device"], "--device needs a value: one of cpu, cuda, mps"),
        (["segment", "x", "--device", "gpu"], "'gpu' is no device that torch can use here"),
        (["segment"], "name at least one image"),
        (["evaluate", "--steps", "3"], "evaluate needs --model and --data (manymask evaluate --help)"),
        (["evaluate", "--modle", "a"], "there is no flag --modle; did you mean --model"),
        (["models", "isic2018"], "unexpected argument 'isic2018' (manymask models --help)"),
        (["completion", "fish"], "is one of bash, zsh, not 'fish'"),
        (["serve", "--port", "80000"], "--port must lie in 1 … 65535, not 80000"),
        (["serve", "--port", "http"], "--port must be a whole number, not 'http'"),
        (["prepare"], "prepare needs RECIPE and --out"),
        (["prepare", "folder", "--ot", "x"], "there is no flag --ot; did you mean --out"),
        (["train", "folder", "segmenter"], "train folder segmenter needs --data and --run"),
        (
            ["train", "folder", "segmenter", "--recipe.training.learning-rat", "1"],
            "there is no flag --recipe.training.learning-rat; did you mean --recipe.training.learning-rate",
        ),
        (["complation", "bash"], "there is no verb 'complation'; did you mean completion"),
        (["--model", "x"], "the verb comes first, not --model"),
        (["segment", "x", "--model", "isic"], "isic: no such model folder; did you mean isic2018"),
        (["calibrate", "--model", "isic2018", "--data", "s"], "say where its calibrated copy goes (--out)"),
    ],
)
def test_every_mistake_is_one_line(monkeypatch, capsys, tmp_path, device, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.startswith("manymask: ") and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb_offers_no_none(monkeypatch, capsys, verb):
    monkeypatch.setenv("COLUMNS", "100")
    assert run(monkeypatch, verb, "--help") == 0
    shown = capsys.readouterr().out
    assert "None" not in shown and "(default: )" not in shown
    assert (
        "--no-" not in shown and "(default: False)" not in shown and "..." not in shown
    )  # of switches, and [STR [STR ...]]
    assert ("--device" in shown) == (verb in COMPUTING)


def test_labels_of_a_folder_to_train_on_are_names_or_numbers():
    flags = parse(planned_flags(), "manymask train", ["mine", "--mask-labels", "Nodule", "2", "--invert"], BRIEF)
    assert train_flags._reading(flags).labels == ("Nodule", 2) and train_flags._reading(flags).invert


def test_help_is_the_same_at_every_call_and_by_every_name():
    shown = {command(*words, env=os.environ | {"COLUMNS": "90"}).stdout for words in (["help"], ["--help"], ["-h"], [])}
    assert len(shown) == 1 and all(f"  {verb}" in next(iter(shown)) for verb in VERBS)
    verb = {command(*words).stdout for words in (["help", "segment"], ["segment", "--help"], ["segment", "-h"])}
    assert len(verb) == 1 and "ddim,ddpm,dpm-solver,euler,heun,plms" in verb.pop()


def test_a_container_tells_the_revision_that_it_was_built_from(monkeypatch):
    monkeypatch.setenv("MANYMASK_REVISION", "0123456789ab")
    assert runtime.git_revision.__wrapped__() == "0123456789ab"


def test_version_names_revision_torch_and_device(monkeypatch, capsys):
    for word in ("version", "--version"):
        assert run(monkeypatch, word) == 0
        shown = capsys.readouterr().out
        assert torch.__version__ in shown and runtime.default_device() in shown and runtime.git_revision() in shown


def test_default_device_is_the_first_accelerator_there_is(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runtime.default_device() == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert runtime.default_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.default_device() == "cuda"
    runtime.use_device("cpu")
    assert runtime.default_device() == "cpu" and os.environ["ACCELERATE_USE_CPU"] == "true"


@pytest.mark.parametrize("words", [["--device", "cpu"], ["--device=cpu"]])
def test_device_is_taken_out_of_the_arguments(device, words):
    assert on_device(["x", *words, "-n", "2"]) == ["x", "-n", "2"]
    assert runtime.default_device() == "cpu"
    with pytest.raises(ConfigError, match="cpu, cuda, mps"):
        on_device(["x", "--device", "-n"])
    with pytest.raises(ConfigError, match="--device is given more than once"):
        on_device(["x", "--device", "cpu", "--device=cpu"])


@pytest.mark.parametrize("verb", ["segment", "recipes"])
def test_help_and_tables_end_quietly_when_nobody_reads_on(verb):
    arguments = "segment --help" if verb == "segment" else "recipes --all"
    line = f"{sys.executable} -m manymask {arguments} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "141" and done.stderr == ""


def test_progress_in_a_pipe_is_a_line_for_each_tenth(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(total=40, desc="segment") as bar:
        for _ in range(40):
            bar.update()
    lines = sys.stderr.getvalue().splitlines()
    assert [line.split("(")[0] for line in lines] == [f"segment: {10 * i} % " for i in range(1, 11)]
    assert "(4 of 40, 00:00, 00:00 left)" in lines[0] and "left" not in lines[-1] and "\r" not in "".join(lines)


def test_progress_that_goes_on_counts_from_where_it_was(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(total=10, initial=5) as bar:
        bar.update()
    with Progress(total=None) as unknown, Progress(total=10, disable=True) as hidden:
        unknown.update()
        hidden.update(10)
    assert [line.split(" (")[0] for line in sys.stderr.getvalue().splitlines()] == ["60 %"]


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(total=2, desc="segment", file=sys.stderr) as bar:
        bar.update(2)
    assert "100%|" in sys.stderr.getvalue()


CASES = [
    ("manymask seg", {"segment"}),
    ("manymask segment x.png --model lidc", {"lidc_idri", "lidc_idri_readers"}),
    ("manymask segment x.png -m isic", {"isic2018"}),
    ("manymask segment --sa", {"--samples", "--sampler"}),
    ("manymask segment --sampler dd", {"ddim", "ddpm"}),
    ("manymask evaluate --split t", {"train", "test"}),
    ("manymask calibrate --split t", {"test"}),
    ("manymask segment --device c", {"cpu", "cuda"}),
    ("manymask train phantom-p", {"phantom-paper", "phantom-prob-unet"}),
    ("manymask train folder seg", {"segmenter"}),
    ("manymask prepare folder --mask", {"--mask-threshold", "--mask-labels", "--masks"}),
    ("manymask segment imag", set()),
]
BASH = """{script}
complete_line() {{
    COMP_WORDS=($1); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); _manymask; echo "${{COMPREPLY[@]}}"
}}
"""
ZSH = """compdef() {{ :; }}; _files() {{ :; }}
compadd() {{ shift; local each; for each in $@; do [[ $each == ${{words[CURRENT]}}* ]] && printf '%s ' $each; done; }}
{script}
complete_line() {{ words=(${{=1}}); CURRENT=${{#words}}; _manymask; echo; }}
"""


@pytest.mark.parametrize(("shell", "frame"), [("bash", BASH), ("zsh", ZSH)])
def test_completion_knows_verbs_flags_recipes_stages_and_models(monkeypatch, capsys, shell, frame):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert run(monkeypatch, "completion", shell) == 0
    lines = frame.format(script=capsys.readouterr().out) + "\n".join(f"complete_line '{line}'" for line, _ in CASES)
    arguments = [shell, "-f", "-c", lines] if shell == "zsh" else [shell, "--norc", "-c", lines]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert [set(line.split()) for line in done.stdout.splitlines()] == [words for _, words in CASES]


def test_completion_offers_every_recipe(monkeypatch, capsys):
    assert run(monkeypatch, "completion", "bash") == 0
    assert set(RECIPES) <= set(capsys.readouterr().out.replace("'", " ").split())


@pytest.fixture
def chest(tmp_path):
    pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    pixels = np.random.default_rng(0).integers(0, 400, (200, 200)).astype(np.uint16)
    return save(tmp_path / "ct.dcm", slice_at(0, pixels, FrameOfReferenceUID="1.2.3"))


def test_ct_is_segmented_by_the_model_of_ct_which_is_announced(monkeypatch, capsys, chest, tmp_path):
    assert run(monkeypatch, "segment", chest, "-o", tmp_path / "out", "-n", 1, "--roi", "90,90") == 0
    assert "manymask: taking the model lidc_idri. Outlines a lung nodule" in capsys.readouterr().err
    found = json.loads(next((tmp_path / "out").glob("*/result.json")).read_text())
    assert found["model"]["name"] == "lidc_idri"


def test_ct_without_a_region_asks_for_one(monkeypatch, capsys, chest, tmp_path):
    assert run(monkeypatch, "segment", chest, "-o", tmp_path / "out") == 2
    assert "--roi X,Y" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["segment", "triage"])
def test_photograph_gets_the_list_of_models(monkeypatch, capsys, image, tmp_path, verb):
    assert run(monkeypatch, verb, image, "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "do not tell which model they want: choose one of cvc_clinicdb (polyps" in said and "(--model)" in said
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_page_serves_every_model_unless_told_otherwise(monkeypatch):
    from manymask.serving import server

    served = []
    monkeypatch.setattr(server, "serve", lambda models, *_: served.append(models))
    assert run(monkeypatch, "serve") == 0 and run(monkeypatch, "serve", "-m", "isic2018", "lidc_idri") == 0
    assert served == [tuple(catalogue.list_models()), ("isic2018", "lidc_idri")]


def test_an_empty_argument_is_no_folder(monkeypatch, capsys, tmp_path):
    """As of "$UNSET": it would be the current folder, with all that lies in it."""
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "segment", "", "--model", "isic2018", "--out", "out") == 2
    assert "an argument is empty" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("minutes", ["-1", "nan", "0"])
def test_a_demonstration_takes_some_minutes(monkeypatch, capsys, tmp_path, minutes):
    assert run(monkeypatch, "demo", "--minutes", minutes, "--out", tmp_path / "demo") == 2
    assert "--minutes must lie in 0.01" in capsys.readouterr().err and not (tmp_path / "demo").exists()
