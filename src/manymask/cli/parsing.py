"""From arguments to a call: tyro reads the flags, a mistake becomes one `ConfigError`, and None is not offered.

The module `tyro._errors` is private, so pyproject.toml bounds tyro's version.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro import _errors

from manymask.cli import flags
from manymask.errors import ConfigError, guesses

_CONFIG = (tyro.conf.DisallowNone,)
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]
_INLINE = get_args(tyro.conf.OmitArgPrefixes[int])[1]  # a dataclass whose flags stand among those of the verb
_REPEATED = get_args(tyro.conf.UseAppendAction[int])[1]
BRIEF = (tyro.conf.FlagCreatePairsOff,)  # a switch has no --no-SWITCH beside it in the help
NO_DEFAULT = tyro.conf.arg(help_behavior_hint="")


class _MistakeError(Exception):
    """What tyro found wrong, on its way out of tyro."""

    def __init__(self, event: _errors.ParseErrorEvent) -> None:
        self.event = event


def _raise(event: _errors.ParseErrorEvent) -> None:
    raise _MistakeError(event)


def parse(target: Any, prog: str, arguments: Sequence[str], config: Iterable[Any] = (), **options: Any) -> Any:
    """What `tyro.cli` makes of the arguments.

    Args:
        target: a dataclass, or a function.
        prog: how the command is called in the help.
        arguments: those after the verb.
        config: further markers of tyro.
        **options: as `tyro.cli` takes them.

    Raises:
        ConfigError: the arguments are not those of `target`; one line.
    """
    _check_once(target, arguments, options.get("default"))
    options |= {"prog": prog, "config": (*_CONFIG, *config)}
    try:
        with _errors.on_parse_error(_raise):
            return tyro.cli(target, args=list(arguments), **options)
    except _MistakeError as mistake:
        event = mistake.event
    raise ConfigError(
        _worded(event, lambda: [flag for flag in flags_of(target, options.get("default")) if flag[:2] == "--"])
    )


def parse_call(verb: Callable[..., Any], prog: str, arguments: Sequence[str], computes: bool) -> Callable[[], Any]:
    """A verb with its arguments, ready to be called. computes: whether its help lists `--device`."""
    call: Callable[[], Any] = parse(_bound_later(verb, computes), prog, arguments, BRIEF)
    return call


def _bound_later(verb: Callable[..., Any], computes: bool) -> Callable[..., Any]:
    """A function with the verb's flags that returns the call; a flag whose default is None or False shows none."""
    signature, hints = inspect.signature(verb), get_type_hints(verb, include_extras=True)
    for name, each in signature.parameters.items():
        notes = getattr(hints[name], "__metadata__", ())
        if (
            each.default is None
            or each.default is False
            or (each.default == () and not any(note is _REPEATED for note in notes))
        ):
            hints[name] = Annotated[hints[name], NO_DEFAULT]

    def later(*values: Any, device: str | None = None, **given: Any) -> Callable[[], Any]:
        return partial(verb, *values, **given)

    hints["return"] = Any
    shown = [each.replace(annotation=hints[name]) for name, each in signature.parameters.items()]
    if computes:  # the device is that of the process, so it is taken out of the arguments before
        hints["device"] = Annotated[str | None, flags.DEVICE]
        shown.append(
            inspect.Parameter("device", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints["device"])
        )
    later.__signature__ = signature.replace(parameters=shown, return_annotation=Any)  # type: ignore[attr-defined]
    later.__annotations__, later.__doc__, later.__name__ = hints, verb.__doc__, verb.__name__
    return later


def parameters_of(target: Callable[..., Any]) -> tuple[str, ...]:
    """The names of its parameters, and of the fields of those whose flags stand among its own."""
    hints, found = get_type_hints(target, include_extras=True), list[str]()
    for name in inspect.signature(target).parameters:
        inline = any(note is _INLINE for note in getattr(hints[name], "__metadata__", ()))
        found += parameters_of(get_args(hints[name])[0]) if inline else [name]
    return tuple(found)


def flags_of(target: Any, default: Any = None, prefix: str = "--") -> dict[str, tuple[str, ...]]:
    """The flags of a function or dataclass, each with the words that it may be given; none where any will do.

    Args:
        target: the function or dataclass.
        default: an instance of the dataclass, whose own settings are flags too.
        prefix: of all flags.
    """
    found = dict[str, tuple[str, ...]]()
    for flag in _flags(target, default, prefix):
        found |= dict.fromkeys((*flag.aliases, flag.name), flag.words)
        if flag.switch and prefix != "--":
            found[f"{prefix}no-{flag.name.removeprefix(prefix)}"] = ()
    return found


