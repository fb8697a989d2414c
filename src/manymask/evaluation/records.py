"""What an evaluation leaves, typed; `to_dict` gives the contents of results.json."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from manymask.migrations import FORMAT
from manymask.recipes import Stage


@dataclass(frozen=True)
class DataRecord:
    """What was scored on: data set, hash of the store, split scheme, remark of the data set."""

    name: str
    hash: str
    scheme: str
    remark: str = ""


@dataclass(frozen=True)
class ScoredModel:
    """What was scored: recipe and provenance as `config.to_dict` writes them."""

    stage: Stage
    recipe: dict[str, Any]
    provenance: dict[str, Any]
    weights_sha256: str
    parameters: int


@dataclass(frozen=True)
class EvaluationRecord:
    """The scores of one model on one part of one store, with all that is needed to get them again.

    Attributes:
        metrics: by name: mean, 95 % interval, number of cases, and what is pooled over all cases.
        baselines: the same metrics of answers that need no model of their own.
        protocol: how masks were drawn and scored, as it was used.
        data: what was scored on.
        model: what was scored.
        leak: which of the cases the model may have seen.
        git: revision of the code.
        hardware: processor, cores, accelerator.
        throughput_s_per_image: wall time per image in batches, seconds.
        masks_per_image: how many were drawn.
        reliability: reliability diagrams by region.
        cases: scores of each case.
        off_centre: metrics of windows so many pixels off the middle, for models of crops.
        promises: what the model's calibration promises against what happened, or why that was not tested; None for codecs.
        engine: what ran the networks: "torch", "onnx" or "openvino".
    """

    metrics: dict[str, Any]
    baselines: dict[str, Any]
    protocol: dict[str, Any]
    data: DataRecord
    model: ScoredModel
    leak: dict[str, Any]
    git: str
    hardware: dict[str, Any]
    throughput_s_per_image: float
    masks_per_image: int
    reliability: dict[str, Any]
    cases: list[dict[str, Any]]
    off_centre: dict[int, Any] | None = field(default=None)
    promises: dict[str, Any] | None = field(default=None)
    engine: str = "torch"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as results.json holds it."""
        nested = {"data": asdict(self.data), "model": asdict(self.model) | {"stage": Stage(self.model.stage).value}}
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        absent = {name for name in ("off_centre", "promises") if own[name] is None}
        return {"format": FORMAT, **{name: value for name, value in own.items() if name not in absent}, **nested}

    def brief(self) -> dict[str, Any]:
        """The scores without the cases, and what makes them again, as metrics.json holds them."""
        kept = (
            "metrics",
            "baselines",
            "protocol",
            "data",
            "git",
            "hardware",
            "engine",
            "throughput_s_per_image",
            "masks_per_image",
        )
        whole = self.to_dict()
        return {name: whole[name] for name in kept}
