"""Where a run is followed beside its own files: TensorBoard always, Weights & Biases and MLflow on request.

All go through accelerate's trackers. A resumed run goes on under the same name: RUN/STAGE/trackers.json keeps it.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymask.choices import TrackerName
from manymask.extras import require
from manymask.io.atomic import read_object, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "manymask"
BOARD = "tensorboard"  # the tracker that every run has, and its folder


def tracking(folder: Path, wanted: Sequence[TrackerName]) -> dict[str, Any]:
    """The arguments of `Accelerator` for the run in this folder; `MissingExtraError` for a tracker that is not installed."""
    from accelerate.utils import ProjectConfiguration

    others = [name for name in dict.fromkeys(wanted) if name != BOARD]
    for name in others:
        require("track", f"--track {name}", name)
    places = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / BOARD))
    return {"log_with": [BOARD, *others], "project_config": places}


class Trackers:
    """The trackers of a run, started.

    Args:
        accelerator: made with the arguments of `tracking`.
        folder: of the stage.
        config: all that decides the result; a fresh run stores it with each tracker.
        step: of the last checkpoint; what TensorBoard holds beyond it is dropped.
    """

    def __init__(self, accelerator: "Accelerator", folder: Path, config: Mapping[str, Any], step: int) -> None:
        known = folder / "trackers.json"
        names = {str(name) for name in accelerator.log_with}
        kept = read_object(known) if known.exists() else {}
        title = f"{folder.parent.name}/{folder.name}"
        options: dict[str, dict[str, Any]] = {BOARD: {"purge_step": step + 1}}
        if "wandb" in names:
            kept.setdefault("wandb", secrets.token_hex(8))
            options["wandb"] = {"name": title, "id": kept["wandb"], "resume": "allow", "dir": str(folder)}
        if "mlflow" in names:
            _default_place(folder)
            options["mlflow"] = {"run_name": title, "run_id": kept.get("mlflow")}
        settings = _flat(config) if step == 0 else None
        accelerator.init_trackers(PROJECT, settings, options)
        self.trackers = {str(tracker.name): tracker for tracker in accelerator.trackers}
        if "mlflow" in names:
            kept["mlflow"] = self.trackers["mlflow"].tracker.info.run_id
        if kept:
            write_json(known, kept)

    def log(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl."""
        values = {name: value for name, value in line.items() if name != "step" and isinstance(value, (int, float))}
        for tracker in self.trackers.values():
            tracker.log(values, step=line["step"])

    def show(self, picture: Path, step: int) -> None:
        """A picture of samples, from its file."""
        import numpy as np
        from PIL import Image

        with Image.open(picture) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        for name, tracker in self.trackers.items():
            if name == "mlflow":
                tracker.log_artifact(str(picture), artifact_path="samples")
            else:
                form = {"dataformats": "NHWC"} if name == BOARD else {}
                tracker.log_images({"samples": pixels[None]}, step=step, **form)

    def close(self) -> None:
        """Ends them all."""
        for tracker in self.trackers.values():
            tracker.finish()


def _default_place(folder: Path) -> None:
    """MLflow writes beside the stages, unless the environment or the caller names another place."""
    import mlflow

    if not os.environ.get("MLFLOW_TRACKING_URI") and not mlflow.is_tracking_uri_set():
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need the whole of MLflow
        mlflow.set_tracking_uri((folder.parent / "mlruns").resolve().as_uri())


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one level, `recipe.training.batch_size` and so on; lists become text."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
