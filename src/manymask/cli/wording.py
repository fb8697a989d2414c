"""What the command line adds to errors: the flags of the verb that they are about."""

from collections.abc import Collection

from manymask.errors import ConfigError, ManymaskError

# fields of errors that have another name, or a value with a form of its own, on the command line
_FORMS = {"rois": "--roi X,Y", "roi": "--roi X,Y", "masks": "--masks NAME"}
_NAMES = {"rois": "roi"}


def flag(parameter: str) -> str:
    """The flag of a parameter, as in `--mask-labels` for `mask_labels`."""
    return _FORMS.get(parameter, "--" + parameter.replace("_", "-"))


def worded(error: ManymaskError, accepted: Collection[str]) -> str:
    """What an error says on one line, followed by those of its parameters that the verb accepts, as flags.

    Args:
        error: the error to show.
        accepted: the names of the verb's parameters.

    Returns:
        The line; below it one for each of its details.
    """
    parameters = ([error.parameter] if error.parameter else []) + list(error.remedies)
    flags = [flag(name) for name in parameters if _NAMES.get(name, name) in accepted]
    said = str(error.reworded(*error.args))  # without the details
    if flags:
        colon = ":" if said.endswith(":") else ""
        said = f"{said.removesuffix(colon)} ({', '.join(dict.fromkeys(flags))}){colon}"
    return "\n  ".join(" ".join(line.splitlines()) for line in (said, *error.details))


def at_least_one(flag: str, value: int | None) -> None:
    """`ConfigError` for a flag that counts something and counts nothing."""
    if value is not None and value < 1:
        raise ConfigError(f"{flag} must be at least 1, not {value}")


def in_range(flag: str, value: float | None, low: float, high: float) -> None:
    """`ConfigError` for a flag outside of what it may be."""
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{flag} must lie in {low} … {high}, not {value}")
