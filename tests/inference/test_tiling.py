"""Large images drawn in windows: no seams, one hypothesis, memory that does not grow, and what is said of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from manymask.data.case import Batch
from manymask.data.datasets import phantom
from manymask.data.dihedral import dihedral
from manymask.data.resize import enlarge
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError
from manymask.hub.model_folder import load_model
from manymask.inference import tiling
from manymask.inference.segmenter import Segmenter
from manymask.models.sample_noise import FieldNoise
from tests.factories import run, save_calibrated

MOSAIC = np.block([[phantom.draw(4 * r + c).image[:, :, 0] for c in range(4)] for r in range(3)])  # 192 × 256


@pytest.fixture(scope="module")
def segmenter(drawing_model):
    return Segmenter.from_pretrained(drawing_model)


def _windows(places, side=64, names=("a",)):
    return Batch(list(names) * len(places), torch.zeros(len(places), 1, side, side), places=list(places))


def test_windows_that_overlap_have_the_same_noise_where_they_do():
    at, right, below = FieldNoise(_windows([(64, 32), (64, 64), (80, 32)]), 0, range(2)).normal(3, 16, 16)[::2]
    assert torch.equal(at[:, :, 8:], right[:, :, :8])
    assert torch.equal(at[:, 4:], below[:, :-4])
    assert not torch.equal(at, right)


def test_noise_of_a_field_is_white():
    drawn = FieldNoise(_windows([(0, 0), (0, 64), (64, 64)]), 3, range(40)).normal(4, 16, 16)
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 1) < 0.01
    between = drawn[:40].flatten() @ drawn[40:80].flatten() / drawn[:40].numel()
    assert abs(float(between)) < 0.02, "windows apart are independent"


def test_noise_differs_between_draws_samples_seeds_and_images():
    field = FieldNoise(_windows([(0, 0)]), 0, range(2))
    first, second = field.normal(1, 16, 16), field.normal(1, 16, 16)
    others = [FieldNoise(_windows([(0, 0)]), 1, range(1)), FieldNoise(_windows([(0, 0)], names=("b",)), 0, range(1))]
    drawn = [first[0], first[1], second[0], *(other.normal(1, 16, 16)[0] for other in others)]
    assert len({tuple(each.flatten()[:4].tolist()) for each in drawn}) == 5


def test_windows_take_the_opposite_noise_of_the_samples_that_whole_images_do():
    drawn = FieldNoise(_windows([(16, 48)]), 0, range(16)).normal(2, 16, 16)
    assert torch.equal(drawn[8:], -drawn[:8])


def test_noise_turns_with_the_image():
    plain, turned = (FieldNoise(_windows([(16, 48)]), 0, range(1), [k]).normal(2, 16, 16) for k in (0, 5))
    assert torch.equal(dihedral(plain, 5), turned)


def test_noise_without_a_place_is_that_of_the_whole_image():
    drawn = FieldNoise(_windows([(0, 0), (32, 64)]), 0, range(2)).normal(6)
    assert torch.equal(drawn[:2], drawn[2:])
    assert not torch.equal(drawn[0], drawn[1])


def test_image_that_one_window_covers_is_drawn_as_a_whole(segmenter):
    image = MOSAIC[:64, :64]
    whole, tiled = segmenter.segment(image, 2), segmenter.segment(image, 2, tile=64)
    assert torch.equal(whole.masks, tiled.masks)
    assert tiled.record.tile is None
    assert "tile" not in tiled.record.facts()


def test_masks_have_the_size_of_the_image_and_say_how_they_were_drawn(segmenter, tmp_path):
    found = segmenter.segment(MOSAIC[:150, :203], 2, tile=80)
    assert found.masks.shape == (2, 150, 203)
    assert torch.isfinite(found.masks).all()
    facts = json.loads((found.save(tmp_path / "out") / "result.json").read_text())
    assert facts["tile"] == 80
    assert any("windows of 80 pixels" in warning for warning in facts["warnings"])


def test_masks_do_not_depend_on_how_they_are_requested(segmenter):
    together = segmenter.segment(MOSAIC, 3, 7, tile=64)
    one_by_one = torch.cat(list(segmenter.stream(MOSAIC, 3, 7, tile=64)))
    assert torch.allclose(together.masks, one_by_one, atol=1e-5)
    fewer = segmenter.segment([MOSAIC, MOSAIC.T.copy()], 2, 7, tile=64)
    assert torch.allclose(fewer[0].masks, together.masks[:2], atol=1e-5)
    assert fewer[1].masks.shape == (2, 256, 192)


@pytest.mark.parametrize(("kept", "times"), [(tiling.MOST_KEPT, 1), (0, 3)])
def test_each_window_is_encoded_once_for_all_masks_as_far_as_there_is_room(segmenter, monkeypatch, kept, times):
    seen, original = [], type(segmenter.model).prepare

    def counted(self, batch, *rest):
        seen.extend(batch.places)
        return original(self, batch, *rest)

    monkeypatch.setattr(type(segmenter.model), "prepare", counted)
    monkeypatch.setattr(tiling, "MOST_KEPT", kept)
    masks = torch.cat(list(segmenter.stream(MOSAIC, 3, 7, tile=64)))
    assert len(set(seen)) == 5 * 7 and len(seen) == times * 5 * 7
    assert torch.allclose(masks, segmenter.segment(MOSAIC, 3, 7, tile=64).masks, atol=1e-5)


def test_window_far_from_the_others_is_the_model_s_own_answer(segmenter):
    """The corner of a window that no other overlaps: drawn by the model itself from the same noise."""
    found = segmenter.segment(MOSAIC, 2, 0, tile=64)
    view = segmenter.look(MOSAIC, tile=64)
    window = torch.from_numpy(view.seen[0][None, :, :64, :64]).float() / 255
    batch = Batch(view.names, window, places=[(0, 0)])
    model, sampling = segmenter.model, segmenter.model.resolve(None)
    with torch.inference_mode():
        drawn = model.sample(model.prepare(batch, 2, sampling), batch, range(2), 0, sampling)
    assert torch.allclose(found.masks[:, :32, :32], enlarge(drawn[0], (64, 64))[:, :32, :32], atol=1e-5)


def test_progress_runs_once_from_start_to_end_over_all_windows(segmenter):
    seen = []
    list(segmenter.stream(MOSAIC, 2, tile=64, every=2, callback=seen.append))
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert 0.9 < seen[-1] < 1


def test_every_sampler_and_model_of_orientations_draws_in_windows(segmenter):
    for sampling in (SamplingConfig("ddpm", 3), SamplingConfig(orientations=4)):
        found = segmenter.segment(MOSAIC, 2, tile=64, sampling=sampling)
        assert found.masks.std() > 0


def test_slices_of_a_volume_share_the_field(segmenter):
    views = [replace(segmenter.look(image, tile=64), volume="v") for image in (MOSAIC, MOSAIC[::-1].copy())]
    assert views[0].names == views[1].names


@pytest.mark.parametrize("tile", [0, -64, 31, 40_000, 64.0, True, "64"])
def test_sides_that_are_none_are_refused_in_one_line(segmenter, tile):
    with pytest.raises(ConfigError, match="tile must") as error:
        segmenter.segment(MOSAIC, 1, tile=tile)
    assert error.value.parameter == "tile"


def test_model_of_regions_takes_no_windows(drawing_model):
    trained = load_model(drawing_model)
    trained.recipe = replace(trained.recipe, crop=True)
    cropper = Segmenter(trained)
    with pytest.raises(ConfigError, match="regions that hold a lesion") as error:
        cropper.segment(MOSAIC, 1, tile=64)
    assert error.value.parameter == "tile"


def _skin(side):
    """Dark lesions with soft borders on skin, most of them where four windows meet: uint8 (side, side, 3), and where they are."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    dark = np.zeros((side, side))
    for top in range(256, side, 256):
        for left in range(256, side, 256):
            cy, cx = np.array([top, left]) + rng.uniform(-40, 40, 2)
            away = np.hypot(y - cy, (x - cx) * rng.uniform(0.8, 1.2)) - rng.uniform(40, 70)
            dark = np.maximum(dark, 1 / (1 + np.exp(away / 3)))
    noise = 4 * rng.standard_normal((side, side))
    shade = (220 - 130 * dark + noise)[:, :, None] * np.array([1.0, 0.8, 0.7])
    return shade.clip(0, 255).astype(np.uint8), dark >= 0.5


