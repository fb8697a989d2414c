"""Warnings by value: each kind where it belongs, and silence where nothing is the matter."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from manymask.hub.intended_use import Intended, intended
from manymask.inference.cautions import cautions, in_colour, kind
from manymask.inference.preprocess import view_of
from manymask.io.image import DicomFrame, Picture
from manymask.recipes import RECIPES

SKIN, POLYP = RECIPES["isic2018"], RECIPES["cvc_clinicdb"]
ANYWHERE = replace(RECIPES["lidc_idri"], size=128, margin=16)  # trained on windows: the object may lie off the middle
NODULE = replace(ANYWHERE, margin=0)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (240, 320), dtype=np.uint8)
CT = Picture(GREY, "ct", (0.7, 0.7))
MIDDLE = (160, 120)


def disk(shape, centre=MIDDLE, radius=10):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return torch.from_numpy((x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2)


def warned(recipe, picture, rois=(), consensus=None, masks=None, use=None):
    """Of a result that is a disk in the middle, unless another is given."""
    view = view_of(picture.pixels, recipe, rois)
    shape = view.image.shape[:2]
    found = disk(shape, (shape[1] // 2, shape[0] // 2)) if consensus is None else consensus
    drawn = found.float()[None].repeat(3, 1, 1) if masks is None else masks
    return cautions(use or intended(recipe), recipe, picture, view, rois, drawn, found)


def dicom(pixels, modality):
    return Picture(pixels, "x", (0.7, 0.7), DicomFrame(SimpleNamespace(get={"Modality": modality}.get)))


@pytest.mark.parametrize(
    ("recipe", "picture", "rois"),
    [
        (SKIN, Picture(COLOUR, "photo"), ()),
        (SKIN, dicom(COLOUR, "XC"), ()),
        (SKIN, dicom(COLOUR, "DMS"), ()),
        (SKIN, dicom(COLOUR, "OT"), ()),
        (POLYP, dicom(COLOUR, "ES"), ()),
        (NODULE, dicom(GREY, "CT"), [MIDDLE]),
        (NODULE, CT, [MIDDLE]),
    ],
)
def test_nothing_is_said_where_nothing_is_the_matter(recipe, picture, rois):
    assert warned(recipe, picture, rois) == ()


@pytest.mark.parametrize(
    ("recipe", "picture", "expected"),
    [
        (
            SKIN,
            dicom(GREY, "CT"),
            "The image is CT, but the model was trained on dermoscopy: its masks may mean nothing here.",
        ),
        (SKIN, dicom(GREY, "MR"), "The image is MR, but the model was trained on dermoscopy"),
        (SKIN, dicom(COLOUR, "US"), "The image is ultrasound, but the model was trained on dermoscopy"),
        (POLYP, dicom(COLOUR, "DMS"), "The image is dermoscopy, but the model was trained on endoscopy"),
        (NODULE, dicom(GREY, "MR"), "The image is MR, but the model was trained on CT"),
        (NODULE, dicom(GREY, "DX"), "The image is X-ray, but the model was trained on CT"),
        (NODULE, Picture(COLOUR, "photo", (0.7, 0.7)), "The image is in colour, but the model was trained on CT"),
        (SKIN, Picture(GREY, "grey"), "The image is grey, but the model was trained on colour images (dermoscopy)"),
        (
            SKIN,
            Picture(np.repeat(GREY[:, :, None], 3, 2), "grey"),
            "The image is grey, but the model was trained on colour",
        ),
        (SKIN, dicom(GREY, "XC"), "The image is grey, but the model was trained on colour"),
    ],
)
def test_model_on_what_it_is_not_for(recipe, picture, expected):
    (said,) = warned(recipe, picture, [MIDDLE] if recipe.crop else ())
    assert said.startswith(expected)


def test_nothing_is_said_of_what_ones_own_folder_holds():
    own, grey = RECIPES["folder"], replace(RECIPES["folder"], channels=1)
    assert warned(own, Picture(GREY, "grey"), use=Intended()) == ()
    (said,) = warned(grey, Picture(COLOUR, "photo"), use=Intended())
    assert said == "The image is in colour and was turned to grey, which is all that the model takes."


def test_grey_pictures_that_compression_tinted_are_grey():
    tinted = np.repeat(GREY[:, :, None], 3, 2).astype(int) + RNG.integers(-1, 2, (240, 320, 3))
    assert not in_colour(tinted.clip(0, 255).astype(np.uint8)) and in_colour(COLOUR) and not in_colour(GREY)
    assert in_colour((COLOUR / 255).astype(np.float32)) and in_colour(COLOUR.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 90), ["The image has 90×64 pixels and is enlarged 2.0 times for the model: too little detail."]), ((65, 90), []),
     ((200, 601), ["The image has 601×200 pixels: the model sees it squeezed into a square, unlike in training."]),
     ((200, 600), [])],
)  # fmt: skip
def test_resolution_far_from_training(shape, expected):
    picture = Picture(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8), "x")
    assert list(warned(SKIN, picture)) == expected


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((0.46, 0.98), None),
        ((0.40, 1.12), None),
        ((0.1, 0.1), "The pixels measure 0.1 mm, but the model was trained on 0.46 to 0.98 mm"),
        ((0.7, 1.2), "The pixels measure 0.7 × 1.2 mm, but"),
        (None, "The pixel spacing is not known: the model only fits images of 0.46 to 0.98 mm per pixel."),
    ],
)
def test_pixel_spacing_far_from_training(spacing, expected):
    said = warned(NODULE, Picture(GREY, "ct", spacing), [MIDDLE])
    assert said == () if expected is None else len(said) == 1 and said[0].startswith(expected)


def test_notes_of_the_reader_come_first():
    said = warned(SKIN, Picture(GREY, "x", notes=("The spacing is that of the detector.",)))
    assert said[0] == "The spacing is that of the detector." and len(said) == 2


def test_region_near_the_edge_is_said_to_be_moved():
    for point, moved in (
        ((64, 64), 0),
        ((63, 120), 1),
        ((10, 70), 54),
        ((310, 120), 54),
        ((256, 176), 0),
        ((160, 230), 54),
    ):
        view = view_of(GREY, NODULE, [point])
        (region,) = view.regions
        centre = ((region.left + region.right) // 2, (region.top + region.bottom) // 2)
        said = warned(NODULE, CT, [point], disk(GREY.shape, centre))
        where = f"The region about {point[0]},{point[1]} is at the edge and was moved by {moved} pixels"
        assert said == ((f"{where}: the point is not its middle.",) if moved else ())


def test_image_smaller_than_its_region_is_said_to_go_on():
    (said,) = warned(NODULE, Picture(GREY[:100, :120], "x", (0.7, 0.7)), [(60, 50)])
    assert said == "The image has 120×100 pixels: the region of 128×128 goes on with those of its edge."


def test_empty_consensus_tells_whether_masks_marked_anything():
    nothing = torch.zeros(240, 320, dtype=torch.bool)
    masks = torch.zeros(5, 240, 320)
    masks[1, 5, 5] = 0.6
    (said,) = warned(SKIN, Picture(COLOUR, "x"), (), nothing, masks)
    partly = "The consensus is empty: no pixel reaches the threshold, though 1 of 5 masks marked something."
    assert said == partly
    (said,) = warned(NODULE, CT, [MIDDLE], nothing, masks)
    assert said.endswith(" The model expects the lesion in the middle of its region.")
    (said,) = warned(ANYWHERE, CT, [MIDDLE], nothing, masks)
    assert said == partly
    masks[1, 5, 5] = 0.49
    (said,) = warned(SKIN, Picture(COLOUR, "x"), (), nothing, masks)
    assert said == "The consensus is empty: no mask marks anything."


def test_what_lies_off_the_middle_is_said_of_models_that_know_the_middle():
    assert warned(NODULE, CT, [MIDDLE], disk(GREY.shape, (167, 120), 5)) == ()
    (said,) = warned(NODULE, CT, [MIDDLE], disk(GREY.shape, (160, 132), 5))
    assert said.startswith("What was found lies 12 pixels off the middle of the region about 160,120: beyond 8 pixels")
    assert warned(ANYWHERE, CT, [MIDDLE], disk(GREY.shape, (160, 132), 5)) == ()


def test_consensus_at_the_border_of_a_region_and_over_all_of_it():
    wide = disk(GREY.shape, (160, 120), 64)
    (said,) = warned(NODULE, CT, [MIDDLE], wide)
    assert said == "The consensus touches the border of the region about 160,120: what lies outside was not looked at."
    whole = torch.ones(240, 320, dtype=torch.bool)
    (said,) = warned(SKIN, Picture(COLOUR, "x"), (), whole)
    assert said == "The consensus covers 100 % of what the model saw: check that it is more than background."


def test_kinds_differ_by_more_than_numbers():
    assert kind("It is enlarged 2.0 times.") == kind("It is enlarged 13.75 times.") != kind("It is enlarged.")
