"""Every result carries what it promises: files, summary, SEG, NIfTI; and says so where it promises nothing."""

import csv
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from manymask import Segmenter
from manymask.calibration.calibration import Assessment, worst
from manymask.data.datasets import phantom
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import InputError
from manymask.evaluation.calibrate import sampling_record
from manymask.evaluation.publish import with_sampling
from manymask.hub.model_folder import load_model, save_model
from manymask.inference.cautions import doubts
from manymask.nn.losses import WeightedCE
from tests.factories import perturb, run, save_calibrated


@pytest.fixture(scope="module")
def calibrated(drawing_model, tmp_path_factory):
    return save_calibrated(drawing_model, tmp_path_factory.mktemp("calibrated") / "model")


@pytest.fixture
def image(tmp_path):
    Image.fromarray(phantom.draw(3).image[:, :, 0]).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


def result(folder):
    return json.loads((folder / "result.json").read_text())


def shown(path):
    return np.asarray(Image.open(path)) > 0


@pytest.mark.usefixtures("one_thread")
def test_calibrated_result_holds_the_outlines_and_the_numbers_of_the_library(monkeypatch, calibrated, image, tmp_path):
    assert run(monkeypatch, "segment", image, "--model", calibrated, "--out", tmp_path / "out", "--alpha", 0.2) == 0
    found, folder = Segmenter.from_pretrained(calibrated).segment(image), tmp_path / "out/lesion"
    promises = result(folder)["promises"]
    assert promises == json.loads(json.dumps({**found.promises(), "alpha": 0.2}))
    assert promises["worst"] == asdict(found.assessments[0]) and promises["dice_threshold"] == 0.5
    assert promises["worst"]["dice"] == pytest.approx(0.8) and promises["worst"]["presence"] == pytest.approx(0.75)
    for name, threshold in (("inner", 0.6), ("outer", 0.4)):
        assert (shown(folder / f"{name}.png") == (found.confidence >= threshold).numpy()).all()
        assert promises["outlines"][2][f"{name}_area"] == shown(folder / f"{name}.png").sum() > 0
        assert json.loads(Image.open(folder / f"{name}.png").text["manymask"])["alpha"] == 0.2
    deep = np.asarray(Image.open(folder / "probability.png"))
    confidence = found.confidence.double().numpy()
    odds = np.sqrt(confidence / (1 - confidence))  # a temperature of 2
    assert deep.dtype == np.uint16 and np.abs(deep / 65535 - odds / (1 + odds)).max() < 1e-4


def test_outlines_are_those_of_a_tenth_unless_another_share_is_given(monkeypatch, calibrated, image, tmp_path):
    assert run(monkeypatch, "segment", image, "--model", calibrated, "--out", tmp_path / "out") == 0
    promises = result(tmp_path / "out/lesion")["promises"]
    assert promises["alpha"] == 0.1 and promises["outlines"][1]["alpha"] == 0.1
    assert shown(tmp_path / "out/lesion/outer.png").sum() == promises["outlines"][1]["outer_area"]


def test_model_without_calibration_says_so_and_writes_no_outline(monkeypatch, drawing_model, image, tmp_path, capsys):
    assert run(monkeypatch, "segment", image, "--model", drawing_model, "--out", tmp_path / "out") == 0
    promises = result(tmp_path / "out/lesion")["promises"]
    assert promises["calibrated"] is False and promises["why_not"].startswith("The model is not calibrated")
    assert not {p.stem for p in (tmp_path / "out/lesion").iterdir()} & {"inner", "outer", "probability"}
    assert "calibrated" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("calibrated", ("--alpha", 0.3), r"not calibrated for a share of 0.3; choose 0.05, 0.1, 0.2 (--alpha)"),
        ("calibrated", ("--alpha", 0.1, "--samples", 3), "off the calibration, which holds for 5 masks"),
        ("drawing_model", ("--alpha", 0.1), "The model is not calibrated"),
    ],
)
def test_share_that_nothing_is_promised_for_is_refused(
    monkeypatch, request, image, tmp_path, capsys, model, flags, message
):
    folder = request.getfixturevalue(model)
    assert run(monkeypatch, "segment", image, "--model", folder, "--out", tmp_path / "out", *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("manymask:")]
    assert message in line and not (tmp_path / "out").exists()


