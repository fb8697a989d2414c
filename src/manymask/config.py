"""Settings are frozen dataclasses; this file writes them as plain dictionaries and reads them back."""

import dataclasses
import reprlib
import types
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from manymask.errors import ConfigError
from manymask.limits import MOST_ITEMS, Bounds, limits_of, outside

SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 2, 80, 40, 80
MOST_DEPTH = 50  # settings within settings


def to_dict(setting: Any) -> Any:
    """A setting as JSON-able values; each dataclass names its class under `kind`."""
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):
        values = {f.name: to_dict(getattr(setting, f.name)) for f in dataclasses.fields(setting)}
        return {"kind": type(setting).__name__, **values}
    if isinstance(setting, Enum):
        return setting.value
    if isinstance(setting, (tuple, list)):
        return [to_dict(item) for item in setting]
    return setting


def chosen(setting: Any) -> Any:
    """As `to_dict`, without the fields that have their default: what a later version adds changes nothing here."""
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):
        named = {f.name: getattr(setting, f.name) for f in dataclasses.fields(setting) if not _is_default(f, setting)}
        return {"kind": type(setting).__name__, **{name: chosen(value) for name, value in named.items()}}
    return [chosen(item) for item in setting] if isinstance(setting, (tuple, list)) else to_dict(setting)


def _is_default(field: "dataclasses.Field[Any]", setting: Any) -> bool:
    if _required(field):
        return False
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(getattr(setting, field.name) == default)


def from_dict(expected: Any, value: Any, where: str = "config") -> Any:
    """The inverse of `to_dict`: builds what the annotation `expected` allows, or raises `ConfigError` naming the place.

    Numbers are held to the bounds of `limits`, or of `field(metadata={"limits": (least, most)})`.
    """
    return _build(expected, value, where)


def _build(expected: Any, value: Any, where: str, bounds: Bounds | None = None) -> Any:
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return _from_union(expected, value, where, bounds)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return _from_fields(expected, value, where)
    if origin is tuple:
        return _from_list(get_args(expected)[0], value, where, bounds)
    if isinstance(expected, type) and issubclass(expected, Enum):
        words = [member.value for member in expected]
        if value not in words:
            raise ConfigError(f"{where}: {_shown(value)} is none of {', '.join(map(repr, words))}")
        return expected(value)
    if origin is Literal:
        if type(value) is not str or value not in get_args(expected):
            raise ConfigError(f"{where}: {_shown(value)} is none of {', '.join(map(repr, get_args(expected)))}")
        return value
    return _plain(expected, value, where, bounds)


def _plain(expected: Any, value: Any, where: str, bounds: Bounds | None) -> Any:
    """A number, a word or a switch."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = isinstance(value, expected) and (number or expected is not int)
    if not fits and not (expected is float and number):
        raise ConfigError(f"{where}: {_shown(value)} is not of type {expected.__name__}")
    wrong = outside(bounds, value) if number else None
    if wrong:
        raise ConfigError(f"{where}: {wrong}")
    return float(value) if expected is float else value


def _from_list(inner: Any, value: Any, where: str, bounds: Bounds | None) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, found {_shown(value)}")
    if len(value) > MOST_ITEMS:
        raise ConfigError(f"{where}: {len(value)} values are more than {MOST_ITEMS}")
    return tuple(_build(inner, item, where, bounds) for item in value)


def _from_union(expected: Any, value: Any, where: str, bounds: Bounds | None) -> Any:
    members = get_args(expected)
    if value is None and type(None) in members:
        return None
    if not isinstance(value, dict):
        plain = [m for m in members if not dataclasses.is_dataclass(m) and m is not type(None)]
        if not plain:
            raise ConfigError(f"{where}: expected one of {_names(members)}, found {_shown(value)}")
        return _build(plain[0], value, where, bounds)
    for member in members:
        if dataclasses.is_dataclass(member) and getattr(member, "__name__", None) == value.get("kind"):
            return _from_fields(member, value, where)
    raise ConfigError(f"{where}: kind {_shown(value.get('kind'))} is none of {_names(members)}")


def _from_fields(expected: Any, value: Any, where: str) -> Any:
    name = expected.__name__
    if not isinstance(value, dict) or value.get("kind", name) != name:
        raise ConfigError(f"{where}: expected the settings of {name}, found {_shown(value)}")
    if where.count(".") > MOST_DEPTH:
        raise ConfigError(f"{where[:80]}…: nested too deeply")
    hints, fields = get_type_hints(expected), {f.name: f for f in dataclasses.fields(expected)}
    given = {key: item for key, item in value.items() if key != "kind"}
    unknown = sorted(str(key) for key in given if key not in fields)
    if unknown:
        raise ConfigError(f"{where}: {name} has no setting {repr(', '.join(unknown)[:80])[1:-1]}")
    missing = [f.name for f in fields.values() if f.name not in given and _required(f)]
    if missing:
        raise ConfigError(f"{where}: {name} lacks the setting {', '.join(missing)}")
    bounds = {key: fields[key].metadata.get("limits") or limits_of(name, key) for key in given}
    return expected(**{key: _build(hints[key], item, f"{where}.{key}", bounds[key]) for key, item in given.items()})


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: Any) -> str:
    """The start of a value, in one line; of nested lists only the outermost."""
    try:
        text = SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a long {type(value).__name__}"
    return text if len(text) <= 80 else text[:80] + "…"


def _names(members: tuple[Any, ...]) -> str:
    return ", ".join(getattr(m, "__name__", str(m)) for m in members)


def difference(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines that tell where two results of `to_dict` differ: `recipe.batch: 16 → 32`.

    What `old` lacks does not count.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for k in old for line in difference(old.get(k), new.get(k), f"{where}.{k}".lstrip("."))]
    return [] if old == new else [f"{where}: {_plainly(old)} → {_plainly(new)}"]


def _plainly(value: Any) -> str:
    return value[:80] if isinstance(value, str) else _shown(value)
