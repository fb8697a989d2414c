"""The folder that `manymask export` writes: one graph, what it is, a runner without torch, and the licence.

DIR/model.onnx            or model.xml and model.bin for OpenVINO: images and noise → masks, confidence, consensus
DIR/export.json           shapes, opset, sampling, model and weights, and how far the engine is from torch
DIR/runner.py             draws the masks of one image with numpy, Pillow and the engine alone
DIR/LICENSE               the terms of the data that the model was trained on
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manymask._version import __version__
from manymask.choices import ExportedEngine
from manymask.data.store import Store
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError
from manymask.export.convert import BATCH, OPSET, require_engine, write_onnx
from manymask.export.graph import MaskGraph, example
from manymask.export.int8 import examples, quantise, require_int8
from manymask.export.sessions import Session, session_of
from manymask.extras import load_openvino
from manymask.hub.model_folder import TrainedModel
from manymask.io.atomic import Ours, atomic_folder, write_json
from manymask.io.record import now
from manymask.metrics import overlap
from manymask.models.latent_diffusion import DiffusionSegmenter

FORMAT = 1
OURS = Ours("export.json", "parity", ("export.json", "model.*", "runner.py", "LICENSE"))
MOST_STEPS = 200  # the graph holds the network once per step
MOST_DIFFERENCE = 1e-3  # of a probability, from torch's
MOST_DICE_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """How far an engine is from torch, given the same images and noise.

    Attributes:
        max_abs_difference: largest difference of a probability.
        dice_difference: largest 1 − Dice between both engines' consensus of an image.
        images: number of images compared.
        device: that the engine ran on; torch runs on the CPU.
    """

    max_abs_difference: float
    dice_difference: float
    images: int
    device: str = "cpu"


def export_model(
    trained: TrainedModel,
    out: Path,
    engine: ExportedEngine,
    sampling: SamplingConfig | None = None,
    samples: int = 5,
    labelled: tuple[Store, Sequence[str]] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write a segmenter as one graph for another engine, once its masks were compared with torch's.

    Args:
        trained: a latent diffusion segmenter.
        out: gets the files; an earlier export there is replaced.
        engine: "onnx" or "openvino".
        sampling: how masks are drawn; the model's default if None.
        samples: number of masks per image.
        labelled: for 8 bits: a store, as `matched_store` returns it, and cases of it that the model was not trained on.
        device: that the engine runs on to be compared in single precision. The graph is the same for all.

    Returns:
        The content of export.json: `parity` says how far the engine is from torch in single precision, `int8` how far 8 bits
        are from that.

    Raises:
        ManymaskError: the model cannot be exported, an extra is missing, the engine's masks differ from torch's, or the Dice
            in 8 bits from that in single precision.
    """
    require_engine(engine)
    if labelled is not None:
        require_int8(engine)
    graph = graph_of(trained, sampling, samples)
    inputs = example(graph, trained.recipe.channels, trained.recipe.size)
    with atomic_folder(out, OURS) as folder:
        path = folder / "model.onnx"
        write_onnx(graph, inputs, graph.outputs, path)
        if engine == "openvino":
            path = _as_openvino(path)
        found = replace(compare(graph, session_of(path, device=device), inputs), device=device)
        _check(found, engine)
        content = facts(trained, graph, engine, inputs, found)
        if labelled is not None:
            made, failed = quantise(path, engine, examples(graph, *labelled))
            content["int8"] = asdict(made) | {"failed": [asdict(each) for each in failed]}
        write_json(folder / "export.json", content)
        shutil.copyfile(Path(__file__).with_name("runner.py"), folder / "runner.py")
        (folder / "LICENSE").write_text(trained.licence.text, encoding="utf-8")
    return content


def graph_of(trained: TrainedModel, sampling: SamplingConfig | None, samples: int) -> MaskGraph:
    """The graph of a trained segmenter.

    Args:
        trained: the model.
        sampling: how masks are drawn; the model's default if None.
        samples: number of masks per image.

    Returns:
        The graph on the CPU, in evaluation mode.

    Raises:
        ConfigError: the model is no latent diffusion segmenter, or a setting is out of range.
    """
    model = trained.model
    if not isinstance(model, DiffusionSegmenter):
        raise ConfigError(f"only diffusion segmenters are exported, and this model is a {type(model).__name__}")
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}", parameter="samples")
    used = model.resolve(sampling)
    if used.steps is not None and used.steps > MOST_STEPS:
        raise ConfigError(
            f"the graph holds the network once for each step: {used.steps} are more than {MOST_STEPS}",
            parameter="steps",
        )
    graph = MaskGraph(model.cpu().eval(), used, samples)
    values = model.mask_codec.latent_channels * (trained.recipe.size // model.mask_codec.factor) ** 2
    if values % 16:  # torch draws what is left over in another way, which the runner does not know
        raise ConfigError(f"a latent of {values} values cannot be exported: it must be a multiple of 16")
    return graph


def compare(graph: MaskGraph, session: Session, inputs: dict[str, Tensor]) -> Parity:
    """Run torch and another engine on the same images and noise.

    Args:
        graph: the graph in torch.
        session: the same in the other engine.
        inputs: arguments of the graph.

    Returns:
        The differences of masks and consensus.
    """
    with torch.inference_mode():
        masks, confidence = (x.numpy() for x in graph(*inputs.values())[:2])
    theirs = session({name: x.numpy() for name, x in inputs.items()})
    dice = [overlap(a >= 0.5, b >= 0.5)[0] for a, b in zip(confidence, theirs[1], strict=True)]
    return Parity(float(np.abs(masks - theirs[0]).max()), 1 - min(dice), len(masks))


def _check(found: Parity, engine: str) -> None:
    if found.max_abs_difference > MOST_DIFFERENCE or found.dice_difference > MOST_DICE_DIFFERENCE:
        raise InputError(
            f"{engine} draws other masks than torch from the same noise: a probability differs by "
            f"{found.max_abs_difference:.2g}, the consensus by a Dice of {found.dice_difference:.2g}; nothing is written"
        )


def facts(
    trained: TrainedModel, graph: MaskGraph, engine: str, inputs: dict[str, Tensor], found: Parity
) -> dict[str, Any]:
    """What export.json says.

    Args:
        trained: the model.
        graph: its graph.
        engine: "onnx" or "openvino".
        inputs: arguments of the graph.
        found: how far the engine is from torch.

    Returns:
        JSON-able facts.
    """
    recipe, size = trained.recipe, trained.recipe.size
    ends = {"masks": [graph.samples, size, size], "presence": [], "confidence": [size, size], "consensus": [size, size]}
    features = sum(getattr(graph.model.denoiser, "features", ()))
    return {
        "format": FORMAT,
        "engine": engine,
        "opset": OPSET,
        "manymask": __version__,
        "created": now(),
        "model": asdict(trained.record),
        "licence": trained.licence.tag,
        "size": size,
        "channels": recipe.channels,
        "crop": recipe.crop,
        "stretch": recipe.stretch,
        "samples": graph.samples,
        "sampling": graph.sampling.record(graph.samples),
        "inputs": {name: [BATCH, *x.shape[1:]] for name, x in inputs.items()},
        "outputs": {name: [BATCH, *ends.get(name, [features])] for name in graph.outputs},
        "parity": asdict(found),
    }


def _as_openvino(path: Path) -> Path:
    """The same graph as model.xml and model.bin, in place of the ONNX file."""
    openvino = load_openvino()
    place = path.with_suffix(".xml")
    openvino.save_model(openvino.Core().read_model(path), place, compress_to_fp16=False)
    path.unlink()
    return place
