"""Optional dependencies, which `pyproject.toml` groups as extras."""

import sys
from importlib import import_module
from typing import Any

from manymask.errors import MissingExtraError

TRAINING = ("accelerate", "tensorboard", "matplotlib")


def require(extra: str, purpose: str, *modules: str) -> None:
    """Raises `MissingExtraError` that states the extra if one of its modules cannot be imported. Call it before long work.

    purpose: what needs it, as the subject of a sentence in the singular.
    """
    for module in modules:
        try:
            load_openvino() if module == "openvino" else import_module(module)
        except ImportError:
            message = f"{purpose} needs the extra `{extra}`: pip install 'manymask[{extra}]'"
            raise MissingExtraError(message, extra=extra, package=module) from None


def require_training() -> None:
    """Whatever trains: the loop, its log, and the pictures of its validation."""
    require("train", "training", *TRAINING)


def require_figures() -> None:
    """Whatever draws with matplotlib."""
    require("report", "drawing figures", "matplotlib")


def load_openvino() -> Any:
    """The module `openvino`, without openvino_telemetry, which it would load.

    That sends what OpenVINO's converter does unless somebody has opted out. No variable does so, and its command
    `opt_in_out --opt_out` sends an event itself and writes to the user's home. Where the package is missing, OpenVINO takes a
    stub of its own that sends nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it raises ImportError
    return import_module("openvino")
