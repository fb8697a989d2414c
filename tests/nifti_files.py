"""Reading NIfTI in tests."""

from pathlib import Path

from manymask.io.image import Picture
from manymask.io.nifti import nifti_slices
from manymask.io.window import Window


def read_nifti(path: Path, window: Window | None = None) -> list[Picture]:
    """Every slice of a file; see `nifti_slices`."""
    return list(nifti_slices(path, window))