def test_other_settings_than_those_of_the_calibration_promise_nothing(monkeypatch, calibrated, image, tmp_path, capsys):
    assert run(monkeypatch, "segment", image, "--model", calibrated, "--out", tmp_path / "out", "--samples", 3) == 0
    told = result(tmp_path / "out/lesion")
    assert told["promises"]["calibrated"] is False and "off the calibration" in told["promises"]["why_not"]
    assert told["promises"]["why_not"] in told["warnings"] and "off the calibration" in capsys.readouterr().err
    assert not (tmp_path / "out/lesion/inner.png").exists()


def test_the_same_weights_with_another_share_of_the_mask_head_are_other_masks(
    monkeypatch, drawing_model, image, tmp_path, capsys
):
    """A calibration of the masks without the head does not hold, and no result of an earlier run is kept."""
    plain = load_model(drawing_model)
    recipe = replace(plain.recipe, segmenter=replace(plain.recipe.segmenter, auxiliary=WeightedCE(1)))
    save_model(replace(plain, recipe=recipe, model=perturb(recipe.build("segmenter"), scale=0.2)), tmp_path / "drawn")
    before = load_model(save_calibrated(tmp_path / "drawn", tmp_path / "before"))
    after = with_sampling(before, SamplingConfig(head_share=0.4))
    save_model(after, tmp_path / "kept")
    with pytest.raises(InputError, match="made for other settings"):
        load_model(tmp_path / "kept")
    save_model(replace(after, calibration=None), tmp_path / "after")
    assert after.fingerprint == before.fingerprint

    def drawn(name):
        assert run(monkeypatch, "segment", image, "--model", tmp_path / name, "--out", tmp_path / "out") == 0
        return result(tmp_path / "out/lesion"), capsys.readouterr()

    told, _ = drawn("before")
    assert told["promises"]["calibrated"] and "head_share" not in told
    told, said = drawn("after")
    assert told["head_share"] == 0.4 and not told["promises"]["calibrated"] and "kept" not in said.out + said.err
    assert "(other here: the mask head's share)" in Segmenter(after).segment(image).promises()["why_not"]
    after.calibration = replace(
        before.calibration,
        origin=replace(before.calibration.origin, sampling=sampling_record(after.segmenter, 5, None)),
    )
    assert Segmenter(after).segment(image).promises()["calibrated"]
    before.calibration = after.calibration
    assert "the mask head's share" in Segmenter(before).segment(image).uncalibrated
    asked = SamplingConfig(head_share=0.4)
    found = Segmenter(before).segment(image, sampling=asked)
    assert found.promises()["calibrated"] and torch.equal(found.masks, Segmenter(after).segment(image).masks)


def test_predicted_dice_is_never_that_of_another_threshold(calibrated, image):
    found = Segmenter.from_pretrained(calibrated).segment(image, threshold=0.9)
    assert (
        "The predicted Dice is that of the consensus at 0.5: it does not hold for this one, cut at 0.9."
        in found.warnings
    )
    assert found.promises()["dice_threshold"] == 0.5
    bad = Assessment(0.3, 0.1, 0.6, 0.9)
    assert "The consensus at 0.5 is probably wrong" in doubts([bad], (), 0.9)[1]
    assert doubts([bad], ())[0].startswith("The consensus is probably wrong")


def test_most_doubtful_region_stands_for_all_and_one_foreign_region_is_enough():
    good = Assessment(0.9, 0.8, 1.0, 0.01, 0.99, 40.0, 0.01, True)
    bad = Assessment(0.4, 0.2, 0.7, 0.95, 0.9, 1.0, 0.5, False)
    assert worst([good, bad]) == Assessment(0.4, 0.2, 0.7, 0.95, 0.9, 40.0, 0.01, True)
    assert worst([bad]) == bad and worst([]) is None


