"""Flags of the last release, which still work and print the new name; they go with the next one."""

import sys
from collections.abc import Iterator, Sequence

from manymask.migrations import RENAMED_CLASSES, RENAMED_FIELDS

FLAGS = {"--turns": "--orientations"}
VERBS = ("evaluate", "publish")  # that have these flags


def _dashed(name: str) -> str:
    """`GaussianDiffusion` and `condition_dropout` as the command line spells them."""
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
    return words.replace("_", "-")


def _recipe_flags() -> dict[str, str]:
    """The last word of `--recipe.…` flags; a word that is still in use somewhere, as `channels` is, is not translated."""
    used = {new for fields in RENAMED_FIELDS.values() for new in fields.values()}
    pairs = {(old, new) for fields in RENAMED_FIELDS.values() for old, new in fields.items() if old not in used}
    olds = [old for old, _ in pairs]
    return {_dashed(old): _dashed(new) for old, new in pairs if olds.count(old) == 1}


def renamed(arguments: Sequence[str]) -> list[str]:
    """The arguments with old flags replaced, each with one line on stderr."""
    return list(_replaced(arguments))


def _replaced(arguments: Sequence[str]) -> Iterator[str]:
    fields = _recipe_flags()
    classes = {_dashed(old): _dashed(new) for old, new in RENAMED_CLASSES.items()}
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        new = FLAGS.get(flag, flag) if arguments[0] in VERBS else flag
        path, dot, last = flag.rpartition(".")
        if flag.startswith("--recipe.") and last in fields:
            new = path + dot + fields[last]
        path, colon, kind = flag.rpartition(":")
        if flag.startswith("recipe.") and kind in classes:
            new = path + colon + classes[kind]
        if new != flag:
            print(f"manymask: {flag} is now {new}; the old name goes with the next release", file=sys.stderr)
        yield new + equals + value
