"""Augmentation: identity when nothing is asked for, image and mask moved alike, the same whatever the batch is cut into."""

from dataclasses import replace

import pytest
import torch

from manymask.data.augment import WINDOWS, Augment
from manymask.data.case import Batch
from manymask.data.dihedral import dihedral, dihedral_inverse
from manymask.rng import TrainingNoise

EVERYTHING = Augment(dihedral=True, rotate=30, scale=0.2, shift=0.1, brightness=0.1, contrast=0.2, colour=0.1)


def batch(n=8, channels=3):
    image = torch.rand(n, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch([str(i) for i in range(n)], image, (image.mean(1, keepdim=True) > 0.5).float(), TrainingNoise(0, 3))


def test_nothing_asked_nothing_changed():
    before = batch()
    after = Augment(flip=False)(before)
    assert torch.equal(after.image, before.image) and torch.equal(after.masks, before.masks)


def test_masks_stay_binary_and_images_in_range():
    after = EVERYTHING(batch())
    assert set(after.masks.unique().tolist()) <= {0.0, 1.0}
    assert after.image.min() >= 0 and after.image.max() <= 1


def test_image_and_mask_move_together():
    mask = torch.zeros(16, 1, 64, 64)
    mask[:, :, 20:40, 10:50] = 1
    geometry = replace(EVERYTHING, brightness=0, contrast=0, colour=0)
    after = geometry(Batch([str(i) for i in range(16)], mask.clone(), mask.clone(), TrainingNoise(1, 1)))
    border = (after.image - after.masks).abs()
    assert not torch.equal(after.masks, mask)
    assert (border.mean(dim=(1, 2, 3)) < 0.03).all()


def test_halves_augmented_apart_equal_the_whole():
    whole = EVERYTHING(batch())
    for rank in range(2):
        rows = slice(4 * rank, 4 * rank + 4)
        b = batch()
        half = Batch(b.ids[rows], b.image[rows], b.masks[rows], TrainingNoise(0, 3, rank, 2))
        assert torch.allclose(EVERYTHING(half).image, whole.image[rows], atol=1e-6)


@pytest.mark.parametrize("k", range(8))
def test_quarter_turns_are_undone(k):
    x = torch.rand(2, 1, 6, 6)
    assert torch.equal(dihedral_inverse(dihedral(x, k), k), x)
    assert torch.equal(dihedral(x[0, 0], k), dihedral(x, k)[0, 0]), "however many axes stand before"


def test_the_eight_turns_differ():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert len({tuple(dihedral(x, k).flatten().tolist()) for k in range(8)}) == 8


def marked(n=256, corner=12):
    """White frames with a lesion of 8 × 8."""
    mask = torch.zeros(n, 1, 32, 32)
    mask[:, :, corner : corner + 8, corner : corner + 8] = 1
    return Batch([str(i) for i in range(n)], torch.ones(n, 3, 32, 32), mask, TrainingNoise(0, 3))


def drawn_for_windows(n):
    """What `Augment._frame` draws for each of n cases: which, empty, size and places."""
    noise = TrainingNoise(0, 3)
    noise.uniform(n, 12)  # for flips and orientations
    draw = noise.uniform(n, 4 + 2 * WINDOWS)
    return draw[:, 0], draw[:, 1], draw[:, 2], draw[:, 4:].reshape(n, WINDOWS, 2)


def test_half_of_the_windows_are_looked_for_where_no_lesion_is():
    after = Augment(flip=False, zoom=1.0)(marked(1024, corner=0))
    empty = after.masks.sum(dim=(1, 2, 3)) == 0
    _, looked_for, size, place = drawn_for_windows(1024)
    side = 0.3 + 0.5 * size[:, None]
    free = (((2 * place - 1) * (1 - side[..., None])).amax(dim=2) - side) > -0.5  # a window's near edge past the lesion
    expected = torch.where(looked_for < 0.5, free.any(dim=1), free[:, 0])
    assert (empty == expected).float().mean() > 0.98
    assert torch.allclose(after.image, torch.ones(())), "a window shows real pixels alone"


def test_a_window_lies_where_it_was_drawn():
    """x_in = side · x_out + centre, in a picture whose pixels tell their column."""
    ramp = torch.arange(32.0).expand(64, 1, 32, 32) / 31
    _, _, size, place = drawn_for_windows(64)
    after = Augment(flip=False, zoom=1.0)(
        Batch(["0"] * 64, ramp.clone(), torch.zeros(64, 1, 32, 32), TrainingNoise(0, 3))
    )
    side = 0.3 + 0.5 * size
    centre = (2 * place[:, 0, 0] - 1) * (1 - side)
    middle = 31 * after.image[:, 0, 16, 15:17].mean(dim=1)
    assert torch.allclose(middle, ((centre + 1) * 32 - 1) / 2, atol=1e-3)
    step = 31 * (after.image[:, 0, 16, 16] - after.image[:, 0, 16, 15])
    assert torch.allclose(step, side, atol=1e-3)


def test_an_inset_keeps_the_whole_frame_smaller_and_black_around():
    after = Augment(flip=False, inset=1.0)(marked())
    light = after.image[:, 0].mean(dim=(1, 2))
    assert (light > 0.4**2 - 0.05).all() and (light < 0.9**2 + 0.05).all()
    lesion = after.masks.mean(dim=(1, 2, 3)) / light
    assert abs(lesion.mean() - 1 / 16) < 0.003, "the lesion shrinks with its frame"


def test_the_share_of_windows_and_insets_is_as_asked():
    after = Augment(flip=False, zoom=0.25, inset=0.25)(marked(1024))
    untouched = (after.masks == marked(1024).masks).flatten(1).all(1).float().mean()
    assert abs(untouched - 0.5) < 0.05


def test_a_window_is_real_pixels_wherever_it_lies():
    """Each pixel of a ramp tells where it came from, so a filled or smeared border would show."""
    ramp = torch.arange(64.0).div(63).expand(1, 1, 64, 64)
    both = torch.cat([ramp, ramp.transpose(-1, -2)], dim=1).repeat(256, 1, 1, 1)
    batch = Batch([str(i) for i in range(256)], both, (both[:, :1] > 0.5).float(), TrainingNoise(0, 3))
    after = Augment(flip=False)(batch, 48)
    assert after.image.shape == (256, 2, 48, 48) and after.masks.shape == (256, 1, 48, 48)
    columns = after.image[:, 0, 0] * 63
    assert torch.allclose(columns.diff(dim=1), torch.ones(()), atol=1e-3), "one pixel a pixel, none repeated"
    first = columns[:, 0]
    assert first.min() >= -1e-3 and first.max() <= 16 + 1e-3 and first.min() < 1 and first.max() > 15
    assert abs(first.mean() - 8) < 0.9 and torch.equal(after.masks, (after.image[:, :1] > 0.5).float())


def test_rotation_and_shift_fill_nothing_in_a_window():
    wild = Augment(flip=False, rotate=45, shift=0.5)
    assert torch.allclose(wild(marked(), 24).image, torch.ones(()))


def test_a_stretched_window_spans_all_grey_values():
    grey = batch().image * 0.5 + 0.25
    after = Augment(flip=False)(
        Batch(["0"] * 8, grey, (grey[:, :1] > 0.5).float(), TrainingNoise(0, 3)), 16, stretched=True
    )
    assert torch.allclose(after.image.amin(dim=(1, 2, 3)), torch.zeros(8), atol=1e-6)
    assert torch.allclose(after.image.amax(dim=(1, 2, 3)), torch.ones(8), atol=1e-6)
