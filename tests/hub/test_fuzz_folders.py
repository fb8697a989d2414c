"""Mutated files of model, run and report folders: read, or refused in one line; nothing else ever comes out."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from manymask.errors import ManymaskError
from manymask.experiments.report.write import write_report
from manymask.hub.model_folder import load_model
from manymask.training.checkpoint import RunFolder, load_checkpoint, saved_progress
from manymask.training.trainer import Trainer
from tests.experiments.test_report import run  # noqa: F401
from tests.factories import job, stopped_after, tiny_recipe

FEW, MANY = 60, 2500  # of each kind
VALUES = ["null", "true", "-1", "0", "1e400", "NaN", "9" * 400, '""', '"x"', "[]", "{}", "[[[[]]]]", "1.5", "99999999"]


def flipped(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def repeated(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 200))
    return data[:end] + data[start:end] * rng.choice((1, 2, 500)) + data[end:]


def emptied(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 200) :]


def replaced_bytes(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(min(len(data), 4000))
    data[start : start + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, rng.randbytes(8)))
    return data


def another_value(data: bytearray, rng: random.Random) -> bytearray:
    """A JSON file with one value replaced, left out, or under another name; else random bytes at its start."""
    try:
        content = json.loads(data)
    except ValueError:
        return replaced_bytes(data, rng)
    places: list[tuple[dict | list, object]] = []

    def walk(value: object) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(content)
    if places:
        holder, key = rng.choice(places)
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = "@@"
    return bytearray(json.dumps(content).replace('"@@"', rng.choice(VALUES)).encode())


MUTATIONS = (flipped, cut, repeated, emptied, replaced_bytes, another_value, another_value)


def refused_in_one_line(read: Callable[[], object]) -> bool:
    """Whether what `read` reads is refused; anything but a `ManymaskError` of one line goes on to the test."""
    try:
        read()
    except ManymaskError as error:
        assert 0 < len(str(error)) < 1500 and "\n" not in str(error)
        return True
    return False


def fuzz(files: list[Path], read: Callable[[], object], count: int) -> None:
    """Mutates one of the files after another and reads them; some must be refused."""
    whole, refused = {path: path.read_bytes() for path in files}, 0
    for seed in range(count):
        rng = random.Random(seed)
        path = files[seed % len(files)]
        path.write_bytes(bytes(rng.choice(MUTATIONS)(bytearray(whole[path]), rng)))
        try:
            refused += refused_in_one_line(read)
        except Exception as error:
            raise AssertionError(f"seed {seed} of {path.name}: {type(error).__name__}: {error}") from error
        finally:
            path.write_bytes(whole[path])
    assert refused > count // 4


counts = pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)


@counts
def test_model_folder_is_read_or_refused(drawing_model, tmp_path, count):
    folder = tmp_path / "model"
    shutil.copytree(drawing_model, folder)
    config = folder / "config.json"
    others = [folder / "denoiser.safetensors", config, folder / "training_ids.txt"]
    fuzz([config, *others], lambda: load_model(folder), count)


@counts
def test_checkpoint_is_read_or_refused(store, tmp_path, count):
    asked = job(store, tmp_path)
    stopped_after(asked, 1)
    started = Trainer.start(asked)

    def read():
        saved_progress(started.folder.last)
        load_checkpoint(started.folder.last, started.unwrapped, started.ema, started.optimiser)

    with torch.random.fork_rng():
        fuzz([started.folder.last], read, count)
    started.close()


@counts
def test_run_config_is_read_or_refused(store, tmp_path, count):
    asked = job(store, tmp_path)
    stopped_after(asked, 1)
    folder = RunFolder(asked.folder, writes=False)
    path = asked.folder / "config.yaml"
    path.write_text(json.dumps(folder.old_config(), indent=1))  # which is YAML too
    fuzz([path], lambda: folder.check(asked.config() | {"precision": "fp32"}), count)


@counts
def test_results_are_reported_or_named(run, tmp_path, count):  # noqa: F811
    root = run / "cvc_clinicdb"
    files = [root / "experiment.json", root / "cells/ours/result.json", root / "codecs/loss-wce-mask/result.json"]
    whole = {path: path.read_bytes() for path in files}
    named = 0
    for seed in range(count // 4):
        rng, path = random.Random(seed), files[seed % len(files)]
        path.write_bytes(bytes(rng.choice(MUTATIONS)(bytearray(whole[path]), rng)))
        try:
            with contextlib.suppress(ManymaskError):
                named += "damaged |" in write_report([run], tmp_path / "out").read_text()
        except Exception as error:
            raise AssertionError(f"seed {seed} of {path}: {type(error).__name__}: {error}") from error
        finally:
            path.write_bytes(whole[path])
    assert named


@pytest.mark.parametrize(
    "line", ['{"step": 1e999}', '{"step": ' + "9" * 400 + "}", "[" * 100_000, '{"step": null}', "\0\0", "3"]
)
def test_damaged_line_of_metrics_is_left_out(store, tmp_path, line):
    asked = job(store, tmp_path)
    stopped_after(asked, 1)
    path = asked.folder / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n' + line + "\n")
    Trainer.start(asked).close()
    assert path.read_text() == '{"step": 1, "loss": 0.5}\n'


def test_run_folder_of_hostile_yaml_is_refused(store, tmp_path):
    asked = job(store, tmp_path)
    stopped_after(asked, 1)
    bomb = "a0: &a0 [x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
    for text in (
        bomb + "recipe: *a11\n",
        "[" * 10_000,
        "!!python/object/apply:os.system [true]",
        "a: [",
        "\x01",
        "- 1",
    ):
        (asked.folder / "config.yaml").write_text(text)
        assert refused_in_one_line(lambda: Trainer.start(asked)), text[:40]


def test_weights_of_another_recipe_are_refused_in_one_line(store, trained_run, tmp_path):
    wider = replace(tiny_recipe().mask_codec, channels=(16, 16))
    with pytest.raises(ManymaskError, match=r"model does not fit this recipe \(.*size mismatch") as refused:
        Trainer.start(replace(job(store, tmp_path, mask_codec=wider), init=trained_run / "mask-codec" / "model"))
    assert "\n" not in str(refused.value)
