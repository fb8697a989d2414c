"""manymask: many plausible masks for one medical image, so that one sees where experts would disagree."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Segmenter"]

if TYPE_CHECKING:
    from manymask.hub import Segmenter


def __getattr__(name: str) -> Any:
    """`Segmenter` is imported when first asked for: the command line's help should not wait for torch."""
    if name == "Segmenter":
        from manymask.hub import Segmenter

        return Segmenter
    raise AttributeError(name)
