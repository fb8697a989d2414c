"""Regions of interest: cut at native scale, seen as in training, pasted back where they were; and masks one by one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import perimeter

from manymask import Segmenter
from manymask.data.case import Case, Source
from manymask.data.datasets import phantom
from manymask.data.store import prepare
from manymask.diffusion.samplers import DDPM
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError
from manymask.evaluation.held_out import matched_store
from manymask.hub.model_folder import TrainedModel, load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.inference.preprocess import Region, View, view_of
from manymask.io.image import Picture
from manymask.recipes import RECIPES
from tests.factories import perturb

GREY = phantom.draw(3).image[:, :, 0]


@pytest.fixture(scope="module")
def whole(recipe) -> Segmenter:
    torch.manual_seed(0)
    model = perturb(recipe.build("segmenter"))
    return Segmenter(TrainedModel(model, recipe, "segmenter", Provenance(), ["a"]))


@pytest.fixture(scope="module")
def cropper(whole) -> Segmenter:
    crops = replace(whole.recipe, crop=True, stretch=True, window="values")
    return Segmenter(replace(whole.trained, recipe=crops))


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    """Like a CT slice: signed, of 16 bits, larger than the crop; no two regions alike."""
    rng = np.random.default_rng(0)
    tiles = [[phantom.draw(4 * r + c).image[:, :, 0] for c in range(3)] for r in range(3)]
    return (np.block(tiles).astype(np.int16) * 7 - 1000 + rng.integers(0, 7, (192, 192))).astype(np.int16)


def test_region_is_cut_at_native_scale_and_stretched_at_full_depth(cropper, scan):
    view = view_of(scan, cropper.recipe, [(100, 80)])
    assert view.regions == (Region(48, 68, 112, 132),)
    cut = scan[48:112, 68:132].astype(np.float64)
    exact = (cut - cut.min()) / (cut.max() - cut.min()) * 255
    assert view.seen[0].shape == (1, 64, 64) and np.abs(view.seen[0][0] - exact).max() <= 0.51
    assert view.image.shape == (192, 192, 1)


def test_region_segments_like_the_crop_alone_and_lands_where_it_was(cropper, scan):
    alone = cropper.segment(scan[48:112, 68:132], samples=3, seed=1)
    placed = cropper.segment(scan, samples=3, seed=1, rois=[(100, 80)])
    assert placed.masks.shape == (3, 192, 192) and placed.regions == (Region(48, 68, 112, 132),)
    assert torch.equal(placed.masks[:, 48:112, 68:132], alone.masks)
    outside = torch.ones(192, 192, dtype=torch.bool)
    outside[48:112, 68:132] = False
    assert placed.masks[:, outside].max() == 0 and placed.masks.max() > 0


def test_several_regions_in_one_batch_equal_each_alone_and_the_larger_probability_wins(cropper, scan):
    centres = [(40, 40), (70, 60), (150, 150)]
    together = cropper.segment(scan, samples=2, rois=centres).masks
    apart = [cropper.segment(scan, samples=2, rois=[centre]).masks for centre in centres]
    assert torch.allclose(together, torch.stack(apart).amax(dim=0), atol=1e-5)
    reversed_order = cropper.segment(scan, samples=2, rois=centres[::-1]).masks
    assert torch.allclose(together, reversed_order, atol=1e-5)


@given(st.integers(0, 99), st.integers(0, 69), st.integers(8, 100), st.integers(8, 70))
def test_every_region_lies_within_the_image_and_holds_its_centre(x, y, width, height):
    row = replace(RECIPES["lidc_idri"], size=32)
    pixels = np.arange(width * height, dtype=np.int32).reshape(height, width)
    x, y = x % width, y % height
    view = view_of(pixels, row, [(x, y)])
    region = view.regions[0]
    assert 0 <= region.top <= y < region.bottom <= height and 0 <= region.left <= x < region.right <= width
    assert region.bottom - region.top == min(32, height) and region.right - region.left == min(32, width)
    there = torch.from_numpy(view.seen[0].copy())[None].float()
    back = view.paste(there / 255)[0, region.top : region.bottom, region.left : region.right]
    cut = pixels[region.top : region.bottom, region.left : region.right]
    expected = (cut - cut.min()) / (cut.max() - cut.min())
    assert np.abs(back.numpy() - expected).max() < 0.003


def test_two_clicks_on_one_region_count_once(cropper, scan):
    assert len(view_of(scan, cropper.recipe, [(0, 0), (3, 5), (0, 0)]).regions) == 1


def test_image_that_one_region_covers_needs_none(cropper):
    exact = cropper.segment(GREY, samples=2)
    assert exact.regions == (Region(0, 0, 64, 64),) and exact.masks.shape == (2, 64, 64)
    assert cropper.segment(GREY[:50, :40], samples=2).masks.shape == (2, 50, 40)


def test_picture_is_taken_and_colour_too(whole, cropper, scan):
    picture = Picture(scan, "scan", (0.7, 0.7))
    assert torch.equal(
        cropper.segment(picture, 2, rois=[(99, 99)]).masks, cropper.segment(scan, 2, rois=[(99, 99)]).masks
    )
    colour = np.repeat(GREY[:, :, None], 3, axis=2)
    assert torch.equal(whole.segment(Picture(colour, "photo")).masks, whole.segment(colour).masks)


FLAT = np.zeros((192, 192), np.int16)
FLAT[0, 0] = 1


@pytest.mark.parametrize(
    ("image", "rois", "message"),
    [
        ("scan", [], r"regions of 64×64 pixels and the image has 192×192: say where to look$"),
        ("scan", [(192, 0)], r"192,0 lies outside the image of 192×192"),
        ("scan", [(-1, 5)], r"-1,5 lies outside"),
        ("flat", [(150, 150)], r"the region about 150,150 is flat"),
    ],
)
def test_what_cannot_be_cut_is_said_in_a_line(cropper, scan, image, rois, message):
    with pytest.raises(InputError, match=message) as error:
        cropper.segment(scan if image == "scan" else FLAT, rois=rois)
    assert "\n" not in str(error.value)


def test_model_of_whole_images_refuses_regions(whole):
    with pytest.raises(InputError, match="segments whole images"):
        whole.segment(GREY, rois=[(5, 5)])


def test_config_keeps_the_preprocessing_and_an_older_one_without_it_loads(cropper, tmp_path):
    save_model(cropper.trained, tmp_path / "model")
    loaded = load_model(tmp_path / "model").recipe
    assert (loaded.crop, loaded.stretch, loaded.window) == (True, True, "values")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for name in ("crop", "stretch", "window"):
        del config["recipe"][name]
    path.write_text(json.dumps(config))
    loaded = load_model(tmp_path / "model").recipe
    assert (loaded.crop, loaded.stretch, loaded.window) == (False, False, "header")


def test_every_row_of_lidc_segments_regions():
    rows = {name: row for name, row in RECIPES.items() if row.dataset == "lidc_idri"}
    assert len(rows) >= 4 and all(row.crop and row.stretch for row in rows.values())
    assert not any(row.crop for row in RECIPES.values() if row.dataset != "lidc_idri")


@pytest.mark.parametrize("sampling", [None, SamplingConfig(DDPM(6))])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_masks_one_after_another_equal_all_at_once(cropper, scan, sampling, every):
    """With several regions, and where the sampler draws noise on its way."""
    rois = [(40, 40), (150, 150)]
    parts = list(cropper.stream(scan, 5, 7, sampling=sampling, rois=rois, every=every))
    assert [len(part) for part in parts] == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[every]
    at_once = cropper.segment(scan, 5, 7, sampling=sampling, rois=rois).masks
    assert torch.allclose(torch.cat(parts), at_once, atol=1e-4) and at_once.std(dim=0).max() > 0


def test_network_that_answers_once_streams_its_turns(recipe):
    row = replace(recipe, segmenter=RECIPES["phantom-unet"].segmenter)
    torch.manual_seed(0)
    unet = Segmenter(TrainedModel(perturb(row.build("segmenter")), row, "segmenter", Provenance(), []))
    assert torch.allclose(torch.cat(list(unet.stream(GREY, 4))), unet.segment(GREY, 4).masks, atol=1e-5)


def test_watch_is_told_of_every_step_and_can_end_the_drawing(whole):
    seen = list[float]()
    list(whole.stream(GREY, 2, callback=seen.append))
    assert len(seen) == 6 and seen[:3] == seen[3:] == sorted(seen[:3]) and 0 <= seen[0] < seen[2] < 1

    def stop(share: float) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        next(whole.stream(GREY, 2, callback=stop))


def test_an_image_smaller_than_the_region_goes_on_with_its_edge():
    """A ramp of 8 × 4 px in a region of 16: the last row, column and corner are repeated, nothing is black."""
    row = replace(RECIPES["lidc_idri"], size=16)
    ramp = np.arange(32, dtype=np.uint8).reshape(8, 4) * 8
    seen = view_of(ramp, row).seen[0][0].astype(int)
    stretched = np.round((ramp.astype(float) - 0) / 248 * 255).astype(int)
    assert np.abs(seen - np.pad(stretched, ((4, 4), (6, 6)), mode="edge")).max() <= 1


def test_masks_are_enlarged_by_pixel_centres_and_the_mean_of_masks_is_that_of_their_enlargements():
    view = View(np.zeros((12, 24, 1), np.uint8), [])
    step = torch.zeros(1, 2, 6, 6)
    step[:, :, :, 3:] = 1
    step[0, 1, :3] = 0.5
    shown = view.paste(step)
    assert shown.min() == 0 and shown.max() == 1
    assert torch.equal(shown[0, 0] >= 0.5, step[0, 0, 0].repeat_interleave(4) > 0)
    assert shown[0].diff(dim=1).min() > -0.01  # without ringing
    assert torch.allclose(view.paste(step.mean(dim=1, keepdim=True))[0], shown.mean(dim=0), atol=0.01)


def test_outline_of_an_enlarged_disc_is_no_stair():
    """A disc on the grid of the model, eight times enlarged: its outline is nearly as short as a circle, not as stairs."""
    at = torch.arange(32) - 15.5
    disc = (at[:, None] ** 2 + at[None, :] ** 2 < 100).float()[None, None]
    shown = View(np.zeros((256, 256, 1), np.uint8), []).paste(disc)[0] >= 0.5
    circle = 2 * np.pi * (int(shown.sum()) / np.pi) ** 0.5
    stairs = disc[0, 0].repeat_interleave(8, 0).repeat_interleave(8, 1).numpy() > 0
    assert perimeter(shown.numpy()) < 1.07 * circle < 1.1 * circle < perimeter(stairs)
    assert int(shown.sum()) == pytest.approx(64 * int(disc.sum()), rel=0.02)


def test_bytes_of_a_region_are_stretched_to_their_very_ends(cropper):
    """As in training, where nothing is an outlier; that rule is for pixels of more than 8 bits."""
    size = cropper.recipe.size
    pixels = np.tile(np.linspace(20, 90, size).astype(np.uint8), (size, 1))
    pixels[3, 3] = 250
    seen = view_of(pixels, cropper.recipe).seen[0]
    assert seen[0, 3, 3] == 255 and seen[0, 0, -1] == round(70 / 230 * 255)


def test_a_region_shows_what_evaluation_sees_through_its_window(tmp_path):
    """The middle of a stored crop, cut and stretched, is the region about the middle of the same pixels."""
    pixels = np.random.default_rng(0).integers(40, 200, (32, 32, 1), dtype=np.uint8)
    pixels[0, 0], pixels[-1, -1] = 0, 255  # brightest and darkest lie outside of the window
    mask = np.zeros((1, 32, 32), bool)
    mask[:, 12:20, 12:20] = True
    cases = [Case(str(i), str(i), lambda i=i: (pixels // np.uint8(i + 1), mask)) for i in range(3)]
    scheme = {"patient": {"train": ["0"], "val": ["1"], "test": ["2"]}}
    store = prepare(Source("lidc_idri", cases, scheme, ""), tmp_path / "store", 32, 1)
    row = replace(RECIPES["lidc_idri"], size=24, margin=4)
    seen = matched_store(row, store, (2, -3)).batch(["0"])
    region = view_of(pixels, row, [(16 - 3, 16 + 2)])
    assert torch.equal(seen.image, region.batch().image)
    assert seen.image.min() == 0 and seen.image.max() == 1
    assert seen.noise_names == region.batch().noise_names, "so segment and evaluate draw the same masks"


def test_pasting_leaves_what_was_drawn_as_it_is():
    """Where the image has the model's own size, too."""
    drawn = torch.tensor([[[[-0.5, 1.5], [0.25, 1.0]]]])
    view = View(np.zeros((2, 2, 1), np.uint8), [])
    assert view.paste(drawn).flatten().tolist() == [0, 1, 0.25, 1]
    assert drawn.flatten().tolist() == [-0.5, 1.5, 0.25, 1.0]
