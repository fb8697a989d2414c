"""Augmentation by value: what each number of a setting does to pixels, at both ends of what is drawn."""

import pytest
import torch

from manymask.data.augment import Augment
from manymask.data.case import Batch
from manymask.rng import TrainingNoise

STILL = {"flip": False}


class Drawn:
    """Training noise that gives one number everywhere, or in one column alone and ½ in the others: 0 and 1 are the ends
    of every range, ½ its middle."""

    def __init__(self, value: float, column: int | None = None) -> None:
        self.value, self.column = value, column

    def uniform(self, *shape: int) -> torch.Tensor:
        if self.column is None:
            return torch.full(shape, self.value)
        drawn = torch.full(shape, 0.5)
        drawn[:, self.column] = self.value
        return drawn


def augmented(
    setting: Augment, image: torch.Tensor, masks: torch.Tensor, value: float, column: int | None = None
) -> Batch:
    return setting(Batch(["a"], image, masks, Drawn(value, column)))


def picture(side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """An image without symmetry and the mask of its bright part."""
    image = torch.arange(float(side * side)).reshape(1, 1, side, side) / side**2
    return image, (image > 0.6).float()


def test_half_of_the_cases_are_mirrored_left_to_right():
    image, masks = picture(4)
    many = Batch(["a"] * 2000, image.repeat(2000, 1, 1, 1), masks.repeat(2000, 1, 1, 1), TrainingNoise(0, 0))
    after = Augment()(many)
    mirrored = (after.image == image.flip(-1)).flatten(1).all(1)
    assert 0.46 < float(mirrored.float().mean()) < 0.54
    assert torch.equal(after.image[~mirrored], many.image[~mirrored])
    turned = Augment(dihedral=True)(many).image
    assert len({tuple(x.flatten().tolist()) for x in turned}) == 8


def test_flip_alone_never_stands_an_image_on_its_head():
    image, masks = picture()
    assert torch.equal(augmented(Augment(), image, masks, 0.0).image, image.flip(-1))
    assert torch.equal(augmented(Augment(), image, masks, 0.6).image, image)
    turned = augmented(Augment(dihedral=True), image, masks, 0.0)
    expected = image.flip(-1).flip(-2).transpose(-1, -2)
    assert torch.equal(turned.image, expected) and torch.equal(turned.masks, (expected > 0.6).float())


@pytest.mark.parametrize(("value", "quarters"), [(0.0, -1), (0.5, 0), (1.0, 1)])
def test_rotation_is_in_degrees_and_goes_both_ways(value, quarters):
    image, masks = picture()
    after = augmented(Augment(**STILL, rotate=90), image, masks, value)
    assert torch.allclose(after.image, torch.rot90(image, quarters, (-2, -1)), atol=1e-4)
    assert torch.equal(after.masks, torch.rot90(masks, quarters, (-2, -1)))


def test_shift_is_a_share_of_the_side_and_goes_both_ways():
    """A quarter of 8 px is 2 px: the image goes on with its edge, the masks with nothing."""
    image, masks = picture()
    full = torch.ones_like(masks)
    there = augmented(Augment(**STILL, shift=0.25), image, full, 1.0)
    assert torch.allclose(there.image[..., :6, :6], image[..., 2:, 2:], atol=1e-5)
    assert torch.allclose(there.image[..., 6:, :6], image[..., 7:, 2:].expand(-1, -1, 2, -1), atol=1e-5)
    assert there.masks[..., :6, :6].all() and there.masks.sum() == 36
    back = augmented(Augment(**STILL, shift=0.25), image, full, 0.0)
    assert torch.allclose(back.image[..., 2:, 2:], image[..., :6, :6], atol=1e-5)


def test_scale_is_relative_and_as_much_smaller_as_larger():
    image = torch.rand(1, 1, 16, 16)
    masks = torch.zeros(1, 1, 16, 16)
    masks[..., 4:12, 4:12] = 1
    areas = [float(augmented(Augment(**STILL, scale=1.0), image, masks, v).masks.sum()) for v in (0.0, 0.5, 1.0)]
    assert areas == [256, 64, 16]


def test_angle_scale_and_both_shifts_are_drawn_apart():
    image, masks = picture()
    wild = Augment(**STILL, rotate=90, scale=1.0, shift=0.25)
    square = torch.zeros_like(masks)
    square[..., 2:6, 2:6] = 1
    found = [augmented(wild, image, square, 1.0, column) for column in (4, 5, 6, 7)]
    assert torch.allclose(found[0].image, torch.rot90(image, 1, (-2, -1)), atol=1e-4)
    assert [float(after.masks.sum()) for after in found] == [16, 4, 16, 16]
    assert found[2].masks[0, 0, 2:6, 0:4].all() and found[3].masks[0, 0, 0:4, 2:6].all()
    assert torch.allclose(augmented(wild, image, square, 0.5).image, image, atol=1e-5)


def test_a_window_as_large_as_the_image_is_none():
    image, masks = picture()
    batch = Batch(["a"], image, masks, Drawn(1.0))
    shifted = Augment(**STILL, shift=0.25)
    assert torch.equal(shifted(batch, 8).image, shifted(batch).image)


def test_mask_keeps_a_pixel_that_is_covered_by_exactly_half():
    """Half a pixel to the side, a line of one pixel covers half of two."""
    line = torch.zeros(1, 1, 8, 8)
    line[..., 3] = 1
    after = augmented(Augment(**STILL, shift=0.5 / 8), line, line, 1.0, 6)
    assert after.image[0, 0, 3].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert after.masks.sum(dim=-1).flatten().tolist() == [2.0] * 8


def test_mask_keeps_pixels_that_are_covered_by_half_or_more():
    """A quarter of a pixel to the side: a line of one pixel stays one wide."""
    image, masks = picture()
    line = torch.zeros_like(masks)
    line[..., 3] = 1
    after = augmented(Augment(**STILL, shift=0.25 / 8), image, line, 1.0)
    assert after.masks[..., 1:7, :].sum(dim=-1).flatten().tolist() == [1.0] * 6


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_brightness_contrast_and_colour_go_both_ways(value):
    sign = 2 * value - 1
    image = torch.tensor([0.4, 0.6]).reshape(1, 1, 1, 2).repeat(1, 3, 2, 1)
    masks = torch.zeros(1, 1, 2, 2)

    def first_row(**setting: float) -> list[float]:
        return augmented(Augment(**STILL, **setting), image, masks, value).image[0, 0, 0].tolist()

    assert first_row(brightness=0.2) == pytest.approx([0.4 + 0.2 * sign, 0.6 + 0.2 * sign], abs=1e-6)
    assert first_row(contrast=0.5) == pytest.approx(
        [0.5 - 0.1 * (1 + 0.5 * sign), 0.5 + 0.1 * (1 + 0.5 * sign)], abs=1e-6
    )
    assert first_row(colour=0.5) == pytest.approx(
        [0.5 - 0.1 * (1 + 0.5 * sign), 0.5 + 0.1 * (1 + 0.5 * sign)], abs=1e-6
    )
    assert first_row(brightness=0.9) == pytest.approx([min(max(v + 0.9 * sign, 0), 1) for v in (0.4, 0.6)], abs=1e-6)


def test_colour_is_drawn_for_each_channel_and_contrast_for_all():
    image = torch.tensor([0.4, 0.6]).reshape(1, 1, 1, 2).repeat(1, 3, 2, 1)
    batch = Batch(["a"], image, torch.zeros(1, 1, 2, 2), TrainingNoise(0, 0))
    coloured = Augment(**STILL, colour=0.5)(batch).image[0, :, 0, 1]
    assert len(set(coloured.tolist())) == 3
    contrasted = Augment(**STILL, contrast=0.5)(batch).image[0, :, 0, 1]
    assert len(set(contrasted.tolist())) == 1
