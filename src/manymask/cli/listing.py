"""`models` and `recipes`: what there is to segment with, and what can be trained."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence

_LEAST = 24  # characters of the last column


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    """Lines of a table: the last column is wrapped at the width of the terminal, the others are never cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    width = shutil.get_terminal_size().columns
    for row in rows:
        start = indent + "".join(f"{cell:{wide}}  " for cell, wide in zip(row, widths, strict=False))
        lines = textwrap.wrap(row[-1], max(width - len(start), _LEAST)) or [""]
        yield (start + lines[0]).rstrip()
        yield from (" " * len(start) + line for line in lines[1:])


def models() -> None:
    """The models that have a name: what each is for, its licence, Dice on test, and size."""
    from manymask.errors import ConfigError
    from manymask.hub.catalogue import model_entries

    entries = model_entries()
    if not entries:
        raise ConfigError("no model is installed that has a name; see the section Install of the documentation")
    rows = [("name", "input", "Dice", "size", "for")]
    for each in entries:
        dice = "–" if each.dice is None else f"{each.dice:.3f}"
        size = f"{each.size}²" + (" region" if each.crop else "")
        text = " ".join(part for part in (each.purpose, f"Licence: {each.licence}." if each.licence else "") if part)
        rows.append((each.name, size, dice, f"{each.bytes / 1e6:.0f} MB", text))
    print("\n".join(columns(rows)))
    print(
        "\nDice: of the consensus on its own test images, so not comparable between rows. manymask segment IMAGE --model NAME"
    )


def recipes(*, all: bool = False) -> None:
    """What can be trained, what each recipe is for, and which to take first.

    Args:
        all: every recipe, baselines included, with what it differs in.
    """
    from manymask.cli.tables import recipe_rows

    print("\n".join(columns(recipe_rows(all))))
    if not all:
        print("\n* take this one first. manymask recipes --all lists the baselines and settings of each")
