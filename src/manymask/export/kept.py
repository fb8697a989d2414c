"""Compiled networks that are kept in the user's cache, so that an engine is there at once, and taken where it is faster.

CACHE/graphs/KEY/encode.onnx, denoise.onnx, decode.onnx     the networks
CACHE/graphs/KEY/graphs.json                                what they are of, how far from torch, and how fast
KEY changes with the weights, the settings and the program: graphs of anything else are never taken.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from manymask._version import __version__
from manymask.choices import Engine
from manymask.config import to_dict
from manymask.data.case import Batch
from manymask.errors import ConfigError, ManymaskError
from manymask.export.compiled import GRAPHS, CompiledSegmenter, compiled, write_graphs
from manymask.export.convert import require_engine
from manymask.export.folder import MOST_DIFFERENCE
from manymask.export.graph import simulated_images
from manymask.hub.model_folder import TrainedModel
from manymask.io.atomic import Ours, atomic_folder, read_object, write_json
from manymask.models.base import MaskSampler, TrainableModel
from manymask.models.latent_diffusion import DiffusionSegmenter
from manymask.parallel import draws_at_once
from manymask.runtime import default_device, git_revision

FACTS = "graphs.json"
MANY = 32  # images for which it is worth building graphs: that takes about as long as it saves on so many
WORTH = 0.97  # of torch's time


@dataclass(frozen=True)
class Kept:
    """Graphs in the cache.

    Attributes:
        folder: where they are.
        max_abs_difference: of a probability, from torch's.
        ratio: of the processor time of a draw, to torch's.
    """

    folder: Path
    max_abs_difference: float
    ratio: float

    @property
    def worth(self) -> bool:
        """Whether they are right, and faster than torch."""
        return self.max_abs_difference <= MOST_DIFFERENCE and self.ratio < WORTH


def cache_folder() -> Path:
    """Where graphs are kept: MANYMASK_CACHE, else `manymask` in the user's cache."""
    own = os.environ.get("MANYMASK_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manymask"


def find_kept(trained: TrainedModel) -> Kept | None:
    """The graphs of exactly this model; None if there are none, or they are damaged."""
    try:
        folder = _place(trained)
        facts = read_object(folder / FACTS)
        whole = facts["sha256"] == _hashes(folder)
        return Kept(folder, float(facts["max_abs_difference"]), float(facts["ratio"])) if whole else None
    except (ManymaskError, OSError, KeyError, TypeError, ValueError, PackageNotFoundError):
        return None


def build_kept(trained: TrainedModel) -> Kept:
    """Write the graphs of a diffusion segmenter on the CPU into the cache, compared and timed with torch.

    Raises `ManymaskError` if an extra is missing, and OSError if the cache cannot be written.
    """
    model, recipe = trained.segmenter, trained.recipe
    assert isinstance(model, DiffusionSegmenter)
    folder = _place(trained)
    with atomic_folder(folder, Ours(FACTS)) as beside:
        write_graphs(model, beside, recipe.channels, recipe.size)
        other = CompiledSegmenter.load(model, beside, "onnx")
        images = simulated_images(2, recipe.channels, recipe.size)
        ours, theirs = _timed(model, images), _timed(other, images)
        difference, ratio = float((ours[0] - theirs[0]).abs().max()), theirs[1] / max(ours[1], 1e-9)
        facts: dict[str, Any] = {"model": trained.record.name, "weights_sha256": trained.fingerprint,
                                 "max_abs_difference": difference, "ratio": ratio, "sha256": _hashes(beside)}  # fmt: skip
        write_json(beside / FACTS, facts)
    return Kept(folder, difference, ratio)


def fastest(trained: TrainedModel, device: str, images: int) -> Kept | None:
    """The graphs that draw faster than torch, built if that is worth it for so many images; None to stay with torch."""
    if device != "cpu" or not isinstance(trained.model, DiffusionSegmenter) or find_spec("onnxruntime") is None:
        return None
    kept = find_kept(trained)
    if kept is None and images >= MANY and find_spec("onnx") is not None:
        try:
            kept = build_kept(trained)
        except (ManymaskError, OSError, RuntimeError):  # a cache that cannot be written, a layer that ONNX lacks
            return None
    return kept if kept is not None and kept.worth else None


def with_engine(trained: TrainedModel, device: str, engine: Engine, images: int) -> tuple[MaskSampler, Engine]:
    """The networks of a segmenter on an engine, and which that is.

    Args:
        trained: the model.
        device: where it runs.
        engine: as `Segmenter` takes it.
        images: about how many will be drawn.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"there is no engine {engine!r}: choose {', '.join(get_args(Engine))}", parameter="engine")
    model = trained.segmenter.to(device).eval()
    draws = draws_at_once(device) if images > 1 else 1
    threads = max(1, torch.get_num_threads() // draws)
    if engine == "auto":
        kept = fastest(trained, device, images)
        if kept is not None and isinstance(model, DiffusionSegmenter):
            with suppress(RuntimeError, ValueError, OSError):  # another version of the engine: torch draws the same
                return CompiledSegmenter.load(model, kept.folder, "onnx", threads), "onnx"
        return model, "torch"
    if engine == "torch":
        return model, "torch"
    if engine == "onnx" and isinstance(model, DiffusionSegmenter):
        require_engine(engine)
        with suppress(OSError):  # a cache that cannot be written: built for this process alone
            kept = find_kept(trained) or build_kept(trained)
            if kept.max_abs_difference > MOST_DIFFERENCE:
                raise ConfigError(
                    f"the engine onnx is off by {kept.max_abs_difference:.2g} in a probability: use torch",
                    parameter="engine",
                )
            return CompiledSegmenter.load(model, kept.folder, "onnx", threads), "onnx"
    return compiled(model, engine, trained.recipe.channels, trained.recipe.size, threads), engine


def engine_for(trained: TrainedModel, engine: Engine, images: int) -> tuple[TrainableModel, str, Engine]:
    """A model of any stage on an engine, for a run over many images.

    Args:
        trained: the model; only torch runs codecs.
        engine: as `Segmenter` takes it.
        images: about how many there are.

    Returns:
        The model, the device where it runs, and the engine.
    """
    device = default_device() if engine in ("auto", "torch") else "cpu"
    if engine == "torch" or (engine == "auto" and not isinstance(trained.model, MaskSampler)):
        return trained.model, device, "torch"
    model, used = with_engine(trained, device, engine, images)
    return model, device, used


def _timed(model: MaskSampler, images: Tensor) -> tuple[Tensor, float]:
    """Two masks of each image, and the least processor time of three draws."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        drawn = model.sample_all(Batch(["a", "b"], images, names=["a", "b"]), 2, 0)
        seconds.append(time.process_time() - start)
    return drawn, min(seconds)


def _place(trained: TrainedModel) -> Path:
    made = [trained.fingerprint, to_dict(trained.recipe), __version__, git_revision(), torch.__version__,
            version("onnxruntime")]  # fmt: skip
    return cache_folder() / "graphs" / hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:24]


def _hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest() for name in GRAPHS}
