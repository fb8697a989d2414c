"""What `segment` and `triage` start from: the images, and the model for them."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from manymask.cli.wording import worded

if TYPE_CHECKING:
    from manymask.inference.entries import Entry
    from manymask.inference.tally import RunSummary


def found_entries(inputs: Sequence[str], verb: Callable[..., Any]) -> "tuple[list[Entry], RunSummary]":
    """What there is to segment, and the counts to go on with; what cannot be segmented is printed.

    Args:
        inputs: as the user named them.
        verb: whose flags errors may name.
    """
    from manymask.inference.entries import announce, find_entries
    from manymask.inference.tally import RunSummary

    entries, found = find_entries(inputs)
    tally = RunSummary(worded=partial(worded, accepted=inspect.signature(verb).parameters))
    announce(found, tally)
    return entries, tally


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
