"""What the shipped models and one small model of every kind give, number by number, as it was recorded.

A change of the code that is not meant to change results must leave this file as it is. Where a definition changes on
purpose, or shipped weights are replaced, record again and say so in the commit: `python -m tests.hub.test_golden NAME…`.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import manymask
from manymask.data.case import Batch
from manymask.ensemble import fuse
from manymask.hub.model_folder import load_model
from tests.factories import CODECS, SEGMENTERS, answer, batch, build

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("golden.json")
EXAMPLE = Path(manymask.__file__).parent / "serving" / "static" / "examples" / "ISIC_0010249.jpg"
SHIPPED = sorted(path.name for path in (ROOT / "models").iterdir() if (path / "config.json").exists())
TOLERANCE = 1e-4  # other processors add in another order: 1.4e-5 lay between two of them after ten steps of a sampler
pytestmark = pytest.mark.usefixtures("one_thread")  # as it was recorded


def fingerprint(tensor: torch.Tensor) -> dict[str, Any]:
    """Mean, standard deviation and 24 evenly spaced values; the hash tells whether every bit is equal."""
    flat = tensor.detach().float().contiguous().flatten().numpy()
    places = np.linspace(0, flat.size - 1, min(24, flat.size)).astype(int)
    return {
        "shape": list(tensor.shape),
        "mean": float(flat.mean(dtype=np.float64)),
        "std": float(flat.std(dtype=np.float64)),
        "values": [float(v) for v in flat[places]],
        "sha256": hashlib.sha256(flat.tobytes()).hexdigest(),
    }


def photo(size: int) -> torch.Tensor:
    """A bundled dermoscopic image, (1, 3, size, size)."""
    pixels = np.asarray(Image.open(EXAMPLE).convert("RGB").resize((size, size), Image.Resampling.BOX))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def ct_crop(size: int) -> torch.Tensor:
    """A bright nodule with a soft edge, a vessel and a chest wall on dark lung, (1, 1, size, size)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    nodule = torch.sigmoid((9 - ((x - 66).float() ** 2 + 1.4 * (y - 61).float() ** 2).sqrt()) / 1.5)
    vessel = 0.6 * torch.exp(-(((x - 0.7 * y - 5).float()) ** 2) / 12)
    wall = 0.9 * torch.sigmoid((x + y - 215).float() / 3)
    return (0.15 + 0.8 * torch.maximum(torch.maximum(nodule, vessel), wall)).clamp(0, 1)[None, None]


def disk(size: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (((x - size / 2) ** 2 + (y - size / 2) ** 2) < (size / 5) ** 2).float()[None, None]


@torch.no_grad()
def shipped(name: str) -> dict[str, Any]:
    """Latents, two masks and their confidence, with the model's own sampler and orientations."""
    folder = ROOT / "models" / name
    trained = load_model(folder)
    recipe, model = trained.recipe, trained.model
    image = photo(recipe.size) if recipe.channels == 3 else ct_crop(recipe.size)
    masks = model.sample_all(Batch(["golden"], image), 2, seed=3)
    weights = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors"))))
    return {
        "weights": weights.hexdigest(),
        "input": fingerprint(image),
        "image_latent": fingerprint(model.image_codec.encode(image)),
        "mask_latent": fingerprint(model.mask_codec.encode(disk(recipe.size))),
        "mask_decoded": fingerprint(model.mask_codec.decode(model.mask_codec.encode(disk(recipe.size)))),
        "masks": fingerprint(masks),
        "confidence": fingerprint(fuse(masks).confidence),
    }


def small(name: str) -> dict[str, Any]:
    """What a small model answers, and the terms of its training loss."""
    model = build(name)
    found = {"answer": fingerprint(answer(model, batch(), 3))}
    return found | {term: fingerprint(value) for term, value in model.train()(batch()).items()}


def recorded(name: str) -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))[name]


def agree(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for part, numbers in expected.items():
        if isinstance(numbers, dict):
            mine = {key: found[part][key] for key in ("shape", "mean", "std", "values")}
            theirs = {key: numbers[key] for key in mine}
            assert mine["shape"] == theirs["shape"], part
            for key in ("mean", "std", "values"):
                assert mine[key] == pytest.approx(theirs[key], rel=TOLERANCE, abs=TOLERANCE), f"{part}: {key}"
        else:
            assert found[part] == numbers, f"{part} differ: shipped weights were replaced, record again"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_gives_what_was_recorded(name):
    agree(shipped(name), recorded(name))


@pytest.mark.parametrize("name", [*SEGMENTERS, *CODECS])
def test_small_model_gives_what_was_recorded(name):
    agree(small(name), recorded(name))


def record(names: list[str]) -> None:
    """Writes these entries anew, all if none is named."""
    torch.set_num_threads(1)
    old = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    everything: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
        *((name, shipped) for name in SHIPPED),
        *((name, small) for name in (*SEGMENTERS, *CODECS)),
    ]
    found = {name: of(name) if name in names or not names else old[name] for name, of in everything}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items())
    RECORD.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    record(sys.argv[1:])
