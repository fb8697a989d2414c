"""Graphs that an engine runs: the only place that calls onnxruntime and openvino."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manymask.choices import ExportedEngine
from manymask.errors import ConfigError
from manymask.extras import load_openvino

Session = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
"""Runs a graph: arrays by the names of its inputs → its outputs, in their order."""


def session_of(
    path: Path, engine: ExportedEngine | None = None, threads: int | None = None, device: str = "cpu"
) -> Session:
    """Load a graph.

    Args:
        path: an ONNX file, or the .xml file of an OpenVINO graph.
        engine: "onnx" or "openvino", which reads ONNX files too; by the name of the file if None.
        threads: of the processor; as many as torch uses if None.
        device: "cpu", or "cuda" with ONNX Runtime.

    Returns:
        The session, in single precision.

    Raises:
        ConfigError: the engine does not run on the device.
    """
    count = threads or torch.get_num_threads()
    chosen = engine or ("openvino" if path.suffix == ".xml" else "onnx")
    if chosen == "onnx":
        return _onnxruntime(path, count, device)
    if device != "cpu":
        raise ConfigError(f"OpenVINO runs on the CPU here, not on {device}", parameter="device")
    return _openvino(path, count)


def _onnxruntime(path: Path, threads: int, device: str) -> Session:
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        if device != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            message = f"this ONNX Runtime has no provider for {device}: CUDA needs the package onnxruntime-gpu"
            raise ConfigError(message, parameter="device")
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if len(session.get_providers()) < len(providers):  # it goes on without, and only logs that CUDA or cuDNN is missing
        raise ConfigError("ONNX Runtime cannot load its provider for CUDA: are CUDA and cuDNN of its version there?",
                          parameter="device")  # fmt: skip

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        results: list[np.ndarray] = session.run(None, dict(inputs))
        return results

    return run


def _openvino(path: Path, threads: int) -> Session:
    openvino = load_openvino()
    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bf16 where the processor has it: other masks
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", settings)

    own = threading.local()  # a request serves one thread at a time

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        results = own.request.infer(dict(inputs))
        return [results[port].copy() for port in compiled.outputs]

    return run
