"""The folder of a run: its config, its metrics, and checkpoints that a kill at any moment leaves whole."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from manymask.errors import UserError
from manymask.files.atomic import atomic_file
from manymask.recipes import Recipe
from manymask.settings import difference, from_dict, to_dict


class RunFolder:
    """Config, metrics and checkpoints of one stage. Only the main process writes."""

    def __init__(self, folder: Path, writes: bool) -> None:
        self.folder, self.writes = folder, writes
        self.last, self.best = (folder / "checkpoints" / f"{n}.safetensors" for n in ("last", "best"))
        self.board: SummaryWriter | None = None

    def best_metadata(self) -> dict[str, str]:
        """`step` and `score` of the best weights; nothing where none were kept."""
        if not self.best.exists():
            return {}
        with safe_open(self.best, framework="pt") as file:
            return dict(file.metadata())

    def old_config(self) -> dict[str, Any] | None:
        """The config that the folder was begun with, if it was; a setting younger than it stands at its default."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return None
        old = yaml.safe_load(path.read_text(encoding="utf-8"))
        return old | {"recipe": to_dict(from_dict(Recipe, old["recipe"], f"{path}: recipe"))}

    def begin(self, config: dict[str, Any], step: int) -> None:
        """Refuses a folder of other settings; else writes the config, and drops metric lines beyond `step`, which will
        be written again."""
        config, old = json.loads(json.dumps(config)), self.old_config()
        changed = difference(old, config) if old is not None else []
        if changed:
            shown = "; ".join(changed[:3]) + ("; …" if len(changed) > 3 else "")
            raise UserError(f"{self.folder} holds a run with other settings ({shown}): name another --run folder")
        if not self.writes:
            return
        if old is None:
            with atomic_file(self.folder / "config.yaml") as beside:
                beside.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        self._forget_after(step)
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def log(self, line: dict[str, Any]) -> None:
        """One line of metrics, to JSON lines and TensorBoard."""
        if not self.writes or self.board is None:
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)):
                self.board.add_scalar(name, value, line["step"])

    def _forget_after(self, step: int) -> None:
        path = self.folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            with atomic_file(path) as beside:
                beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a metrics line; infinite for one that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


@dataclass
class Progress:
    """Where a run stands: steps done, best validation so far, seconds trained."""

    step: int = 0
    best: float = -math.inf
    seconds: float = 0.0


def save_checkpoint(path: Path, model: nn.Module, ema: nn.Module, optimiser: Any, progress: Progress) -> None:
    """All state in one safetensors file, written beside and renamed: a kill at any moment leaves a whole one."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": v for k, v in state.items()}
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with atomic_file(path) as beside:
        save_file(tensors, beside, metadata={"progress": json.dumps(vars(progress) | {"best": str(progress.best)})})


def load_checkpoint(path: Path, model: nn.Module, ema: nn.Module, optimiser: Any) -> Progress:
    """The inverse of `save_checkpoint`."""
    try:
        with safe_open(path, framework="pt") as file:
            progress = _progress(file.metadata())
        tensors = load_file(path)
    except Exception as error:
        raise UserError(f"{path} is damaged ({error}): remove it to start over") from None
    model.load_state_dict(_below(tensors, "model."))
    ema.load_state_dict(_below(tensors, "ema."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(tensors, "optimiser.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return progress


def saved_progress(path: Path) -> Progress:
    """How far the checkpoint at `path` has come; the beginning if there is none."""
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        return _progress(file.metadata())


def _progress(metadata: dict[str, str]) -> Progress:
    progress = json.loads(metadata["progress"])
    return Progress(progress["step"], float(progress["best"]), progress["seconds"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
