"""`export`: a segmenter as a graph that needs no torch, or as a MONAI bundle."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from manymask.choices import ExportTarget, SamplerName
from manymask.cli import flags
from manymask.cli.wording import at_least_one
from manymask.errors import ConfigError

if TYPE_CHECKING:
    from manymask.data.store import Store
    from manymask.hub.model_folder import TrainedModel


def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")],
    /,
    *,
    to: ExportTarget,
    out: Annotated[Path, flags.OUT],
    samples: Annotated[int, flags.SAMPLES] = 5,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    int8: bool = False,
    data: Annotated[Path | None, flags.DATA] = None,
) -> None:
    """Write a segmenter for ONNX Runtime or OpenVINO, with a runner that needs no torch, or as a MONAI bundle.

    For the engines, encoder, sampler and decoder are one graph with the noise as an input. It is compared with torch before
    it is kept, on --device if that is given, else on the CPU. A bundle runs on --device unless that is overridden.

    Args:
        model: a name of `manymask models`, a model folder or run folder, or hf://ORG/NAME.
        to: the engine; or bundle, which needs manymask to run.
        out: gets the graph, export.json with its shapes, runner.py and the licence of the weights; or the bundle.
        samples: how many masks are drawn of each image.
        sampler: the model's own if not given.
        steps: of the sampler; the model's own number if not given.
        int8: in 8 bits, refused if the Dice on `--data` changes by more than 0.003.
        data: for `--int8`: images with masks that the model was not trained on, a prepared store (its part val) or a folder.
    """
    from manymask.diffusion.sampling import SamplingConfig
    from manymask.runtime import chosen_device

    at_least_one("--samples", samples)
    if int8 != (data is not None) or (int8 and to == "bundle"):
        raise ConfigError("--int8 is for onnx and openvino and goes with --data, images with masks: they give the ranges "
                          "of values, and show that the masks stay what they are")  # fmt: skip
    sampling = SamplingConfig(sampler, steps)
    if to == "bundle":
        from manymask.export.bundle import export_bundle

        export_bundle(model, out, sampling, samples, chosen_device())
        print(f"bundle → {out}: python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES")
        return
    from manymask.export.folder import export_model
    from manymask.hub.model_folder import load_model

    trained = load_model(model)
    with _labelled(trained, data) as labelled:
        content = export_model(trained, out, to, sampling, samples, labelled, chosen_device() or "cpu")
    found = content["parity"]
    print(
        f"{to} → {out}: from the same noise, probabilities on {found['device']} differ from torch's on the CPU by "
        f"{found['max_abs_difference']:.1g} at most"
    )
    if int8:
        print(_comparison(content["int8"]))


@contextmanager
def _labelled(trained: "TrainedModel", data: Path | None) -> Iterator["tuple[Store, Sequence[str]] | None"]:
    """A store, and cases of it that the model was not trained on."""
    from manymask.evaluation.external import data_to_score
    from manymask.evaluation.held_out import held_out_cases, matched_store

    if data is None:
        yield None
        return
    with data_to_score(data, trained.recipe) as scored:
        store = matched_store(trained.recipe, scored.store)
        yield store, held_out_cases(trained, store, scored.part if scored.temporary else "val", scored.scheme)


def _comparison(made: dict[str, Any]) -> str:
    return (
        f"8 bits for {made['quantised']}: Dice {made['full_dice']:.4f} → {made['dice']:.4f} on {made['images']} images, "
        f"{made['time_ratio']:.2f} of the processor time, {made['full_megabytes']:.1f} → {made['megabytes']:.1f} MB"
    )
