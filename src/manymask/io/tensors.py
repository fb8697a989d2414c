"""Tensors in safetensors files: written whole, compared with what is wanted before anything is read."""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from manymask.errors import ConfigError, decoding
from manymask.io.atomic import atomic_file
from manymask.io.text import check_regular

MOST_BYTES = 20_000_000_000
Shapes = Mapping[str, torch.Size]  # by name


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failed writes inside name `path`, whoever noticed that the disk is full."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, f"cannot be written: {error}", str(path)) from None
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """All of them or none: a kill at any moment, or a full disk, leaves the file that was there."""
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with writing(path), atomic_file(path) as beside:
        save_file(whole, beside, metadata=metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """What was written beside the tensors. Raises `InputError` for a damaged file."""
    check_regular(path, MOST_BYTES)
    with decoding(path), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def read_tensors(path: Path, wanted: Shapes | None = None) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU. Raises `ManymaskError` for a damaged file, and for one that does not hold exactly the
    `wanted` names and shapes, which are compared before a tensor is read."""
    check_regular(path, MOST_BYTES)
    with decoding(path):
        if wanted is not None:
            with safe_open(path, framework="pt") as file:
                found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            check_shapes(found, wanted, path)
        return load_file(path)


def shapes(module: nn.Module) -> Shapes:
    """Of all that its state holds."""
    return {name: value.shape for name, value in module.state_dict().items()}


def check_shapes(found: Shapes, wanted: Shapes, place: Path | str) -> None:
    """`ConfigError` naming the first tensor that is missing, too many, or of another shape."""
    for name in wanted:
        if name not in found:
            raise ConfigError(
                f"{place} lacks the weights {name}: they are those of another model, or damaged", path=place
            )
        if found[name] != wanted[name]:
            shapes = " × ".join(map(str, found[name])), " × ".join(map(str, wanted[name]))
            raise ConfigError(
                f"{place}: {name} is {shapes[0] or 'one number'}, this model takes {shapes[1] or 'one number'}",
                path=place,
            )
    extra = next((name for name in found if name not in wanted), None)
    if extra is not None:
        raise ConfigError(f"{place} holds weights that this model has no place for: {extra[:80]!r}", path=place)
