"""Graphs in 8 bits, by the quantiser of the engine itself; kept only if the consensus stays what it was.

The ranges of activations come from real images. Others, with masks of raters, are drawn by both graphs from the same noise:
the Dice of their consensus must differ by at most `MOST_DICE_CHANGE`. What is quantised is tried from all to little.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manymask.choices import ExportedEngine
from manymask.data.case import evenly_spaced
from manymask.data.raters import consensus_mask
from manymask.data.store import Store
from manymask.errors import InputError
from manymask.export.graph import MaskGraph
from manymask.export.sessions import Session, session_of
from manymask.extras import require
from manymask.metrics import overlap
from manymask.rng import SampleNoise, strata

MOST_DICE_CHANGE = 3e-3
CALIBRATING = 8  # images that give the ranges of activations: more changed nothing
CHECKED = 60
LEAST_CHECKED = 8
QUANTISED = ("Conv", "MatMul")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Example:
    """One image with its noise, as arguments of the graph, and the raters' consensus, bool (S, S)."""

    inputs: Arrays
    truth: np.ndarray


@dataclass(frozen=True)
class Attempt:
    """How a graph in 8 bits compares with the one in single precision, on the same images and noise.

    Attributes:
        quantised: which part is in 8 bits.
        dice: mean Dice of the consensus.
        full_dice: the same in single precision.
        images: how many were compared.
        calibrated_on: how many other images gave the ranges.
        time_ratio: processor time of an image, to single precision.
        megabytes: of the graph.
        full_megabytes: of the graph in single precision.
    """

    quantised: str
    dice: float
    full_dice: float
    images: int
    calibrated_on: int
    time_ratio: float
    megabytes: float
    full_megabytes: float

    @property
    def change(self) -> float:
        """Of the Dice."""
        return self.dice - self.full_dice

    def __str__(self) -> str:
        return f"{self.quantised}: Dice {self.full_dice:.4f} → {self.dice:.4f}, {self.time_ratio:.2f} of the time"


ALL_BUT_ENCODER = "all but the pretrained encoder"
PARTS: dict[str, Callable[[str], bool]] = {
    "all convolutions": lambda node: True,
    ALL_BUT_ENCODER: lambda node: "/backbone/" not in node,
    "denoiser and mask decoder": lambda node: "/denoiser/" in node or "/decoder/" in node,
}


def require_int8(engine: ExportedEngine) -> None:
    """Raise `MissingExtraError` if the quantiser of an engine is not installed."""
    if engine == "openvino":
        os.environ.setdefault("NNCF_CI", "1")  # the only way to keep it from reporting its use to its makers
        require("int8", "8 bits with OpenVINO", "nncf")


def examples(graph: MaskGraph, store: Store, ids: Sequence[str], seed: int = 0) -> list[Example]:
    """Evenly spaced cases of a store with the noise that `segment` draws for them, as many as are needed.

    Raises InputError if there are too few.
    """
    if len(ids) < CALIBRATING + LEAST_CHECKED:
        raise InputError(
            f"8 bits need at least {CALIBRATING + LEAST_CHECKED} images with masks that were not trained on, "
            f"and {store.folder} has {len(ids)}",
            path=store.folder,
        )
    return [_example(graph, store, case, seed) for case in evenly_spaced(ids, CALIBRATING + CHECKED)]


def _example(graph: MaskGraph, store: Store, case: str, seed: int) -> Example:
    batch, codec = store.batch([case]), graph.model.mask_codec
    noise, side = SampleNoise(seed, batch.noise_names, graph.samples), batch.image.shape[-1] // codec.factor
    draws = [noise.normal(codec.latent_channels, side, side).numpy() for _ in range(graph.draws)]
    inputs = {"image": batch.image.numpy(), "noise": np.stack(draws, axis=1)[None]}
    if graph.model.presence is not None:
        inputs["uniform"] = strata(seed, batch.noise_names, range(graph.samples)).numpy()
    return Example(inputs, consensus_mask(batch.raters_masks()[0].numpy() > 0))


