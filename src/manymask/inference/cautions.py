"""Warnings about a result, in whole sentences: `Segmentation.warnings`.

A warning never changes a mask. Sentences of one kind differ only in their numbers, and `kind` distinguishes kinds.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manymask.calibration.calibration import DOUBTFUL, Assessment
from manymask.calibration.risk import CONSENSUS
from manymask.data.augment import SMALLEST_WINDOW
from manymask.data.datasets.base import Intended
from manymask.inference.preprocess import PastedMasks, Point, Region, View
from manymask.io.dicom.series import Series
from manymask.io.image import DicomFrame, ImageSource, Picture
from manymask.recipes import Recipe

# what DICOM's Modality means in the words of `Intended.modality`
_MODALITIES = {
    "CT": "CT", "MR": "MR", "US": "ultrasound", "IVUS": "ultrasound", "PT": "PET", "NM": "nuclear medicine",
    "CR": "X-ray", "DX": "X-ray", "MG": "X-ray", "RF": "X-ray", "XA": "X-ray", "PX": "X-ray", "IO": "X-ray",
    "RG": "X-ray", "ES": "endoscopy", "XC": "photograph", "DMS": "dermoscopy", "OP": "fundus photograph",
    "OPT": "optical coherence tomography", "SM": "slide microscopy", "GM": "microscopy", "ECG": "ECG",
}  # fmt: skip
_COLOUR = {"dermoscopy", "endoscopy", "photograph"}
_ALIKE = {
    "photograph": {"dermoscopy", "endoscopy"}
}  # an external camera stands behind many a dermatoscope and endoscope
PROBABLY = 0.5  # probability of failure from which a result is called probably wrong
MIDDLE = 1 / 16  # share of a region's side: a model of centred crops finds objects up to this far from the middle


def cautions(
    use: Intended,
    recipe: Recipe,
    picture: Picture,
    view: View,
    rois: Sequence[Point],
    masks: PastedMasks,
    consensus: Tensor,
) -> tuple[str, ...]:
    """All warnings about one result.

    Args:
        use: intended use of the model.
        recipe: of the model.
        picture: the image as it was read.
        view: the image as the model received it.
        rois: centres of the regions of interest.
        masks: the n masks.
        consensus: bool (H, W).

    Returns:
        Sentences, each once.
    """
    found = [
        *picture.notes,
        *_foreign(use, recipe, picture),
        *_scale(use, recipe, picture, view.tile),
        *_windows(recipe, view),
        *_moved(recipe, view, rois),
        *_drawn(recipe, view, masks, consensus),
    ]
    return tuple(dict.fromkeys(found))


def doubts(
    assessments: Sequence[Assessment], regions: Sequence[Region], threshold: float = CONSENSUS
) -> tuple[str, ...]:
    """Warnings from what is to be expected of a result.

    Args:
        assessments: one per region, or one of the whole image.
        regions: of a crop model; none of a whole image.
        threshold: of the consensus.

    Returns:
        Sentences.
    """
    found = []
    at = "" if threshold == CONSENSUS else f" at {CONSENSUS:g}"
    if assessments and at:
        found.append(
            f"The predicted Dice is that of the consensus at {CONSENSUS:g}: it does not hold for this one, cut at "
            f"{threshold:g}."
        )
    for i, each in enumerate(assessments):
        where = ""
        if len(regions) > 1:
            where = f" (region about {(regions[i].left + regions[i].right) // 2},{(regions[i].top + regions[i].bottom) // 2})"
        if each.foreign:
            share = 100 * (each.like_training or 0)
            found.append(
                f"The image is unlike the training images{where}: of images like them, at most {share:.1f} % lie so far "
                "off. What is predicted of its masks may not hold."
            )
        if each.presence is not None and each.presence < DOUBTFUL:
            few = 1 if 0 < each.presence < 0.01 else 0  # decimals, as on the page
            found.append(f"Nothing may be here{where}: the probability of a lesion is {100 * each.presence:.{few}f} %.")
        elif each.failure >= PROBABLY:
            found.append(
                f"The consensus{at} is probably wrong{where}: its predicted Dice is {each.dice:.2f} "
                f"({each.dice_low:.2f} – {each.dice_high:.2f})."
            )
    return tuple(found)


def kind(warning: str) -> str:
    """The warning without its numbers, equal for warnings of one kind."""
    return re.sub(r"\d+(?:[.,]\d+)*", "#", warning)


def in_colour(pixels: np.ndarray) -> bool:
    """Whether an image shows colours: three channels that differ by more than compression explains.

    Args:
        pixels: (H, W) or (H, W, C), of any type.

    Returns:
        False for images without three channels.
    """
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        return False
    step = max(1, min(pixels.shape[:2]) // 256)
    some = pixels[::step, ::step, :3].astype(np.float32)
    return bool(np.ptp(some, axis=2).mean() > 0.01 * max(float(np.ptp(some)), 1e-12))


def modalities(entries: Iterable[ImageSource]) -> set[str]:
    """The kinds of images that entries hold, as in `Intended.modality`.

    Args:
        entries: what is to be segmented.

    Returns:
        Empty unless the headers of all of them tell.
    """
    codes = set[str]()
    for entry in entries:
        headers = [frame.header for frame in entry.frames] if isinstance(entry, Series) else [{}]
        codes |= {_code(header) for header in headers}
    return {_MODALITIES[code] for code in codes} if codes <= _MODALITIES.keys() else set()


def _code(header: Any) -> str:
    """DICOM's Modality."""
    return str(header.get("Modality") or "").strip().upper()


