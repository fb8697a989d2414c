"""Somebody's folder is scored as it lies: the same numbers as from a store, and nothing is left behind."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manymask import api
from manymask.data.case import Source
from manymask.data.datasets import folder
from manymask.data.datasets.phantom import read as phantoms
from manymask.data.store import prepare
from manymask.errors import ConfigError, InputError
from manymask.evaluation.external import FolderReading, about_lesions, data_to_score
from manymask.hub.model_folder import load_model
from manymask.io.masks import MaskReading
from tests.data.test_prepare import blob, photo, save
from tests.factories import run

QUICK = {"samples": 2, "ged_samples": 3, "progress": False}


def lay_out(root: Path, cases, raters: int = 4, name="{}") -> Path:
    """Phantoms as files: images, and a folder of masks for each rater."""
    for case in cases:
        image, masks = case.read()
        save(root / "images" / f"{name.format(case.id)}.png", image[:, :, 0])
        for k in range(raters):
            place = f"masks-{k}" if raters > 1 else "masks"
            save(root / place / f"{name.format(case.id)}.png", masks[k].astype(np.uint8) * 255)
    return root


def test_a_folder_gives_the_numbers_of_a_store(drawing_model, tmp_path):
    cases = phantoms().cases[:5]
    scheme = {"all": {"train": [], "val": [], "test": sorted(case.id for case in cases)}}
    store = prepare(Source("p", cases, scheme, ""), tmp_path / "store", 64, 1)
    kept = api.evaluate(drawing_model, store, **QUICK)
    found = api.evaluate(drawing_model, lay_out(tmp_path / "in", cases), **QUICK)
    assert found.cases == kept.cases and found.metrics == kept.metrics and len(found.cases) == 5
    assert (
        found.data.scheme == found.protocol["split"] == "all"
        and found.metrics["ged"]["n"] == 5
        and found.baselines == kept.baselines
    )


def test_a_folder_calibrates_as_a_store_of_it_does(drawing_model, tmp_path, monkeypatch, capsys):
    cases = phantoms().cases[:20]
    source = lay_out(tmp_path / "in", cases)
    store = prepare(Source("p", cases, {"all": {"train": [], "val": [], "test": []}}, ""), tmp_path / "store", 64, 1)
    kept = api.calibrate(drawing_model, store, split="all", samples=2, alphas=(0.2,), progress=False)
    flags = ("calibrate", "--model", drawing_model, "--data", source, "--samples", 2, "--alphas", 0.2)
    assert run(monkeypatch, *flags, "--out", tmp_path / "calibrated") == 0
    found = load_model(tmp_path / "calibrated").calibration
    assert (found.risks[0].outer, found.risks[0].inner) == pytest.approx(
        (kept.risks[0].outer, kept.risks[0].inner), 1e-5
    )
    assert found.origin.cases == kept.origin.cases and len(found.origin.cases) == 20
    assert (found.origin.split, found.origin.scheme) == ("all", "all")
    assert "layout: images in images" in capsys.readouterr().out
    assert run(monkeypatch, *flags, "--out", tmp_path / "other", "--split", "val") == 2
    assert "not split into train, val and test" in capsys.readouterr().err
    for mask in source.glob("masks*/**/*.png"):
        Image.fromarray(~np.asarray(Image.open(mask))).save(mask)
    assert run(monkeypatch, *flags, "--out", tmp_path / "inverted", "--invert") == 0
    assert load_model(tmp_path / "inverted").calibration.risks == found.risks
    read = api.calibrate(
        drawing_model, source, samples=2, alphas=(0.2,), progress=False, reading=FolderReading(MaskReading(invert=True))
    )
    assert read.risks[0].outer == pytest.approx(found.risks[0].outer, 1e-5)


def test_nothing_is_left_behind_and_what_was_found_is_printed(drawing_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    source = lay_out(tmp_path / "in", phantoms().cases[:4], raters=1)
    flags = ("evaluate", "--model", drawing_model, "--data", source, "--samples", 2, "--out", tmp_path / "scores")
    assert run(monkeypatch, *flags) == 0
    told = capsys.readouterr().out
    assert "layout: images in images, masks in masks; one rater" in told and "4 cases" in told
    assert "failures (Dice below 0.7): 4 of 4: " in told and "The model is not calibrated" in told
    assert list((tmp_path / "t").iterdir()) == [] and sorted(p.name for p in tmp_path.iterdir()) == [
        "in",
        "scores",
        "t",
    ]
    assert {"results.json", "figure.png"} == {p.name for p in (tmp_path / "scores").iterdir()}


def test_images_of_any_size_and_colour_are_scored_at_their_own(drawing_model, tmp_path):
    for k, shape in enumerate(((40, 90), (200, 130), (64, 64))):
        save(tmp_path / f"{k}.png", photo(k, shape) if k else photo(k, shape)[:, :, 1])
        save(tmp_path / f"{k}_mask.png", blob(shape))
    with data_to_score(tmp_path, load_model(drawing_model).recipe) as scored:
        assert [scored.store.native_masks(case).shape for case in "012"] == [(1, 40, 90), (1, 200, 130), (1, 64, 64)]
        assert scored.store.channels == 1 and scored.temporary
    assert len(api.evaluate(drawing_model, tmp_path, **QUICK).cases) == 3


def test_raters_who_did_not_read_do_not_count(drawing_model, tmp_path):
    source = lay_out(tmp_path / "in", phantoms().cases[:4], raters=2)
    (source / "masks-1" / f"{phantoms().cases[1].id}.png").unlink()
    found = api.evaluate(drawing_model, source, **QUICK)
    assert found.metrics["dice"]["n"] == 4 and found.metrics["ged"]["n"] == 4
    with data_to_score(source, load_model(drawing_model).recipe) as scored:
        assert scored.store.read_by.tolist() == [[True, True], [True, False], [True, True], [True, True]]


def test_images_that_the_model_was_trained_on_are_named_and_the_others_scored_alone(
    trained_run, store, tmp_path, monkeypatch, capsys
):
    train = set(store.part(None, "train"))
    seen = [case for case in phantoms().cases[:24] if case.id in train][:2]
    source = lay_out(tmp_path / "in", [*seen, *phantoms().cases[100:103]], raters=1, name="their-{}")
    assert run(monkeypatch, "evaluate", "--model", trained_run, "--data", source, "--samples", 2) == 0
    told = capsys.readouterr()
    assert "2 of 5 images look like images that the model was trained on" in told.err
    assert "2 of 5 images look like training images. Dice of the others" in told.out
    found = api.evaluate(trained_run, source, **QUICK)
    known = {f"their-{case.id}" for case in seen}
    others = [case["dice"] for case in found.cases if case["id"] not in known]
    assert set(found.leak["cases"]) == known and found.leak["unseen_dice"]["mean"] == pytest.approx(np.mean(others))


def test_a_part_of_the_owners_split_can_be_scored_alone(drawing_model, tmp_path):
    cases = phantoms().cases[:7]
    for part, own in (("train", cases[:4]), ("test", cases[4:])):
        lay_out(tmp_path / part, own, raters=1)
    assert len(api.evaluate(drawing_model, tmp_path, **QUICK).cases) == 7
    assert len(api.evaluate(drawing_model, tmp_path, split="test", **QUICK).cases) == 3
    with pytest.raises(ConfigError, match="is not split into train, val and test: all of it is scored"):
        api.evaluate(drawing_model, tmp_path / "train", split="val", **QUICK)


def test_what_cannot_be_used_is_refused_or_left_out_by_name(drawing_model, tmp_path):
    source = lay_out(tmp_path, phantoms().cases[:4], raters=1)
    (source / "images/broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png has no mask") as caught:
        api.evaluate(drawing_model, source, **QUICK)
    assert "skip_bad" in caught.value.remedies
    assert len(api.evaluate(drawing_model, source, reading=FolderReading(skip_bad=True), **QUICK).cases) == 4


def test_labels_are_chosen_for_a_folder_and_refused_for_a_store(drawing_model, store, tmp_path, monkeypatch, capsys):
    for k in range(3):
        save(tmp_path / f"images/{k}.png", photo(k))
        save(tmp_path / f"masks/{k}.png", blob(value=1) + np.roll(blob(value=2), 12, axis=0))
    assert run(monkeypatch, "evaluate", "--model", drawing_model, "--data", tmp_path) == 2
    assert "--mask-labels" in capsys.readouterr().err
    reading = FolderReading(MaskReading(labels=(2,)))
    with data_to_score(tmp_path, load_model(drawing_model).recipe, reading=reading) as scored:
        assert scored.store.native_masks("0").sum() == 180
    with pytest.raises(ConfigError, match="were read when it was prepared"):
        api.evaluate(drawing_model, store, reading=reading, **QUICK)


# --- models of regions


def ct(root: Path, spots, shape=(200, 240)) -> None:
    """A DICOM slice in Hounsfield units with a mask that marks square spots of 12 pixels about (x, y)."""
    from tests import dicom_files as dicom

    pixels = np.random.default_rng(0).integers(0, 3000, shape).astype(np.uint16)
    mask = np.zeros(shape, np.uint8)
    for x, y in spots:
        mask[y - 6 : y + 6, x - 6 : x + 6] = 255
    name = f"slice{len(list(root.glob('images/*')))}"
    dicom.save(root / f"images/{name}.dcm", dicom.slice_at(0, pixels))
    save(root / f"masks/{name}.png", mask)


def test_a_model_of_regions_is_given_the_middle_of_each_lesion(tmp_path):
    pytest.importorskip("pydicom")
    ct(tmp_path, [(100, 90)])
    ct(tmp_path, [(30, 20), (180, 150)])
    ct(tmp_path, [])
    source = about_lesions(folder.read_to_score(tmp_path, 1, window="values"), 128)
    assert [case.id for case in source.cases] == ["slice0@100,90", "slice1@30,20", "slice1@180,150"]
    assert source.schemes["all"]["test"] == [case.id for case in source.cases]
    assert "1 image(s) without a lesion left out" in source.notes[-1] and "given the middle of each" in source.notes[-2]
    for case, (row, column) in zip(source.cases, ((64, 64), (20, 30), (78, 68)), strict=True):
        image, masks = case.read()
        assert image.shape == (128, 128, 1) and masks.shape == (1, 128, 128) and masks.sum() >= 144
        assert masks[0, row - 6 : row + 6, column - 6 : column + 6].all()
    assert image.min() == 0 and image.max() == 255  # stretched from the Hounsfield units of the square


def test_a_shipped_model_of_regions_scores_ct_slices(tmp_path):
    pytest.importorskip("pydicom")
    ct(tmp_path, [(100, 90)])
    ct(tmp_path, [(60, 130)], shape=(190, 100))
    found = api.evaluate(Path(__file__).parents[2] / "models/lidc_idri", tmp_path, samples=1, limit=2, progress=False)
    assert [case["id"] for case in found.cases] == ["slice0@100,90", "slice1@60,130"]
    assert "calibration" in found.promises["why_not"]


def test_crops_of_the_models_own_size_stay_as_they_are(tmp_path):
    for k in range(3):
        save(tmp_path / f"images/{k}.png", photo(k, (128, 128))[:, :, 0])
        save(tmp_path / f"masks/{k}.png", blob((128, 128)))
    source = folder.read_to_score(tmp_path, 1)
    assert (
        list(about_lesions(source, 128).cases) == list(source.cases)
        and about_lesions(source, 128).notes == source.notes
    )
    nothing = replace(source, cases=[], schemes={})
    with pytest.raises(InputError, match="no image has a lesion"):
        about_lesions(nothing, 128)
