"""What the masks of a model show, as SNOMED CT codes it."""

from dataclasses import dataclass

Code = tuple[str, str]  # its number and its meaning


@dataclass(frozen=True)
class Finding:
    """What is marked, and where in the body if that is known."""

    finding: Code = ("52988006", "Lesion")
    region: Code | None = None
