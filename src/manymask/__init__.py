"""manymask: many plausible masks for one medical image, so that one sees where experts would disagree."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from manymask._version import __version__

if TYPE_CHECKING:
    from manymask import ensemble, metrics
    from manymask.api import calibrate, evaluate, prepare, train
    from manymask.data import datasets
    from manymask.data.store import Store
    from manymask.diffusion import samplers
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.errors import ManymaskError
    from manymask.hub.catalogue import list_models
    from manymask.hub.model_folder import load_model, save_model
    from manymask.inference.segmentation import Segmentation
    from manymask.inference.segmenter import Segmenter
    from manymask.planning.run import train_folder
    from manymask.recipes import Recipe, get_recipe, list_recipes

# name: the module that has it; a module itself where they are the same
_LAZY = {
    "Segmenter": "manymask.inference.segmenter",
    "Segmentation": "manymask.inference.segmentation",
    "load_model": "manymask.hub.model_folder",
    "save_model": "manymask.hub.model_folder",
    "list_models": "manymask.hub.catalogue",
    "Recipe": "manymask.recipes",
    "get_recipe": "manymask.recipes",
    "list_recipes": "manymask.recipes",
    "prepare": "manymask.api",
    "Store": "manymask.data.store",
    "train": "manymask.api",
    "train_folder": "manymask.planning.run",
    "calibrate": "manymask.api",
    "evaluate": "manymask.api",
    "SamplingConfig": "manymask.diffusion.sampling",
    "samplers": "manymask.diffusion.samplers",
    "metrics": "manymask.metrics",
    "ensemble": "manymask.ensemble",
    "datasets": "manymask.data.datasets",
    "ManymaskError": "manymask.errors",
}

__all__ = [
    "ManymaskError",
    "Recipe",
    "SamplingConfig",
    "Segmentation",
    "Segmenter",
    "Store",
    "__version__",
    "calibrate",
    "datasets",
    "ensemble",
    "evaluate",
    "get_recipe",
    "list_models",
    "list_recipes",
    "load_model",
    "metrics",
    "prepare",
    "samplers",
    "save_model",
    "train",
    "train_folder",
]


def __getattr__(name: str) -> Any:
    """Imported when first used: neither `import manymask` nor the command line's help should wait for torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'manymask' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if _LAZY[name].rpartition(".")[2] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
