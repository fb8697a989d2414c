"""LIDC-IDRI's readings (Armato et al. 2011): the raters' XML, its outlines, masks from outlines, nodules from raters.

A reading holds one session a rater, a session one `unblindedReadNodule` a nodule, that one `roi` a slice. Nodules of
3 mm and more are outlined by many points; smaller ones are marked by a single point and are no outlines.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from manymask.errors import InputError
from manymask.extras import require

RATERS = 4
SIZE_LIMIT = 64_000_000  # bytes; the largest of the distribution has about 2 million
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class Contour:
    """One closed outline on one slice: points (n, 2) as (row, column); `inclusion` is false for a hole."""

    sop_uid: str
    z: float
    inclusion: bool
    points: np.ndarray


@dataclass(frozen=True)
class Annotation:
    """The outlines that one rater (numbered from 0 within the scan) drew around one nodule."""

    rater: int
    contours: tuple[Contour, ...]


@dataclass(frozen=True)
class Reading:
    """All raters' annotations of one CT series."""

    series_uid: str
    annotations: tuple[Annotation, ...]


def read_xml(path: Path) -> Reading | None:
    """The reading in a file; None for XML of another kind (the chest X-rays have readings too). `InputError` if damaged,
    too large, or with a document type, which readings do not have and which could make a small file grow."""
    if path.stat().st_size > SIZE_LIMIT:
        raise InputError(f"{path} is larger than any reading of LIDC-IDRI ({SIZE_LIMIT // 1_000_000} MB)", path=path)
    try:
        root = ET.parse(path, ET.XMLParser(target=_NoDocumentType())).getroot()
        if _plain(root.tag) != "lidcreadmessage":
            return None
        return _reading(root)
    except (ET.ParseError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path} is not a reading of LIDC-IDRI that can be read ({error})", path=path) from None


class _NoDocumentType(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type")


def _plain(tag: object) -> str:
    return str(tag).rpartition("}")[2].lower()  # the namespace has changed over the years, and so has the case of UID


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    return [child for child in element if _plain(child.tag) == name.lower()]


def _text(element: ET.Element, name: str) -> str:
    found = _children(element, name)
    if not found:
        raise ValueError(f"{_plain(element.tag)} has no {name}")
    return (found[0].text or "").strip()


def _reading(root: ET.Element) -> Reading:
    header = _children(root, "ResponseHeader")
    if not header:
        raise ValueError("no ResponseHeader")
    found = []
    for rater, session in enumerate(_children(root, "readingSession")):
        for nodule in _children(session, "unblindedReadNodule"):
            contours = tuple(_contour(roi) for roi in _children(nodule, "roi"))
            if any(len(contour.points) >= _FEWEST_POINTS for contour in contours):
                found.append(Annotation(rater, contours))
    return Reading(_text(header[0], "SeriesInstanceUid"), tuple(found))


def _contour(roi: ET.Element) -> Contour:
    points = [(int(_text(edge, "yCoord")), int(_text(edge, "xCoord"))) for edge in _children(roi, "edgeMap")]
    z = float(_text(roi, "imageZposition"))
    if not points or not np.isfinite(z):
        raise ValueError("an roi without points or without position")
    inclusion = _text(roi, "inclusion").upper() == "TRUE"
    return Contour(_text(roi, "imageSOP_UID"), z, inclusion, np.array(points, dtype=np.int64))


def rasterise_contours(contours: Sequence[Contour], shape: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) of one rater's outlines on one slice. An outline is the first pixel outside the nodule, so its
    own points do not belong to the mask; holes are cut out with theirs. `ValueError` if one leaves the image."""
    mask = np.zeros(shape, bool)
    for contour in sorted(contours, key=lambda c: not c.inclusion):  # holes last; sorting keeps the file's order
        points = contour.points
        low, high = points.min(axis=0), points.max(axis=0)
        if low.min() < 0 or (high >= shape).any():
            raise ValueError("an outline leaves the image")
        box = (slice(low[0], high[0] + 1), slice(low[1], high[1] + 1))
        if contour.inclusion:
            mask[box] |= _inside(points, low, high)
        else:
            mask[box] &= ~_inside(points, low, high)
        mask[tuple(points.T)] = False
    return mask


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which pixels of the box low … high an outline encloses, by the even-odd rule."""
    require("report", "reading LIDC's outlines", "matplotlib")
    from matplotlib.path import Path as Polygon

    rows, columns = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    ring = points if (points[0] == points[-1]).all() else np.vstack([points, points[:1]])
    return Polygon(ring, closed=True).contains_points(np.c_[rows.ravel(), columns.ravel()]).reshape(rows.shape)


def match_raters(annotations: Sequence[Annotation], spacing: float, tightest: float = 0.1) -> list[list[Annotation]]:
    """Which annotations mean the same nodule: those whose outlines come within one pixel (`spacing`, mm) of each other,
    directly or through others. Where that joins more than four, the distance shrinks by a tenth until it does not, or
    is below `tightest`. pylidc's `cluster_annotations` documents this rule but measures in voxel steps, against the
    slice thickness; of 369 scans compared the two differ on 3. In the order of their z, then of the file."""
    clouds = [
        np.vstack([np.c_[c.points * spacing, np.full(len(c.points), c.z)] for c in a.contours]) for a in annotations
    ]
    distance = _distances(clouds, spacing)
    tolerance = spacing
    while True:
        count, labels = connected_components(distance <= tolerance, directed=False)
        if count == 0 or np.bincount(labels).max() <= RATERS or tolerance * 0.9 < tightest:
            break
        tolerance *= 0.9
    groups = [[i for i in range(len(annotations)) if labels[i] == label] for label in range(count)]
    groups.sort(key=lambda members: (float(np.mean([clouds[i][:, 2].mean() for i in members])), members[0]))
    return [[annotations[i] for i in members] for members in groups]


def _distances(clouds: Sequence[np.ndarray], limit: float) -> np.ndarray:
    """The least distance between each two point clouds (n, 3), infinite beyond `limit`."""
    trees = [cKDTree(cloud) for cloud in clouds]
    distance = np.full((len(clouds), len(clouds)), np.inf)
    for i, tree in enumerate(trees):
        for j in range(i):
            near = tree.query(clouds[j], distance_upper_bound=limit * (1 + 1e-9))[0].min()
            distance[i, j] = distance[j, i] = near
    return distance
