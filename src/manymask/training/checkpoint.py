"""The folder of a run: its config, its metrics, and checkpoints that a kill at any moment leaves whole."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout
from torch import Tensor, nn

from manymask.choices import Precision
from manymask.config import difference, from_dict, to_dict
from manymask.errors import ConfigError, InputError, ManymaskError, decoding
from manymask.io.atomic import atomic_file
from manymask.io.tensors import check_shapes, read_metadata, read_tensors, shapes, write_tensors, writing
from manymask.io.text import read_text
from manymask.migrations import FORMAT, format_of, upgraded
from manymask.recipes import Recipe
from manymask.training.progress_picture import draw_progress
from manymask.training.tracking import BOARD, Trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

MOST_CONFIG = 1_000_000
ADAM = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW keeps of each parameter


class RunFolder:
    """Config, metrics and checkpoints of one stage. Only the main process writes."""

    def __init__(self, folder: Path, writes: bool) -> None:
        self.folder, self.writes = folder, writes
        self.last, self.best = (folder / "checkpoints" / f"{n}.safetensors" for n in ("last", "best"))
        self.trackers: Trackers | None = None
        # of the system, so that one of a killed process is no trouble
        self.lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)

    def claim(self) -> None:
        """Keeps other trainers out of the folder until `close` or the end of the process; `ConfigError` if one is at work."""
        if not self.writes:
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self.lock.acquire()
            except Timeout:
                raise ConfigError(
                    f"{self.folder}: another process trains there; wait for it, or name another run folder",
                    path=self.folder,
                    remedies=("run",),
                ) from None

    def close(self) -> None:
        """Ends the log, and lets other trainers in."""
        if self.trackers is not None:
            with writing(self.folder / BOARD):
                self.trackers.close()
        if self.writes:
            self.lock.release(force=True)

    def best_metadata(self) -> dict[str, str]:
        """`step` and `score` of the best weights; nothing where none were kept."""
        if not self.best.exists():
            return {}
        found = read_metadata(self.best)
        if not found.get("step", "").isdecimal() or "score" not in found:
            raise InputError(f"{self.best} is damaged (it does not say of which step it is)")
        return found

    def has_best(self, model: nn.Module) -> bool:
        """Whether best weights are kept; `InputError` where they are damaged, or of another model."""
        try:
            return bool(self.best_metadata()) and bool(read_tensors(self.best, shapes(model)))
        except ManymaskError as error:
            raise error.reworded(
                f"{error}: remove {self.best.name} to go on without these weights; the best of those to come are kept then"
            ) from None

    def old_config(self) -> dict[str, Any] | None:
        """The config that the folder was begun with, if it was; a setting younger than it stands at its default."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return None
        text = read_text(path, MOST_CONFIG)
        with decoding(path):
            old = yaml.safe_load(text)
        if not isinstance(old, dict) or "recipe" not in old:
            raise ConfigError(f"{path} is no config of a run: it names no recipe", path=path)
        from_dict(Precision, old.get("precision", "auto"), f"{path}: precision")
        recipe = upgraded(old["recipe"], format_of(old, str(path)), str(path), training=True)
        return old | {"format": FORMAT, "recipe": to_dict(from_dict(Recipe, recipe, f"{path}: recipe"))}

    def check(self, config: dict[str, Any]) -> None:
        """Refuses a folder of other settings."""
        old = self.old_config()
        changed = difference(old, json.loads(json.dumps(config))) if old is not None else []
        if changed:
            shown = "; ".join(changed[:3]) + ("; …" if len(changed) > 3 else "")
            raise ConfigError(
                f"{self.folder} holds a run with other settings ({shown}): name another run folder",
                path=self.folder,
                remedies=("run",),
            )

    def begin(self, config: dict[str, Any], step: int, accelerator: "Accelerator") -> list[dict[str, Any]]:
        """Writes the config, and drops metric lines beyond `step`, which will be written again. Returns those left."""
        if not self.writes:
            return []
        config = json.loads(json.dumps(config))
        if not (self.folder / "config.yaml").exists():
            _replace(self.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        self._forget_after(step)
        with writing(self.folder / BOARD):
            self.trackers = Trackers(accelerator, self.folder, config, step)
        return self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """All lines of metrics so far."""
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in read_text(path).splitlines()] if path.exists() else []

    def log(self, line: dict[str, Any], picture: Path | None = None) -> None:
        """One line of metrics, to JSON lines and all trackers; and a picture to those."""
        if not self.writes or self.trackers is None:
            return
        path = self.folder / "metrics.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        with writing(self.folder / BOARD):
            self.trackers.log(line)
            if picture is not None:
                self.trackers.show(picture, line["step"])

    def draw_progress(self, batch_size: int, metric: str) -> None:
        """progress.png, from all lines of metrics."""
        path = self.folder / "progress.png"
        with writing(path):
            draw_progress(self.lines(), batch_size, metric, f"{self.folder.parent.name} · {self.folder.name}", path)

    def _forget_after(self, step: int) -> None:
        path = self.folder / "metrics.jsonl"
        if path.exists():
            _replace(path, "".join(line + "\n" for line in read_text(path).splitlines() if _step_of(line) <= step))