def _seam(masks, borders, inside):
    """How much more neighbouring pixels differ at some lines than next to them, over the same at other lines; both ways."""
    found = []
    for lines in (borders, inside):
        steps = [(way[:, :, 1:] - way[:, :, :-1]).abs() for way in (masks, masks.transpose(-1, -2))]
        at, before, after = (
            torch.cat([each[:, :, [line - 1 + off for line in lines]] for each in steps]) for off in (0, -1, 1)
        )
        found.append(float(at.mean() / (before + after).mean()))
    return found[0] / found[1]


def test_shipped_model_leaves_no_seams_where_windows_meet():
    """Windows of 256 of an image of 1,024² lie 128 apart; the model of 256² sees them as they are, where latents have 8 pixels
    and its coarsest features 32 pixels of the image, which both sets of lines are multiples of."""
    image, lesions = _skin(1024)
    segmenter = Segmenter.from_pretrained("models/isic2018")
    found = segmenter.segment(image, 2, tile=256, steps=2)
    borders, inside = list(range(128, 1024, 128)), [at for at in range(32, 1024, 32) if at % 128]
    consensus = found.consensus.numpy()
    assert 2 * (consensus & lesions).sum() / (consensus.sum() + lesions.sum()) > 0.5, (
        "so that there is something to cut"
    )
    assert _seam(found.masks, borders, inside) == pytest.approx(1, abs=0.1)
    side_by_side = torch.zeros(1, 1024, 1024)
    for top in range(0, 1024, 256):
        for left in range(0, 1024, 256):
            window = segmenter.segment(image[top : top + 256, left : left + 256], 1, steps=2)
            side_by_side[:, top : top + 256, left : left + 256] = window.masks
    assert _seam(side_by_side, [256, 512, 768], inside) > 3, "a seam would be seen"


