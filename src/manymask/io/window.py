"""Windows: which grey values are shown, from black to white. Grey in, uint8 out."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from manymask.errors import ConfigError
from manymask.io.depth import above, shown_range

# Level and width in Hounsfield units: lung and soft tissue as OHIF and Weasis have them, bone as Radiopaedia lists it.
NAMED = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0), "bone": (400.0, 1800.0)}


@dataclass(frozen=True)
class Window:
    """`header`: what the file says, else all there is; `full`: from the darkest to the brightest pixel of the image;
    `fixed`: `width` grey values around `centre`, in the modality's unit (Hounsfield units for CT)."""

    kind: Literal["header", "full", "fixed"] = "header"
    centre: float = 0.0
    width: float = 0.0


def parse_window(text: str) -> Window:
    """`lung`, `mediastinum`, `bone`, `header`, `full` or `CENTRE,WIDTH`; anything else is a `ConfigError`."""
    name = text.strip().lower()
    if name == "header":
        return Window("header")
    if name == "full":
        return Window("full")
    if name in NAMED:
        return Window("fixed", *NAMED[name])
    try:
        centre, width = (float(part) for part in name.split(","))
    except ValueError:
        choice = ", ".join((*NAMED, "header", "full"))
        raise ConfigError(
            f"{text!r} is no window; choose {choice}, or give CENTRE,WIDTH such as 40,400", parameter="window"
        ) from None
    if not (math.isfinite(centre) and math.isfinite(width) and width >= 1):
        raise ConfigError(f"{text!r} is no window: the width must be 1 or more", parameter="window")
    return Window("fixed", centre, width)


def stretch(values: np.ndarray, shown: np.ndarray | None = None, whole: bool = True) -> np.ndarray:
    """Any values (H, W) as uint8 from minimum (0) to maximum (255), both taken over the pixels in `shown`; where not
    `whole`, isolated outliers are left aside (`depth.shown_range`)."""
    among = values if shown is None or shown.all() else values[shown]
    if among.size == 0 or among.min() == among.max():
        return np.zeros(values.shape, np.uint8)
    low, high = (float(among.min()), float(among.max())) if whole else shown_range(among)
    share = above(values, low)
    share /= high - low
    return to_byte(share)


def fixed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Values (H, W) through a window as uint8 (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return to_byte(1 / (1 + np.exp(np.clip(-4 * above(values, centre) / width, -80, 80))))
    if function == "LINEAR_EXACT":
        return to_byte(above(values, centre) / width + 0.5)
    if width <= 1:
        return np.where(above(values, centre - 0.5) > 0, 255, 0).astype(np.uint8)
    return to_byte(above(values, centre - 0.5) / (width - 1) + 0.5)


def to_byte(share: np.ndarray) -> np.ndarray:
    """[0, 1] to 0 … 255, what lies outside cut off. Large images are the rule: no copies but this one."""
    scaled = np.clip(share, 0, 1)
    scaled *= 255
    result: np.ndarray = np.round(scaled, out=scaled).astype(np.uint8)
    return result


def header_window(header: Any) -> tuple[float, float, str] | None:
    """The first centre and width of a VOI LUT module or functional group, with its function; None if not usable."""
    try:
        centre, width = (float(np.atleast_1d(header[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    least = 1 if function == "LINEAR" else 0
    usable = math.isfinite(centre) and math.isfinite(width) and width >= least and width > 0
    return (centre, width, function) if usable else None