def _replace(path: Path, text: str) -> None:
    with writing(path), atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a metrics line; infinite for one that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


@dataclass
class Progress:
    """Where a run stands: steps done, best validation so far, seconds trained, step of the last validation."""

    step: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    validated: int = -1


def save_checkpoint(path: Path, model: nn.Module, ema: nn.Module, optimiser: Any, progress: Progress) -> None:
    """All state in one safetensors file, written beside and renamed: a kill at any moment leaves a whole one."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items()}
    write_tensors(path, tensors, {"progress": json.dumps(vars(progress) | {"best": str(progress.best)})})


def load_checkpoint(path: Path, model: nn.Module, ema: nn.Module, optimiser: Any) -> Progress:
    """The inverse of `save_checkpoint`. Raises `ConfigError` for a file that is damaged or of another model."""
    with _or_start_over(path):
        progress, tensors = saved_progress(path), read_tensors(path)
        for prefix, module in (("model.", model), ("ema.", ema)):
            found = _below(tensors, prefix)
            check_shapes({name: tensor.shape for name, tensor in found.items()}, shapes(module), path)
            module.load_state_dict(found)
        state = _optimiser_state(_below(tensors, "optimiser."), optimiser, path)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return progress


@contextmanager
def _or_start_over(path: Path) -> Iterator[None]:
    """Says of a damaged checkpoint how to go on without it."""
    try:
        yield
    except ManymaskError as error:
        raise error.reworded(f"{error}: remove {path.name} to start over") from None


def _optimiser_state(tensors: Mapping[str, Tensor], optimiser: Any, path: Path) -> dict[int, dict[str, Tensor]]:
    """What AdamW kept, by the number of the parameter."""
    parameters = dict(enumerate(p for group in optimiser.param_groups for p in group["params"]))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        number = int(index) if index.isdecimal() and len(index) < 9 else -1
        if number not in parameters or value.shape != (parameters[number].shape if name != "step" else ()):
            raise InputError(f"{path} is damaged (optimiser.{key[:80]} belongs to no parameter)", path=path)
        state.setdefault(number, {})[name] = value
    if any(set(kept) != ADAM for kept in state.values()):
        raise InputError(f"{path} is damaged (the state of the optimiser is not complete)", path=path)
    return state


def progress_of(stage: Path) -> Progress:
    """How far the stage in this folder has come, as `saved_progress` tells it."""
    path = RunFolder(stage, writes=False).last
    with _or_start_over(path):
        return saved_progress(path)


def saved_progress(path: Path) -> Progress:
    """How far the checkpoint at `path` has come; the beginning if there is none. Raises `InputError` if it is damaged."""
    if not path.exists():
        return Progress()
    try:
        found = json.loads(read_metadata(path)["progress"])
        progress = Progress(found["step"], float(found["best"]), found["seconds"], found.get("validated", -1))
        whole = type(progress.step) is type(progress.validated) is int and 0 <= progress.step < 10**12
        if whole and 0 <= progress.seconds < math.inf and not math.isnan(progress.best):
            return progress
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        pass
    raise InputError(f"{path} is damaged (it does not say how far the run has come)", path=path)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
