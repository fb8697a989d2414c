"""HEIC, HEIF and AVIF, as phones write them: pillow-heif and Pillow's own AVIF make Pillow read them (extra `heif`)."""

import re
from functools import cache
from pathlib import Path

from PIL import features

from manymask.errors import MissingExtraError
from manymask.extras import require

SUFFIXES = (".heic", ".heif", ".hif", ".avif")
HEAD = rb"[\s\S]{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|avi[fs])"  # the first twelve bytes
_AVIF = (b"avif", b"avis")


def check_readable(path: Path) -> None:
    """`MissingExtraError` for a HEIC, HEIF or AVIF file whose decoder is not installed; nothing for other files."""
    with path.open("rb") as file:
        head = file.read(12)
    if not re.match(HEAD, head):
        return
    if head[8:12] in _AVIF:
        if not features.check("avif"):
            message = "reading AVIF needs the extra `heif` with Pillow 11.3: pip install 'manymask[heif]'"
            raise MissingExtraError(message, extra="heif", package="pillow")
        return
    require("heif", "reading HEIC", "pillow_heif")
    _register()


def is_heif(path: Path) -> bool:
    """Whether the name ends like such a file."""
    return path.suffix.lower() in SUFFIXES


@cache
def _register() -> None:
    """Makes Pillow open HEIF. The pixels come upright as the file says, and the orientation in its EXIF is taken out."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
