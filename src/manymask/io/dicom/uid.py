"""UIDs of DICOM objects, derived from what they hold: a run that is repeated makes the same objects, not further ones.

Into the UID go the images, the model's weights, the settings and the masks themselves, so that objects of one UID hold
equal masks. They differ in nothing but their dates.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def series_uid(source: str, kind: str, parameters: Mapping[str, Any]) -> str:
    """Of the SEGs of one kind that a model draws on one series, by the UID of that series."""
    return derived_uid("series", source, kind, parameters)


def instance_uid(sources: Sequence[str], kind: str, parameters: Mapping[str, Any], values: np.ndarray) -> str:
    """Of one SEG, by the UIDs of its images (with the number of the frame among several) and by what it holds."""
    content = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
    content.update(np.ascontiguousarray(values).data.cast("B"))
    return derived_uid("instance", sorted(sources), kind, parameters, content.hexdigest())


def derived_uid(*parts: Any) -> str:
    """Of these parts: 2.25. and 128 bits of a hash (PS3.5 B.2)."""
    text = json.dumps(parts, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"
