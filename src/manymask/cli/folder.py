"""The flags by which `evaluate` and `calibrate` read a plain folder of images and masks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from manymask.cli import flags
from manymask.cli.parsing import NO_DEFAULT

if TYPE_CHECKING:
    from manymask.evaluation.external import FolderReading


@dataclass(frozen=True)
class FolderFlags:
    """How a folder of images and masks is read.

    Args:
        mask_threshold: foreground is what reaches this value, in masks that are not black and white.
        mask_labels: foreground is what holds one of these values or names.
        invert: foreground and background are exchanged in the mask files.
        masks: where several could be meant, the folders, COCO files or endings of masks to take.
        parts: several masks of one image are parts of one mask.
        skip_bad: leave out what cannot be used, and name it.
    """

    mask_threshold: Annotated[float | None, NO_DEFAULT] = None
    mask_labels: Annotated[tuple[str, ...], flags.LABELS] = ()
    invert: Annotated[bool, NO_DEFAULT] = False
    masks: Annotated[tuple[str, ...], flags.NAMES] = ()
    parts: Annotated[bool, NO_DEFAULT] = False
    skip_bad: Annotated[bool, NO_DEFAULT] = False

    @property
    def reading(self) -> "FolderReading":
        """The same as the library takes it."""
        from manymask.cli.data import labels_of
        from manymask.evaluation.external import FolderReading
        from manymask.io.masks import MaskReading

        how = MaskReading(self.mask_threshold, labels_of(self.mask_labels), self.invert)
        return FolderReading(how, self.masks, self.parts, self.skip_bad)