def test_summary_lists_predictions_and_takes_results_of_before(monkeypatch, calibrated, image, tmp_path):
    Image.fromarray(phantom.draw(4).image[:, :, 0]).save(tmp_path / "other.png")
    foreign = save_calibrated(calibrated, tmp_path / "foreign", foreign=True)
    out = tmp_path / "out"
    assert run(monkeypatch, "segment", image, "--model", foreign, "--out", out) == 0
    assert run(monkeypatch, "segment", tmp_path / "other.png", "--model", calibrated, "--out", out) == 0
    shutil.copytree(out / "other", out / "old")
    (out / "old/result.json").write_text(
        json.dumps({k: v for k, v in result(out / "other").items() if k != "promises"})
    )
    assert run(monkeypatch, "segment", image, "--model", foreign, "--out", out) == 0
    rows = {row["name"]: row for row in csv.DictReader((out / "summary.csv").read_text(encoding="utf-8").splitlines())}
    names = ("predicted_dice", "presence", "foreign")
    assert [rows["lesion"][name] for name in names] == ["0.8", "0.75", "yes"]
    assert [rows["other"][name] for name in names] == ["0.8", "0.75", "no"]
    assert [rows["old"][name] for name in (*names, "dice_low", "dice_high", "failure")] == [""] * 6
    assert float(rows["other"]["dice_low"]) < 0.8 < float(rows["other"]["dice_high"])
    assert "unlike the training images" in rows["lesion"]["warnings"]


def test_volume_holds_outlines_and_the_promises_of_every_slice(monkeypatch, calibrated, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    volume = np.stack([phantom.draw(k).image[:, :, 0].T for k in range(3)], axis=2).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "Mueller_Eva.nii.gz")
    flags = ("--model", calibrated, "--out", tmp_path / "out", "--anonymise")
    assert run(monkeypatch, "segment", tmp_path / "Mueller_Eva.nii.gz", *flags) == 0
    told = result(tmp_path / "out/volume")["promises"]
    names = [f"volume-slice-{k:04}" for k in (1, 2, 3)]
    slices = [result(tmp_path / "out" / name)["promises"] for name in names]
    assert told["images"] == [{"image": n, **s["worst"]} for n, s in zip(names, slices, strict=True)]
    assert told["worst"] in told["images"] and told["alpha"] == 0.1 and told["calibrated"] is True
    for name in ("inner", "outer"):
        image = nibabel.load(tmp_path / "out/volume" / f"{name}.nii.gz")
        areas = np.asarray(image.dataobj).sum(axis=(0, 1)).tolist()
        assert areas == [s["outlines"][1][f"{name}_area"] for s in slices]
        assert image.header["descrip"].item().decode() == f"{name} outline, alpha 0.1"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files and not any(b"Mueller" in path.read_bytes() or "Mueller" in path.name for path in files)


def test_dicom_seg_holds_both_outlines_and_the_predicted_dice(monkeypatch, calibrated, tmp_path):
    highdicom = pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    from tests.dicom_sources import ct_series

    (tmp_path / "in").mkdir()
    for k, dataset in enumerate(ct_series(2)):
        dataset.save_as(tmp_path / f"in/{k}.dcm", enforce_file_format=True)
    uids = []
    for alpha in (0.1, 0.2):
        out = tmp_path / f"out-{alpha}"
        assert run(monkeypatch, "segment", tmp_path / "in", "--model", calibrated, "--out", out, "--alpha", alpha) == 0
        seg = highdicom.seg.segread(out / "series-0004/masks.dcm")
        uids.append(seg.SeriesInstanceUID)
        labels = [str(s.SegmentLabel) for s in seg.SegmentSequence]
        assert labels[6:] == [f"Inner outline (alpha {alpha})", f"Outer outline (alpha {alpha})"]
        said = [str(seg.SegmentSequence[k].get("SegmentDescription", "")) for k in (0, 1, 6, 7)]
        assert said[0].startswith("Predicted Dice of the consensus at 0.5: 0.80 (90 % interval 0.")
        assert said[0].endswith("in the worst of 2 slices, at most 0.80") and said[1] == ""
        share = f"At most {100 * alpha:g} % of"
        assert said[2].startswith(f"{share} its pixels are no lesion") and said[3].startswith(
            f"{share} the lesion's pixels"
        )
        for name in ("series-0004-image-0001", "series-0004-image-0002"):
            (uid,) = result(out / name)["source"]["sop_instance_uids"]
            (held,) = seg.get_pixels_by_source_instance([uid], assert_missing_frames_are_empty=True)
            for column, outline in ((6, "inner"), (7, "outer")):
                assert ((held[..., column] > 0) == shown(out / name / f"{outline}.png")).all()
    assert uids[0] != uids[1], "viewers show one object a series"


def test_calibration_of_the_test_is_read_back(calibrated):
    assert load_model(calibrated).calibration.alphas == (0.05, 0.1, 0.2)
