"""`export`: a segmenter as a graph that needs no torch."""

from pathlib import Path
from typing import Annotated

import tyro

from manymask.choices import ExportedEngine, SamplerName
from manymask.cli import flags
from manymask.cli.wording import at_least_one


def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")],
    /,
    *,
    to: ExportedEngine,
    out: Annotated[Path, flags.OUT],
    samples: Annotated[int, flags.SAMPLES] = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
) -> None:
    """Write a segmenter as one graph for ONNX Runtime or OpenVINO, with a runner that needs no torch.

    Encoder, sampler and decoder are one graph with the noise as an input. It is compared with torch before it is kept.

    Args:
        model: a name of `manymask models`, a model folder or run folder, or hf://ORG/NAME.
        to: the engine.
        out: gets the graph, export.json with its shapes, runner.py and the licence of the weights.
        samples: how many masks the graph draws of each image.
        sampler: the model's own if not given.
        steps: of the sampler; the model's own number if not given.
    """
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.export.folder import export_model
    from manymask.hub.model_folder import load_model

    at_least_one("--samples", samples)
    found = export_model(load_model(model), out, to, SamplingConfig(sampler, steps), samples)
    print(
        f"{to} → {out}: from the same noise, probabilities differ from torch's by {found.max_abs_difference:.1g} at most"
    )
