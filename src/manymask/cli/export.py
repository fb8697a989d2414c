"""`export`: a segmenter as a graph that needs no torch, or as a MONAI bundle."""

from pathlib import Path
from typing import Annotated

import tyro

from manymask.choices import ExportTarget, SamplerName
from manymask.cli import flags
from manymask.cli.wording import at_least_one


def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")],
    /,
    *,
    to: ExportTarget,
    out: Annotated[Path, flags.OUT],
    samples: Annotated[int, flags.SAMPLES] = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
) -> None:
    """Write a segmenter for ONNX Runtime or OpenVINO, with a runner that needs no torch, or as a MONAI bundle.

    For the engines, encoder, sampler and decoder are one graph with the noise as an input. It is compared with torch before
    it is kept.

    Args:
        model: a name of `manymask models`, a model folder or run folder, or hf://ORG/NAME.
        to: the engine; or bundle, which needs manymask to run.
        out: gets the graph, export.json with its shapes, runner.py and the licence of the weights; or the bundle.
        samples: how many masks are drawn of each image.
        sampler: the model's own if not given.
        steps: of the sampler; the model's own number if not given.
    """
    from manymask.diffusion.sampling import SamplingConfig

    at_least_one("--samples", samples)
    sampling = SamplingConfig(sampler, steps)
    if to == "bundle":
        from manymask.export.bundle import export_bundle

        export_bundle(model, out, sampling, samples)
        print(f"bundle → {out}: python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES")
        return
    from manymask.export.folder import export_model
    from manymask.hub.model_folder import load_model

    found = export_model(load_model(model), out, to, sampling, samples)
    print(
        f"{to} → {out}: from the same noise, probabilities differ from torch's by {found.max_abs_difference:.1g} at most"
    )
