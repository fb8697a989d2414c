"""Words that users choose from; here, so that the command line can name them without importing torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

Precision = Literal["auto", "fp32", "bf16"]
DEVICES = ("cpu", "cuda", "mps")
Engine = Literal["auto", "torch", "onnx", "openvino"]
Place = Literal["here", "ray"]
ExportedEngine = Literal["onnx", "openvino"]
ExportTarget = Literal["onnx", "openvino", "bundle"]
Form = Literal["png", "nifti", "dicom"]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


def sampler_name(module: str) -> str:
    """The name of the sampler that a module defines: `dpm-solver` of `manymask.diffusion.samplers.dpm_solver`."""
    return module.rpartition(".")[2].replace("_", "-")


def _sampler_names() -> tuple[str, ...]:
    """The names of the files in `diffusion/samplers`, none of which is imported."""
    folder = Path(__file__).parent / "diffusion" / "samplers"
    stems = sorted(path.stem for path in folder.glob("[!_]*.py"))
    return tuple(sampler_name(stem) for stem in stems if stem != "base")


if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[_sampler_names()]
