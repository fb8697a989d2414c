"""DICOM SEG out: masks, consensus and levels of DICOM pictures (PS3.3 A.51).

MASKS       BINARY      the consensus and each drawn mask, one segment each, and of calibrated results the inner and
                        the outer outline; they overlap
LEVELS      BINARY      confidence ≥ 0.25, 0.5 and 0.75
ACCEPTED    BINARY      where a person accepted a mask, that mask; the only one of type SEMIAUTOMATIC
CONSENSUS   LABELMAP    the consensus alone: a number for each pixel, as other programs take it
FRACTIONAL  FRACTIONAL  the confidence map in 256 steps, on request: viewers refuse it or hang on it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manymask.io.dicom.derived import RESEARCH, finish, identity, parameters_of, versions
from manymask.io.dicom.finding import Finding
from manymask.io.dicom.seg_source import SegSource
from manymask.io.image import Drawn, PromisedOutlines
from manymask.io.palette import PALETTE, colour_of

LEVELS = (0.25, 0.5, 0.75)
_WHITE = (255, 255, 255)
_GREYS = ((208, 208, 208), (144, 144, 144))  # of the inner and the outer outline


@dataclass(frozen=True)
class Kind:
    """One SEG to be: its content label and type, its segments with their colours, its values (frames, H, W, segments),
    without segments for a LABELMAP, the descriptions of segments by their number, and the type of the algorithm."""

    label: str
    type: str
    segments: list[tuple[str, tuple[int, int, int]]]
    values: np.ndarray
    remarks: Mapping[int, str] = field(default_factory=dict)
    algorithm: str = "AUTOMATIC"


def kinds(results: Sequence[Drawn], facts: Mapping[str, Any], fractional: bool = False) -> list[Kind]:
    """The SEGs of one source.

    Args:
        results: one per frame.
        facts: as in result.json.
        fractional: whether the confidence map is one of them.
    """
    masks = np.stack([np.asarray(r.masks) >= 0.5 for r in results])  # frames, n, H, W
    consensus = np.stack([np.asarray(r.consensus, dtype=bool) for r in results])
    confidence = np.stack([np.asarray(r.confidence, dtype=np.float32) for r in results])
    left_out = facts.get("left_out", ())
    n = masks.shape[1] + len(left_out)
    threshold = facts.get("threshold", 0.5)
    drawn = [(f"Mask {k + 1} of {n}", colour_of(k + 1)) for k in range(n) if k + 1 not in left_out]
    levels = [(f"Confidence >= {level:g}", PALETTE[c]) for level, c in zip(LEVELS, (3, 0, 5), strict=True)]
    agreed = (f"Consensus (confidence >= {threshold:g})", _WHITE)
    planes, segments, remarks = _outlined([r.outlines for r in results if r.outlines is not None], masks.shape[1] + 2)
    found = [
        Kind(
            "MASKS",
            "BINARY",
            [agreed, *drawn, *segments],
            np.moveaxis(np.concatenate([consensus[:, None], masks, *planes], axis=1), 1, -1).astype(np.uint8),
            remarks,
        ),
        Kind("LEVELS", "BINARY", levels, np.stack([confidence >= level for level in LEVELS], -1).astype(np.uint8)),
        Kind("CONSENSUS", "LABELMAP", [agreed], consensus.astype(np.uint8), {k: remarks[k] for k in remarks if k == 1}),
    ]
    if fractional:
        found.append(Kind("FRACTIONAL", "FRACTIONAL", [("Confidence", PALETTE[1])], confidence.clip(0, 1)[..., None]))
    return found


def segmentation(source: SegSource, kind: Kind, facts: Mapping[str, Any], finding: Finding, instance: int) -> Any:
    """A SEG, not yet with patient and study; raises what highdicom raises.

    Args:
        source: the images.
        kind: what it holds.
        facts: as in result.json.
        finding: what the masks show.
        instance: its number in its series.
    """
    from highdicom.seg import Segmentation

    seg = Segmentation(
        source_images=source.images,
        pixel_array=kind.values,
        segmentation_type=kind.type,
        segment_descriptions=_descriptions(kind, facts, finding),
        content_label=kind.label,
        content_description=RESEARCH,
        plane_positions=source.positions,
        omit_empty_frames=bool(kind.values.any()),  # an object has one frame at least
        **identity(source, kind.label, facts, kind.values, instance),
    )
    # highdicom describes 0, the background of a LABELMAP, first: viewers that count items (OHIF 3.13) are then one colour off
    seg.SegmentSequence = sorted(seg.SegmentSequence, key=lambda item: item.SegmentNumber or kind.values.size)
    return finish(seg, source, facts)


def accepted_kind(masks: Sequence[np.ndarray], facts: Mapping[str, Any]) -> Kind:
    """The SEG of the masks that a person accepted, bool (H, W), one per frame; it says in words how they came about."""
    left_out = facts.get("left_out", ())
    strokes = len(facts.get("accepted", {}).get("strokes", ()))
    without = f" without mask {', '.join(map(str, left_out))}" if left_out else ""
    by_hand = f", corrected by hand with {strokes} stroke{'s' if strokes > 1 else ''}" if strokes else ""
    remark = f"Consensus (confidence >= {facts.get('threshold', 0.5):g}){without}{by_hand}, accepted by a person"
    values = np.stack([np.asarray(mask, dtype=np.uint8) for mask in masks])[..., None]
    return Kind("ACCEPTED", "BINARY", [("Accepted", _WHITE)], values, {1: remark}, "SEMIAUTOMATIC")


def _outlined(
    outlines: Sequence[PromisedOutlines], first: int
) -> tuple[list[np.ndarray], list[tuple[str, tuple[int, int, int]]], dict[int, str]]:
    """Planes, segments and descriptions of the inner and the outer outline, numbered from `first`, and of the consensus.

    Nothing for results that are not calibrated.
    """
    if not outlines:
        return [], [], {}
    alpha, share = f"{outlines[0].alpha:g}", f"{100 * outlines[0].alpha:g} %"
    planes = [np.stack([np.asarray(getattr(each, name), dtype=bool) for each in outlines])[:, None]
              for name in ("inner", "outer")]  # fmt: skip
    labels = [f"{name} outline (alpha {alpha})" for name in ("Inner", "Outer")]
    average = "on average over images like those of the calibration"
    remarks = {
        1: _predicted([each.dice for each in outlines]),
        first: f"At most {share} of its pixels are no lesion, {average}",
        first + 1: f"At most {share} of the lesion's pixels lie outside of it, {average}",
    }
    return planes, list(zip(labels, _GREYS, strict=True)), remarks


def _predicted(dice: Sequence[tuple[float, float, float]]) -> str:
    """The predicted Dice of the consensus at 0.5: of the only slice, or of the worst one."""
    level, low, high = min(dice)
    where = "" if len(dice) == 1 else f" in the worst of {len(dice)} slices, at most {max(dice)[0]:.2f}"
    return f"Predicted Dice of the consensus at 0.5: {level:.2f} (90 % interval {low:.2f} to {high:.2f}){where}"


def _descriptions(kind: Kind, facts: Mapping[str, Any], finding: Finding) -> list[Any]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    category, region = finding.finding, finding.region
    algorithm = AlgorithmIdentificationSequence(
        "manymask",
        codes.cid7162.ArtificialIntelligence,
        " ".join(versions(facts)),
        parameters={name: str(value) for name, value in parameters_of(facts).items()},
    )
    found = [
        SegmentDescription(
            segment_number=k,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=Code(category[0], "SCT", category[1]),
            anatomic_regions=[Code(region[0], "SCT", region[1])] if region else None,
            algorithm_type=kind.algorithm,
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*colour),
        )
        for k, (label, colour) in enumerate(kind.segments, start=1)
    ]
    for number, remark in kind.remarks.items():
        found[number - 1].SegmentDescription = remark  # (0062,0006); highdicom's class of this name is the whole item
    return found
