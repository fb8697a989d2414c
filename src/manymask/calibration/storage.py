"""Frozen dataclasses of numbers and arrays as JSON, and back with every value checked."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from manymask.errors import InputError

T = TypeVar("T")

MOST_VALUES = 1_000_000  # of one array
DIGITS = 7  # significant ones of what is written


def encode(value: Any) -> Any:
    """A dataclass of numbers, words, arrays and such dataclasses as JSON-able values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return encode(value.tolist())
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def decode(kind: type[T], value: Any, where: str) -> T:
    """The inverse of `encode`.

    Args:
        kind: a dataclass.
        value: as read from JSON.
        where: how errors name its place.

    Returns:
        An object of this class.

    Raises:
        InputError: a field is missing, unknown, of another type or not finite.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: the fields of {kind.__name__} are missing")
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if value.keys() != names:
        raise InputError(f"{where}: fields {', '.join(sorted(value.keys() ^ names))[:80]} are missing or unknown")
    return kind(**{name: _decoded(hints[name], value[name], f"{where}.{name}") for name in value})


def _decoded(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(get_args(kind), value, where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: not a list")
        return tuple(_decoded(get_args(kind)[0], item, where) for item in value)
    if kind is np.ndarray:
        return _array(value, where)
    if dataclasses.is_dataclass(kind):
        return decode(kind, value, where)  # type: ignore[arg-type]
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise InputError(f"{where}: not a value of type {getattr(kind, '__name__', kind)}")


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """None, a plain value, or the dataclass whose fields these are."""
    if value is None and type(None) in kinds:
        return None
    classes = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    for kind in classes:
        if isinstance(value, dict) and value.keys() == {field.name for field in dataclasses.fields(kind)}:
            return _decoded(kind, value, where)
    if classes:
        raise InputError(
            f"{where}: not the fields of {' or '.join(str(getattr(kind, '__name__', kind)) for kind in classes)}"
        )
    return _decoded(next(kind for kind in kinds if kind is not type(None)), value, where)


def _array(value: Any, where: str) -> np.ndarray:
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: not an array of numbers") from None
    if not isinstance(value, list) or found.size > MOST_VALUES or not np.isfinite(found).all():
        raise InputError(f"{where}: not an array of finite numbers")
    return found
