"""manymask: many plausible masks for one medical image, so that one sees where experts would disagree."""

from typing import TYPE_CHECKING, Any

from manymask._version import __version__

__all__ = ["Segmenter", "__version__"]

if TYPE_CHECKING:
    from manymask.inference.segmenter import Segmenter


def __getattr__(name: str) -> Any:
    """`Segmenter` is imported when first asked for: the command line's help should not wait for torch."""
    if name == "Segmenter":
        from manymask.inference.segmenter import Segmenter

        return Segmenter
    raise AttributeError(name)
