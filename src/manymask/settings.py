"""Settings are frozen dataclasses; this file writes them as plain dictionaries and reads them back."""

import dataclasses
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from manymask.errors import UserError


def to_dict(setting: Any) -> Any:
    """A setting as JSON-able values; each dataclass names its class under `kind`."""
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):
        values = {f.name: to_dict(getattr(setting, f.name)) for f in dataclasses.fields(setting)}
        return {"kind": type(setting).__name__, **values}
    if isinstance(setting, (tuple, list)):
        return [to_dict(item) for item in setting]
    return setting


def from_dict(expected: Any, value: Any, where: str = "config") -> Any:
    """The inverse of `to_dict`: builds what the annotation `expected` allows, or raises `UserError` naming the place."""
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return _from_union(expected, value, where)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return _from_fields(expected, value, where)
    if origin is tuple:
        inner = get_args(expected)[0]
        return tuple(from_dict(inner, item, where) for item in value)
    if origin is Literal:
        if value not in get_args(expected):
            raise UserError(f"{where}: {value!r} is none of {', '.join(map(repr, get_args(expected)))}")
        return value
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(expected, type) and not isinstance(value, expected):
        raise UserError(f"{where}: {value!r} is not of type {expected.__name__}")
    return value


def _from_union(expected: Any, value: Any, where: str) -> Any:
    members = get_args(expected)
    if value is None and type(None) in members:
        return None
    if not isinstance(value, dict):
        plain = [m for m in members if not dataclasses.is_dataclass(m) and m is not type(None)]
        if not plain:
            raise UserError(f"{where}: expected one of {_names(members)}, found {value!r}")
        return from_dict(plain[0], value, where)
    for member in members:
        if getattr(member, "__name__", None) == value.get("kind"):
            return from_dict(member, value, where)
    raise UserError(f"{where}: kind {value.get('kind')!r} is none of {_names(members)}")


def _from_fields(expected: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict) or value.get("kind", expected.__name__) != expected.__name__:
        raise UserError(f"{where}: expected the settings of {expected.__name__}, found {value!r}")
    hints = get_type_hints(expected)
    given = {name: item for name, item in value.items() if name != "kind"}
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise UserError(f"{where}: {expected.__name__} has no setting {', '.join(unknown)}")
    return expected(**{name: from_dict(hints[name], item, f"{where}.{name}") for name, item in given.items()})


def _names(members: tuple[Any, ...]) -> str:
    return ", ".join(getattr(m, "__name__", str(m)) for m in members)


def difference(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines that tell where two results of `to_dict` differ: `recipe.batch: 16 → 32`.

    What `old` lacks does not count.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for k in old for line in difference(old.get(k), new.get(k), f"{where}.{k}".lstrip("."))]
    return [] if old == new else [f"{where}: {old} → {new}"]


@contextmanager
def using(model: Any, setting: Any) -> Iterator[None]:
    """The model under another setting of its use, its weights as they are; the old one stands again at the end."""
    old, model.setting = model.setting, setting
    try:
        yield
    finally:
        model.setting = old
