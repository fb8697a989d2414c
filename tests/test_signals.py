"""What is under way when a signal comes, or the disk is full, is left whole; the same command goes on."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from manymask.cli import main as cli
from manymask.cli.main import explain
from manymask.data.datasets import phantom
from manymask.errors import Interruption, ManymaskError
from manymask.signals import Deferred
from manymask.training import validation
from manymask.training.trainer import Trainer, fit
from tests.factories import job, run, same, stopped_after

ROOT = Path(__file__).parents[1]
SCRIPT = """
import os, time
from pathlib import Path
from manymask.cli import main as cli
from manymask.training import trainer as train
from manymask.training import validation
from manymask.data.store import Store
from manymask.training.initialization import TrainConfig
from tests.factories import shortened, tiny_recipe

step, place = train.Trainer.step, Path({run!r})

def slow(self):
    found = step(self)
    if self.progress.step == 1:
        (place / f"process{{self.accelerator.process_index}}").write_text(str(os.getpid()))
    (place / f"step{{self.progress.step}}").touch()
    time.sleep({seconds})
    return found

def run(arguments):
    train.fit(TrainConfig(shortened(tiny_recipe(), 300), "mask-codec", Store(Path({store!r})), place, precision="fp32"))
    return 0

train.Trainer.step = slow
cli.run = run
cli.main()
"""


@pytest.fixture
def start(store, tmp_path):
    """Starts the command line in a process of its own, training a codec with slow steps; ends it with the test."""
    started = []

    def begin(seconds=0.2, launch=()) -> subprocess.Popen:
        (tmp_path / "script.py").write_text(SCRIPT.format(store=str(store.folder), run=str(tmp_path), seconds=seconds))
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "CUDA_VISIBLE_DEVICES": "",
                                    "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip
        command = [sys.executable, *launch, str(tmp_path / "script.py")]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        started.append(subprocess.Popen(command, env=environment, **streams))
        return started[-1]

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def wait_for(process: subprocess.Popen, path: Path) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def stopped_at(said: str) -> list[int]:
    """The steps that the processes say they stopped at."""
    return [int(step) for step in re.findall(r"manymask: stopped at step (\d+); the same command goes on", said)]


def test_sigterm_finishes_the_step_and_saves_it_and_no_second_trainer_gets_in(store, tmp_path, start):
    process = start()
    wait_for(process, tmp_path / "step2")
    with pytest.raises(ManymaskError, match="another process trains there"):
        Trainer.start(job(store, tmp_path, steps=300))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in said
    (step,) = stopped_at(said)
    going_on = Trainer.start(job(store, tmp_path, steps=300))
    assert going_on.progress.step == step >= 2
    going_on.close()

    whole = Trainer.start(job(store, tmp_path / "whole", steps=300))
    for _ in range(step):
        whole.step()
    assert all(torch.equal(v, whole.ema.state_dict()[k]) for k, v in going_on.ema.state_dict().items())


def test_second_interrupt_ends_at_once(tmp_path, start):
    process = start(seconds=60)
    wait_for(process, tmp_path / "step1")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the first one waits for the step"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == -signal.SIGINT


def test_several_processes_stop_after_one_step(store, tmp_path, start):
    """The signal comes to one of the two alone."""
    port = str(29900 + os.getpid() % 90)
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port)
    process = start(launch=launch)
    wait_for(process, tmp_path / "step21")  # beyond the first line of the log
    os.kill(int((tmp_path / "process1").read_text()), signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    steps = stopped_at(said)
    assert len(steps) == 2 and steps[0] == steps[1], said
    assert Trainer.start(job(store, tmp_path, steps=300)).progress.step == steps[0]


def often(store, run):
    """Four steps, validated after every second."""
    asked = job(store, run, steps=4)
    training = replace(asked.recipe.codec_training, validate_every=2)
    return replace(asked, recipe=replace(asked.recipe, codec_training=training))


def test_interrupted_validation_is_caught_up(store, tmp_path, monkeypatch):
    """The state is saved at once, and the next run validates what was left out, so that the best weights are the same."""
    fit(often(store, tmp_path / "whole"))

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments, **options)

    evaluate = validation.evaluate
    monkeypatch.setattr(validation, "evaluate", interrupted)
    with pytest.raises(Interruption, match=r"stopped at step 2; the same command goes on") as stopped:
        fit(often(store, tmp_path / "cut"))
    assert stopped.value.status == 130 and not (tmp_path / "cut/mask-codec/checkpoints/best.safetensors").exists()
    monkeypatch.setattr(validation, "evaluate", evaluate)
    fit(often(store, tmp_path / "cut"))
    for name in ("last", "best"):
        assert same(*(tmp_path / run / f"mask-codec/checkpoints/{name}.safetensors" for run in ("whole", "cut")))
    lines = [(tmp_path / run / "mask-codec/metrics.jsonl").read_text().splitlines() for run in ("whole", "cut")]
    assert [json.loads(line)["step"] for line in lines[0]] == [json.loads(line)["step"] for line in lines[1]] == [2, 4]


def test_same_command_on_a_finished_run_adds_nothing(store, tmp_path):
    def left():
        folder = tmp_path / "mask-codec"
        return {p.name: p.read_bytes() for p in (folder / "metrics.jsonl", *(folder / "checkpoints").iterdir())}

    fit(job(store, tmp_path, steps=2))
    before = left()
    fit(job(store, tmp_path, steps=2))
    assert left() == before


def test_full_disk_leaves_the_old_checkpoint_and_the_run_goes_on(store, tmp_path):
    """A limit on the size of files stands for the disk: less than a checkpoint fits."""
    whole = fit(job(store, tmp_path / "whole", steps=6))
    stopped_after(job(store, tmp_path / "cut", steps=6), 2)
    last = tmp_path / "cut/mask-codec/checkpoints/last.safetensors"
    before, (soft, hard) = last.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError) as full:
            fit(job(store, tmp_path / "cut", steps=6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said, status = explain(full.value)
    assert status == 2 and said.startswith(f"{last}: ") and "too large" in said
    assert last.read_bytes() == before
    after = fit(job(store, tmp_path / "cut", steps=6))
    assert same(last, tmp_path / "whole/mask-codec/checkpoints/last.safetensors")
    assert (after / "codec.safetensors").read_bytes() == (whole / "codec.safetensors").read_bytes()


def test_lock_that_a_killed_process_left_is_no_trouble(store, tmp_path):
    (tmp_path / "mask-codec").mkdir()
    (tmp_path / "mask-codec" / ".lock").write_text("12345")
    Trainer.start(job(store, tmp_path)).close()


def test_sigterm_while_preparing_leaves_nothing_half_done(monkeypatch, tmp_path, capsys):
    draw = phantom.draw

    def interrupted(number, **options):
        if number == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(number, **options)

    monkeypatch.setattr(phantom, "draw", interrupted)
    assert run(monkeypatch, "prepare", "phantom", "--out", tmp_path / "store") == 143
    said = capsys.readouterr().err
    assert said.endswith("manymask: interrupted\n") and "Traceback" not in said
    assert not any(tmp_path.iterdir()), "neither a store nor a part of one"


def test_signal_is_held_back_until_it_is_asked_for():
    before = signal.getsignal(signal.SIGTERM)
    with Deferred() as held:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert held.number == signal.SIGTERM
        with pytest.raises(Interruption), held.at_once():
            pytest.fail("what was held back is raised on entry")
        with held.at_once(False):
            pass
    assert signal.getsignal(signal.SIGTERM) == before


def test_damaged_progress_is_told_and_how_to_go_on(store, tmp_path):
    started = Trainer.start(job(store, tmp_path))
    started.step()
    started.checkpoint()
    started.close()
    last = tmp_path / "mask-codec/checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes().replace(b'\\"step\\": 1', b'\\"step\\":-1'))
    with pytest.raises(ManymaskError, match=r"last\.safetensors is damaged .* remove last\.safetensors to start over"):
        Trainer.start(job(store, tmp_path))


def test_what_a_cut_import_fails_over_is_told_as_the_interruption_that_it_was(monkeypatch, capsys):
    """Code that is loaded may swallow the interruption, and fail over what it then lacks."""

    def loading(arguments):
        with suppress(Interruption):
            signal.raise_signal(signal.SIGTERM)
        raise NameError("name 'optimizer' is not defined")

    monkeypatch.setattr(cli, "run", loading)
    old = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, old)
    assert end.value.code == 143 and capsys.readouterr().err == "manymask: interrupted\n"
    with pytest.raises(SystemExit) as end:  # what came before is forgotten
        monkeypatch.undo()
        monkeypatch.setattr(cli.sys, "argv", ["manymask", "segement"])
        cli.main()
    signal.signal(signal.SIGTERM, old)
    assert end.value.code == 2 and "there is no verb" in capsys.readouterr().err
