"""Optional dependencies, which `pyproject.toml` groups as extras."""

from importlib import import_module

from manymask.errors import MissingExtraError

TRAINING = ("accelerate", "tensorboard", "matplotlib")


def require(extra: str, purpose: str, *modules: str) -> None:
    """Raises `MissingExtraError` that states the extra if one of its modules cannot be imported. Call it before long work.

    purpose: what needs it, as the subject of a sentence in the singular.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError:
            message = f"{purpose} needs the extra `{extra}`: pip install 'manymask[{extra}]'"
            raise MissingExtraError(message, extra=extra, package=module) from None


def require_training() -> None:
    """Whatever trains: the loop, its log, and the pictures of its validation."""
    require("train", "training", *TRAINING)


def require_figures() -> None:
    """Whatever draws with matplotlib."""
    require("report", "drawing figures", "matplotlib")
