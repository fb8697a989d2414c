"""From a torch module to an ONNX file, whose batch stays free."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from manymask.extras import require

OPSET = 17
BATCH = "batch"
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


def require_engine(engine: str) -> None:
    """Raise `MissingExtraError` if an engine, or what writes its files, is not installed.

    Args:
        engine: "onnx" or "openvino".
    """
    require(engine, f"the engine {engine}", *NEEDS[engine])


def write_onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], path: Path) -> None:
    """Trace a module into an ONNX file.

    The exporter that traces is used: what a graph computes from Python numbers, such as the times of a sampler, becomes
    constants, and the newer one follows every table of the noise schedule.

    Args:
        module: the module; its parameters take no gradient any more.
        inputs: example arguments by name, in the module's order; the first axis of each is free.
        outputs: names of the results.
        path: the file.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that Python numbers become constants is what is wanted here
        logger.setLevel(logging.ERROR)
        module(*inputs.values())  # tables that are computed once are constants then
        try:
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: {0: BATCH} for name in [*inputs, *outputs]},
            )
        finally:
            logger.setLevel(level)