@dataclass(frozen=True)
class _Flag:
    """name: with its dashes; words: that it may be given; repeated: whether it may be given more than once."""

    name: str
    aliases: tuple[str, ...]
    words: tuple[str, ...]
    switch: bool
    repeated: bool


def _flags(target: Any, default: Any = None, prefix: str = "--") -> Iterator[_Flag]:
    """See `flags_of`."""
    hints = get_type_hints(target, include_extras=True)
    for name, each in inspect.signature(target).parameters.items():
        notes = getattr(hints[name], "__metadata__", ())
        if each.kind is each.POSITIONAL_ONLY or any(note is _POSITIONAL for note in notes):
            continue
        flag, inner = prefix + name.replace("_", "-"), getattr(default, name, None)
        if any(note is _INLINE for note in notes):
            yield from _flags(get_args(hints[name])[0], prefix=prefix)
        elif is_dataclass(inner) and not isinstance(inner, type):
            yield from _flags(type(inner), inner, flag + ".")
        else:
            aliases = tuple(alias for note in notes for alias in getattr(note, "aliases", None) or ())
            switch = each.default is True or each.default is False
            yield _Flag(flag, aliases, _words_of(hints[name]), switch, any(note is _REPEATED for note in notes))


def _check_once(target: Any, arguments: Sequence[str], default: Any) -> None:
    """`ConfigError` for a flag that is given again: one of its values would count, and the other be dropped in silence."""
    known = {word: flag for flag in _flags(target, default) for word in (flag.name, *flag.aliases)}
    given = set[str]()
    for word in (word.partition("=")[0] for word in arguments):
        flag = known.get(word)
        if flag is None or flag.repeated:
            continue
        if flag.name in given:
            raise ConfigError(f"{flag.name} is given more than once")
        given.add(flag.name)


def _words_of(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, however it is wrapped."""
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    return tuple(word for part in get_args(hint) for word in _words_of(part))


def _worded(event: _errors.ParseErrorEvent, flags: Callable[[], list[str]]) -> str:
    """What is wrong with the arguments, on one line."""
    more = f"({event.prog} --help)"
    match event:
        case _errors.MissingArgs() if any(token.startswith("-") for token in event.unrecognized_tokens):
            return _unknown(event.unrecognized_tokens, flags(), more)
        case _errors.MissingArgs():
            missing = [_name(each.arg) for each in event.missing_arguments]
            return f"{event.prog.removeprefix('manymask ')} needs {' and '.join(missing)} {more}"
        case _errors.UnrecognizedArgs():
            return _unknown(event.tokens, flags(), more)
        case _errors.InvalidChoice():
            choices = sorted(set(event.choices) - {"None"})
            guess = guesses(event.value, choices)
            return f"{_name(event.argument)} is one of {', '.join(choices)}, not {event.value!r}{guess}"
        case _errors.BadValue(offending_value=None):
            return f"{_name(event.argument)} needs a value {more}"
        case _errors.InstantiationFailure():
            where = f"{_name(event.argument)} " if event.argument is not None else ""
            return where + _refused(event.message)
    kind = re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()
    return f"{kind} in the arguments {more}"


def _unknown(tokens: Sequence[str], flags: Sequence[str], more: str) -> str:
    """Of arguments that nothing takes."""
    token = next((each for each in tokens if each.startswith("-")), tokens[0])
    flag = token.partition("=")[0]
    if not flag.startswith("-"):
        return f"unexpected argument {flag!r} {more}"
    near = difflib.get_close_matches(flag.strip("-"), [each.strip("-") for each in flags], 3, 0.6)
    guess = f"; did you mean {', '.join('--' + each for each in near)}?" if near else ""
    return f"there is no flag {flag}{guess} {more}"


def _name(argument: Any) -> str:
    """The long form of a flag, or what stands for a positional argument."""
    names = argument.lowered.name_or_flags
    return str(max(names, key=len)) if names and names[0].startswith("-") else str(argument.lowered.metavar)


def _refused(message: str) -> str:
    """What Python says of a value that has not the type, in words."""
    kinds = {
        "invalid literal for int() with base 10: ": "a whole number",
        "could not convert string to float: ": "a number",
    }
    for start, kind in kinds.items():
        _, found, value = message.partition(start)
        if found:
            return f"must be {kind}, not {value}"
    return "cannot be used: " + " ".join(message.split())
