"""What `segment` and `triage` start from: the images, and the model for them."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from manymask.cli.parsing import parameters_of
from manymask.cli.wording import worded

if TYPE_CHECKING:
    from manymask.inference.entries import Entry
    from manymask.inference.tally import RunSummary


def tally_of(verb: Callable[..., Any]) -> "RunSummary":
    """Counts of a run, whose errors name the flags of a verb."""
    from manymask.inference.tally import RunSummary

    return RunSummary(worded=partial(worded, accepted=parameters_of(verb)))


def found_entries(inputs: Sequence[str], tally: "RunSummary") -> "list[Entry]":
    """What there is to segment; what cannot be segmented is printed and counted.

    Args:
        inputs: as the user named them.
        tally: the counts.
    """
    from manymask.inference.entries import announce, find_entries

    entries, found = find_entries(inputs)
    announce(found, tally)
    return entries


def chosen_model(model: str | None, entries: "Sequence[Entry]") -> str:
    """The model as it was named, or that for these entries, which is announced on stderr.

    Args:
        model: as the user named it.
        entries: what there is to segment.

    Raises:
        ConfigError: the entries do not tell which model they want; lists the choices.
    """
    if model is not None:
        return model
    from manymask.hub.catalogue import default_model
    from manymask.inference.cautions import modalities

    found = default_model(modalities(entries))
    print(f"manymask: taking the model {found.name}. {found.purpose} (--model takes another)", file=sys.stderr)
    return found.name
