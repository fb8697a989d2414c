"""A segmenter as a MONAI bundle, which `python -m monai.bundle run` runs where manymask is installed.

DIR/configs/metadata.json    what the model is, in the terms of MONAI's schema
DIR/configs/inference.json   how a folder of images is segmented; every value can be overridden on the command line
DIR/models/                  the model folder as it is: safetensors, settings, calibration, training ids
DIR/docs/README.md           how to run it, and the model card
DIR/LICENSE                  the terms of the data that the model was trained on
"""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from manymask._version import __version__
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.hub.catalogue import find_model
from manymask.hub.model_folder import TrainedModel, load_model
from manymask.io.atomic import Ours, atomic_folder, write_json
from manymask.io.text import read_text

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_ANY_DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
OURS = Ours("models/config.json", "recipe", ("configs", "docs", "models", "LICENSE"))
PAPER = "Trinh et al., Diffusion Model in Latent Space for Medical Image Segmentation Task, arXiv 2512.01292"


def export_bundle(
    model: Path | str,
    out: Path,
    sampling: SamplingConfig | None = None,
    samples: int = 5,
    device: str | None = None,
) -> None:
    """Write a segmenter as a MONAI bundle.

    Args:
        model: as `find_model` takes it; the folder is copied as it is.
        out: gets the bundle; an earlier one there is replaced.
        sampling: how masks are drawn, with a sampler by name; the model's default if None.
        samples: number of masks per image.
        device: that the bundle runs on unless its `device` is overridden; a GPU if there is one then if None.

    Raises:
        ManymaskError: there is no such model, it is a codec, or a setting is out of range.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}", parameter="samples")
    folder = find_model(model)
    trained = load_model(folder)
    trained.segmenter.resolve(sampling)
    with atomic_folder(out, OURS) as bundle:
        for name in ("configs", "docs"):
            (bundle / name).mkdir()
        shutil.copytree(folder, bundle / "models")
        write_json(bundle / "configs" / "metadata.json", metadata(trained, samples))
        configured = inference(sampling or SamplingConfig(), samples, device, trained.record.name)
        write_json(bundle / "configs" / "inference.json", configured)
        card = read_text(folder / "README.md") if (folder / "README.md").exists() else ""
        (bundle / "docs" / "README.md").write_text(_readme(trained) + _body(card), encoding="utf-8")
        (bundle / "LICENSE").write_text(trained.licence.text, encoding="utf-8")


def inference(
    sampling: SamplingConfig, samples: int, device: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """What inference.json says.

    Args:
        sampling: how masks are drawn, with a sampler by name.
        samples: number of masks per image.
        device: as in `export_bundle`.
        name: of the model in results; its folder's, `models`, if None.

    Returns:
        The configuration, with the names that MONAI expects of inference.
    """
    return {
        "bundle_root": ".",
        "device": f"$torch.device({device!r})" if device else _ANY_DEVICE,
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/eval'",
        "samples": samples,
        "seed": 0,
        "threshold": 0.5,
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "rois": [],
        "forms": [],
        "network_def": {
            "_target_": "manymask.inference.bundle.MaskNetwork",
            "folder": "$@bundle_root + '/models'",
            "samples": "@samples",
            "seed": "@seed",
            "sampler": "@sampler",
            "steps": "@steps",
            "name": name,
        },
        "network": "$@network_def.to(@device)",
        "dataset": {"_target_": "manymask.inference.bundle.FolderOfImages", "folder": "@dataset_dir"},
        "inferer": {"_target_": "monai.inferers.SimpleInferer"},
        "evaluator": {
            "_target_": "manymask.inference.bundle.FolderEvaluator",
            "network": "@network",
            "dataset": "@dataset",
            "out": "@output_dir",
            "threshold": "@threshold",
            "rois": "@rois",
            "forms": "@forms",
        },
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def metadata(trained: TrainedModel, samples: int) -> dict[str, Any]:
    """What metadata.json says.

    Args:
        trained: the model.
        samples: number of masks per image.

    Returns:
        The fields of MONAI's schema.
    """
    use, size = trained.intended, trained.recipe.size
    tensor = {"type": "image", "format": "magnitude", "spatial_shape": [size, size], "dtype": "float32",
              "value_range": [0, 1], "is_patch_data": trained.recipe.crop}  # fmt: skip
    channels = {str(k): name for k, name in enumerate("RGB" if trained.recipe.channels == 3 else ["grey"])}
    masks = {str(k): f"mask {k + 1}" for k in range(samples)}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by manymask {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"manymask": __version__},
        "name": trained.record.name,
        "task": use.purpose or "Draws several plausible masks for one medical image.",
        "description": "Latent diffusion that draws several plausible masks for one image. Their mean is a confidence map.",
        "authors": "The manymask developers",
        "copyright": f"Licence of the weights: {trained.licence.tag}; see LICENSE",
        "data_source": use.trained_on or trained.recipe.dataset,
        "data_type": ", ".join(use.modality),
        "pred_classes": "each channel is one plausible mask, as probabilities",
        "intended_use": "Research on segmentation and on disagreement between experts. Not for diagnosis or treatment.",
        "references": [PAPER],
        "network_data_format": {
            "inputs": {"image": {**tensor, "num_channels": trained.recipe.channels, "channel_def": channels}},
            "outputs": {"pred": {**tensor, "format": "segmentation", "num_channels": samples, "channel_def": masks}},
        },
    }


def _readme(trained: TrainedModel) -> str:
    rois = " --rois '[[210,145]]'" if trained.recipe.crop else ""
    return f"""# {trained.record.name}: a MONAI bundle

```bash
pip install 'manymask[bundle]'
cd THIS FOLDER
python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir OUT{rois}
```

It writes what `manymask segment IMAGES --out OUT` writes: a folder for each image with its masks, confidence and consensus.
`--samples`, `--seed`, `--threshold`, `--sampler`, `--steps`, `--rois` (centres of regions) and `--forms` (png, nifti, dicom)
can be given. The network alone takes images in [0, 1] and gives the probabilities of all masks as channels.

"""


def _body(card: str) -> str:
    """A model card without the metadata of the Hub."""
    return card.split("\n---\n", 1)[-1] if card.startswith("---\n") else card