def _foreign(use: Intended, recipe: Recipe, picture: Picture) -> Iterator[str]:
    """An image that the model is not intended for, by DICOM's Modality, else by colour."""
    trained = " and ".join(use.modality)
    code = _code(picture.origin.dataset) if isinstance(picture.origin, DicomFrame) else ""
    shown = _MODALITIES.get(code)
    if use.modality and shown and not {shown, *_ALIKE.get(shown, ())} & set(use.modality):
        yield f"The image is {shown}, but the model was trained on {trained}: its masks may mean nothing here."
        return
    coloured = in_colour(picture.pixels)
    if coloured and use.modality and not set(use.modality) & _COLOUR:
        yield f"The image is in colour, but the model was trained on {trained}: its masks may mean nothing here."
    elif coloured and recipe.channels == 1:
        yield "The image is in colour and was turned to grey, which is all that the model takes."
    elif not coloured and use.modality and set(use.modality) <= _COLOUR:
        yield f"The image is grey, but the model was trained on colour images ({trained}): its masks may mean nothing here."


def _windows(recipe: Recipe, view: View) -> Iterator[str]:
    """What windows show that the model may never have seen."""
    if view.tile is None:
        return
    height, width = view.image.shape[:2]
    share = view.tile / max(height, width)
    if not recipe.augment.zoom:  # with it, the model saw windows of its training images, half of them without a lesion
        yield (
            f"The image was drawn in windows of {view.tile} pixels. Unless the model was trained on such windows, it has never "
            "seen a part of an image without a lesion: it may find one in each."
        )
    elif share < SMALLEST_WINDOW:
        yield (
            f"The image was drawn in windows of {view.tile} pixels, {100 * share:.0f} % of its side. The model was trained on "
            f"windows of {100 * SMALLEST_WINDOW:.0f} % and more: it may find a lesion where there is none."
        )