def test_command_line_draws_in_windows_and_continues(monkeypatch, drawing_model, tmp_path, capsys):
    Image.fromarray(MOSAIC).save(tmp_path / "mosaic.png")
    call = ("segment", tmp_path / "mosaic.png", "-m", drawing_model, "-o", tmp_path / "out", "-n", 2)
    assert run(monkeypatch, *call) == 0
    whole = json.loads((tmp_path / "out/mosaic/result.json").read_text())
    assert run(monkeypatch, *call, "--tile", 64, "--continue") == 0
    tiled = json.loads((tmp_path / "out/mosaic/result.json").read_text())
    assert tiled["tile"] == 64
    assert "tile" not in whole
    assert tiled["areas"] != whole["areas"]
    capsys.readouterr()
    assert run(monkeypatch, *call, "--tile", 64, "--continue") == 0
    assert "1 image(s) were segmented in the same way before" in capsys.readouterr().out


def test_images_that_one_window_covers_stay_as_they_are(monkeypatch, drawing_model, tmp_path, capsys):
    """Their results hold no windows, and would be the same with and without `--tile`; a volume's too."""
    nibabel = pytest.importorskip("nibabel")
    Image.fromarray(MOSAIC[:64, :64]).save(tmp_path / "small.png")
    nibabel.save(nibabel.Nifti1Image(np.stack([MOSAIC[:60, :50]] * 2, 2).astype(np.int16), None), tmp_path / "v.nii")
    for name, count, forms in (("small.png", 1, ()), ("v.nii", 2, ()), ("v.nii", 2, ("--form", "nifti"))):
        out = tmp_path / f"out-{name}-{len(forms)}"
        call = ("segment", tmp_path / name, "-m", drawing_model, "-o", out, "-n", 2, *forms)
        assert run(monkeypatch, *call, "--tile", 64) == 0
        for again in (("--tile", 64), ("--tile", 80), ()):
            capsys.readouterr()
            assert run(monkeypatch, *call, *again, "--continue") == 0
            assert f"{count} image(s) were segmented in the same way before" in capsys.readouterr().out
        assert run(monkeypatch, *call, "--tile", 48, "--continue") == 0
        assert "in the same way before" not in capsys.readouterr().out


def test_calibration_does_not_hold_in_windows(drawing_model, store, tmp_path):
    folder = save_calibrated(drawing_model, tmp_path / "calibrated")
    segmenter = Segmenter.from_pretrained(folder)
    assert segmenter.segment(MOSAIC).expected is not None
    found = segmenter.segment(MOSAIC, tile=64)
    assert found.expected is None
    assert "off the calibration, which holds for whole images" in found.uncalibrated
    assert found.uncalibrated in found.warnings
    with pytest.raises(InputError, match="windows of 64 pixels"):
        segmenter.outline_alpha(0.1, found.record)


def test_model_that_was_trained_on_windows_is_warned_about_smaller_ones_alone(drawing_model):
    trained = load_model(drawing_model)
    trained.recipe = replace(trained.recipe, augment=replace(trained.recipe.augment, zoom=0.2))
    segmenter = Segmenter(trained)
    small, large = (" ".join(segmenter.segment(MOSAIC, 1, tile=tile).warnings) for tile in (64, 128))
    assert "25 % of its side" in small
    assert "drawn in windows" not in large


def test_volume_is_drawn_in_windows_slice_by_slice(monkeypatch, drawing_model, tmp_path):
    nib = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    volume = np.stack([MOSAIC[:128, :128], MOSAIC[64:, :128]], axis=2).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii.gz")
    call = ("segment", tmp_path / "v.nii.gz", "-m", drawing_model, "-o", tmp_path / "out", "-n", 2, "--tile", 64)
    assert run(monkeypatch, *call) == 0
    for name in ("v", "v-slice-0001", "v-slice-0002"):
        facts = json.loads((tmp_path / "out" / name / "result.json").read_text())
        assert (facts["tile"], facts["noise"]) == (64, "volume")
    assert nib.load(tmp_path / "out/v/consensus.nii.gz").shape == (128, 128, 2)