def quantise(path: Path, engine: ExportedEngine, given: Sequence[Example]) -> tuple[Attempt, list[Attempt]]:
    """Replace a graph by one in 8 bits.

    Args:
        path: model.onnx or model.xml, already compared with torch.
        engine: that runs it.
        given: as returned by `examples`; some calibrate, the others are compared.

    Returns:
        The attempt that was kept, and those before it that failed.

    Raises:
        InputError: the Dice changes too much whatever is quantised; the file is then what it was.
    """
    spacing = len(given) // CALIBRATING
    calibrating = given[::spacing][:CALIBRATING]
    checked = [each for i, each in enumerate(given) if i % spacing or i // spacing >= CALIBRATING]
    before, failed = _drawn(session_of(path), checked), list[Attempt]()
    names = quantisable(path)
    tried: set[frozenset[str]] = set()
    for title, belongs in PARTS.items():
        chosen = frozenset(filter(belongs, names))
        if not chosen or chosen in tried:
            continue
        tried.add(chosen)
        beside = path.parent / "int8"
        beside.mkdir()
        new = beside / path.name
        write_quantised(path, new, engine, chosen, calibrating)
        after = _drawn(session_of(new), checked)
        attempt = Attempt(title, after[0], before[0], len(checked), len(calibrating), after[1] / before[1], _size(new),
                          _size(path))  # fmt: skip
        if abs(attempt.change) <= MOST_DICE_CHANGE:
            for file in beside.iterdir():
                file.replace(path.parent / file.name)
        shutil.rmtree(beside)
        if abs(attempt.change) <= MOST_DICE_CHANGE:
            return attempt, failed
        failed.append(attempt)
    raise InputError(
        f"in 8 bits the Dice of {len(checked)} images changes by more than {MOST_DICE_CHANGE} whatever is quantised "
        f"({'; '.join(map(str, failed))}): not shipped, nothing is written"
    )


def _drawn(session: Session, given: Sequence[Example]) -> tuple[float, float]:
    """The mean Dice of the consensus, and the median processor time of an image."""
    dice, seconds = [], []
    for each in given:
        start = time.process_time()
        confidence = session(each.inputs)[1][0]
        seconds.append(time.process_time() - start)
        dice.append(overlap(confidence >= 0.5, each.truth)[0])
    return float(np.mean(dice)), float(np.median(seconds))


def _size(path: Path) -> float:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*")) / 1e6


def quantisable(path: Path) -> list[str]:
    """The nodes of a graph that can be quantised; of an OpenVINO graph all, as its quantiser also looks at what is between."""
    if path.suffix == ".xml":
        import openvino

        return [node.get_friendly_name() for node in openvino.Core().read_model(path).get_ordered_ops()]
    import onnx

    return [node.name for node in onnx.load(path).graph.node if node.op_type in QUANTISED]


def write_quantised(
    path: Path, new: Path, engine: ExportedEngine, chosen: frozenset[str], calibrating: Sequence[Example]
) -> None:
    """Write a graph with some of its nodes in 8 bits, by the quantiser of its engine."""
    if engine == "openvino":
        _by_nncf(path, new, chosen, calibrating)
    else:
        _by_onnxruntime(path, new, chosen, calibrating)


def _by_onnxruntime(path: Path, new: Path, chosen: frozenset[str], calibrating: Sequence[Example]) -> None:
    """Convolutions and products of matrices between pairs of QuantizeLinear and DequantizeLinear, a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Arrays] = iter([each.inputs for each in calibrating])

        def get_next(self) -> Arrays | None:
            return next(self.rest, None)

    folded = new.with_name("folded.onnx")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises to do what is done here
    try:
        quant_pre_process(str(path), str(folded), skip_onnx_shape=True, skip_symbolic_shape=True)
        quantize_static(
            str(folded), str(new), Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=sorted(chosen), per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        logger.setLevel(level)
    folded.unlink()


def _by_nncf(path: Path, new: Path, chosen: frozenset[str], calibrating: Sequence[Example]) -> None:
    """Whatever nncf quantises for OpenVINO, without the correction of biases, which takes minutes for an unrolled sampler."""
    require_int8("openvino")
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(path)
    spared = [name for name in quantisable(path) if name not in chosen]
    settings: dict[str, Any] = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(calibrating)}
    if spared:
        settings["ignored_scope"] = nncf.IgnoredScope(names=spared, validate=False)
    made = nncf.quantize(
        model,
        nncf.Dataset([each.inputs for each in calibrating]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
        **settings,
    )
    openvino.save_model(made, new, compress_to_fp16=False)