def _scale(use: Intended, recipe: Recipe, picture: Picture, tile: int | None) -> Iterator[str]:
    """A resolution far from that of training."""
    height, width = picture.pixels.shape[:2]
    if tile is not None:
        if 2 * tile <= recipe.size:
            yield f"Windows of {tile} pixels are enlarged {recipe.size / tile:.1f} times for the model: too little detail."
        if min(height, width) < tile:
            yield f"The image has {width}×{height} pixels: the windows of {tile} pixels go on with those of its edge."
        return
    if not recipe.crop:
        if 2 * min(height, width) <= recipe.size:
            factor = recipe.size / min(height, width)
            yield f"The image has {width}×{height} pixels and is enlarged {factor:.1f} times for the model: too little detail."
        if max(height, width) > 3 * min(height, width):
            yield f"The image has {width}×{height} pixels: the model sees it squeezed into a square, unlike in training."
        return
    if not use.spacing_mm:
        return
    low, high = use.spacing_mm
    if picture.spacing is None:
        yield f"The pixel spacing is not known: the model only fits images of {low:g} to {high:g} mm per pixel."
    elif not 0.85 * low <= min(picture.spacing) <= max(picture.spacing) <= 1.15 * high:
        mm = " × ".join(f"{x:.3g}" for x in dict.fromkeys(picture.spacing))
        yield f"The pixels measure {mm} mm, but the model was trained on {low:g} to {high:g} mm: lesions show at another size."


def _moved(recipe: Recipe, view: View, rois: Sequence[Point]) -> Iterator[str]:
    """Regions near the edge, which are moved inwards or padded with the pixels of the edge."""
    if not recipe.crop:
        return
    height, width = view.image.shape[:2]
    for x, y in rois:
        off = [
            abs(_clamped(at, side, recipe.size) - at) for at, side in ((x, width), (y, height)) if side > recipe.size
        ]
        if any(off):
            yield f"The region about {x},{y} is at the edge and was moved by {max(off)} pixels: the point is not its middle."
    if min(height, width) < recipe.size:
        yield f"The image has {width}×{height} pixels: the region of {recipe.size}×{recipe.size} goes on with those of its edge."


def _clamped(at: int, side: int, size: int) -> int:
    """The middle of a region around `at` after it was moved into the image."""
    return min(max(at - size // 2, 0), side - size) + size // 2


def _drawn(recipe: Recipe, view: View, masks: PastedMasks, consensus: Tensor) -> Iterator[str]:
    """Warnings from the masks themselves."""
    centred = recipe.crop and not recipe.margin
    if not consensus.any():
        marked = sum(bool(mask.max() >= 0.5) for mask in masks)
        why = f"no pixel reaches the threshold, though {marked} of {len(masks)} masks marked something"
        hint = " The model expects the lesion in the middle of its region." if centred else ""
        yield f"The consensus is empty: {why if marked else 'no mask marks anything'}.{hint}"
        return
    looked = sum((r.bottom - r.top) * (r.right - r.left) for r in view.regions) or consensus.numel()
    share = int(consensus.count_nonzero()) / looked
    if share > 0.9:
        yield f"The consensus covers {100 * share:.0f} % of what the model saw: check that it is more than background."
    for region in view.regions:
        yield from _in_region(region, consensus, recipe.size if centred else None)


def _in_region(region: Region, consensus: Tensor, centred: int | None) -> Iterator[str]:
    """Warnings about one region; `centred` is its side if the model expects the object in the middle, else None."""
    height, width = consensus.shape
    part = consensus[region.top : region.bottom, region.left : region.right]
    if not part.any():
        return
    x = (region.left + region.right) // 2
    y = (region.top + region.bottom) // 2
    sides = ((part[0], region.top > 0), (part[-1], region.bottom < height),
             (part[:, 0], region.left > 0), (part[:, -1], region.right < width))  # fmt: skip
    if any(inner and bool(line.any()) for line, inner in sides):
        yield f"The consensus touches the border of the region about {x},{y}: what lies outside was not looked at."
    middle = torch.nonzero(part).float().mean(dim=0) + torch.tensor([region.top, region.left])
    off = float((middle - torch.tensor([y, x])).norm())
    if centred and off > centred * MIDDLE:
        yield (
            f"What was found lies {off:.0f} pixels off the middle of the region about {x},{y}: "
            f"beyond {centred * MIDDLE:.0f} pixels this model gets worse, so move the point."
        )
