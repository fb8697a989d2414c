"""What a result says of itself, and that it is the same whichever door it came through (cases B17, B23, B34)."""

import csv
import errno
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import manymask
from manymask import Segmenter
from manymask.data.case import Batch, pixel_name
from manymask.data.datasets import phantom
from manymask.ensemble import cut
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.evaluation.evaluator import EvalConfig, evaluate, results
from manymask.hub.intended_use import intended
from manymask.hub.model_folder import load_model
from manymask.inference import batch as inference
from manymask.inference import series
from manymask.inference.outputs import Output, pairwise_agreement, write_result
from manymask.inference.placing import put_result
from manymask.inference.summary import write_summary
from manymask.io.atomic import write_json
from manymask.io.record import SourceRecord, pixel_hash
from manymask.models.base import MaskSampler
from manymask.recipes import get_recipe
from manymask.runtime import git_revision
from tests.factories import run


@pytest.fixture(scope="module")
def segmenter(drawing_model) -> Segmenter:
    return Segmenter(load_model(drawing_model))


def test_segment_gives_the_masks_that_evaluate_scores(segmenter, store):
    """Noise is seeded by pixels: not by the case's id, nor by the file's name."""
    scored = []

    class Recorded(MaskSampler):
        setting = segmenter.model.setting

        def resolve(self, sampling=None):
            return segmenter.model.resolve(sampling)

        def prepare(self, batch, n, sampling):
            return segmenter.model.prepare(batch, n, sampling)

        def sample(self, common, batch, which, seed, sampling, callback=None):
            scored.append((batch, segmenter.model.sample(common, batch, which, seed, sampling)))
            return scored[-1][1]

    evaluate(Recorded(), store, store.ids[:3], EvalConfig(samples=3, ged_samples=3, seed=4), "cpu", progress=False)
    ((batch, masks),) = scored
    assert masks.std(dim=1).max() > 0.01  # masks that differ, or equality would say little
    for i, case in enumerate(store.ids[:3]):
        pixels = np.ascontiguousarray(store.images[store.index[case]].transpose(1, 2, 0))
        drawn = segmenter.segment(pixels, samples=3, seed=4).masks
        assert torch.allclose(drawn, masks[i], atol=1e-4)
        assert batch.noise_names[i] == pixel_name(store.images[store.index[case]])
    other_ids = Batch(["x", "y", "z"], batch.image, names=batch.names)
    assert torch.allclose(segmenter.model.sample_all(other_ids, 3, 4), masks, atol=1e-5)
    unnamed = segmenter.model.sample_all(Batch(["x", "y", "z"], batch.image), 3, 4)
    assert not torch.allclose(unnamed, masks, atol=1e-2)


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def photograph(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(phantom.draw(number).image[:, :, 0]).save(path, quality=95)
    return path


def segmented(monkeypatch, model: Path, out: Path, *inputs: object, code: int = 0) -> None:
    assert run(monkeypatch, "segment", *inputs, "--model", model, "--out", out, "--samples", 3) == code


def test_result_tells_model_program_source_and_settings(monkeypatch, drawing_model, tmp_path, capsys):
    image, out = photograph(tmp_path / "lesion.png", 3), tmp_path / "out"
    assert run(monkeypatch, "segment", image, "--model", drawing_model, "--out", out, "--samples", 4, "--seed", 7,
               "--sampler", "ddim", "--steps", 5, "--threshold", 0.4) == 0  # fmt: skip
    told, trained = result(out / "lesion"), load_model(drawing_model)
    use = intended(get_recipe("phantom"))
    assert told["model"] == {
        "name": "model", "recipe": "phantom", "dataset": "phantom", "weights_sha256": trained.fingerprint,
        "purpose": use.purpose, "modality": ["simulation"], "trained_on": use.trained_on,
        "settings_sha256": trained.record.settings_sha256,
    }  # fmt: skip
    pixels = phantom.draw(3).image[:, :, 0]
    assert told["source"] == {"file": "lesion.png", "sop_instance_uids": [], "pixels_sha256": pixel_hash(pixels)}
    assert told["manymask"] == {"version": manymask.__version__, "git": git_revision()}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["created"])
    assert (told["samples"], told["seed"], told["threshold"], told["orientations"]) == (4, 7, 0.4, 1)
    assert told["sampler"] == {"kind": "DDIM", "steps": 5, "eta": 0.0} and told["input"] == "lesion.png"
    for name in ("mask-01.png", "consensus.png", "confidence.png", "overlay.png"):
        text = Image.open(out / "lesion" / name).text
        assert text["Software"].startswith("manymask 0.") and text["Creation Time"] == told["created"]
        inside = json.loads(text["manymask"])
        assert inside == {key: told[key] for key in inside} and {"source", "model", "seed", "sampler"} <= set(inside)


def test_library_and_command_line_tell_and_draw_the_same(monkeypatch, segmenter, drawing_model, tmp_path):
    image, out = photograph(tmp_path / "lesion.png", 3), tmp_path / "out"
    segmented(monkeypatch, drawing_model, out, image)
    told, own = result(out / "lesion"), segmenter.segment(str(image), samples=3)
    facts = json.loads(json.dumps(own.record.facts()))
    different = {key for key in facts if facts[key] != told[key]} - {"created"}
    assert not different and told["warnings"] == list(own.warnings)
    assert told["areas"] == [int((mask >= 0.5).sum()) for mask in own.masks]


@pytest.mark.parametrize("threshold", [0.125, 0.333, 0.005, 0.996])
def test_consensus_has_one_area_at_any_threshold(tmp_path, segmenter, threshold):
    """Case B34: result.json, the PNG and the library agree, and the number of agreement is that of the drawn masks."""
    found = segmenter.segment(phantom.draw(3).image[:, :, 0], samples=3, threshold=threshold)
    facts = {"threshold": threshold, **found.record.facts()}
    write_result(tmp_path / "r", Output(found, found.image, facts))
    shown = int((np.asarray(Image.open(tmp_path / "r/consensus.png")) > 0).sum())
    area = int(cut(found.confidence, threshold).sum())
    assert result(tmp_path / "r")["area_consensus"] == shown == int(found.consensus.sum()) == area
    assert result(tmp_path / "r")["pairwise_iou"] == pairwise_agreement((found.masks >= 0.5).numpy())
    assert 0 < area < found.confidence.numel()


def test_result_of_another_image_is_never_replaced(monkeypatch, drawing_model, tmp_path, capsys):
    """Case B23: two files of one name in two calls are both kept; the same image again replaces its own result."""
    out = tmp_path / "out"
    one, other = photograph(tmp_path / "a/lesion.png", 3), photograph(tmp_path / "b/lesion.jpg", 4)
    segmented(monkeypatch, drawing_model, out, one)
    capsys.readouterr()
    segmented(monkeypatch, drawing_model, out, other)
    said = capsys.readouterr().err
    assert f"{out / 'lesion'} holds the result of another image, which stays; this one is in {out / 'lesion-2'}" in said
    for again in (other, one):
        segmented(monkeypatch, drawing_model, out, again)
        assert "1 earlier result(s) of the same images replaced" in capsys.readouterr().out
    assert {p.parent.name: result(p.parent)["input"] for p in out.glob("*/result.json")} == {
        "lesion": "lesion.png", "lesion-2": "lesion.jpg"
    }  # fmt: skip


def test_two_patients_with_equal_numbers_are_both_kept(monkeypatch, drawing_model, tmp_path):
    """Case B23 in DICOM: series 4, image 1 of two patients, with equal pixels even."""
    pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    from tests.dicom_sources import ct_series

    paths, uids = [], []
    for name in ("A", "B"):
        (dataset,) = ct_series(1)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{ord(name)}"
        dataset.SeriesInstanceUID = f"1.2.4.{ord(name)}"
        paths.append(tmp_path / f"{name}.dcm")
        uids.append(str(dataset.SOPInstanceUID))
        dataset.save_as(paths[-1], enforce_file_format=True)
    for path in paths:
        segmented(monkeypatch, drawing_model, tmp_path / "out", path)
    kept = [
        result(tmp_path / "out" / name)["source"] for name in ("series-0004-image-0001", "series-0004-image-0001-2")
    ]
    assert [source["sop_instance_uids"] for source in kept] == [[uid] for uid in uids]
    assert kept[0]["file"] is None and kept[0]["pixels_sha256"] == kept[1]["pixels_sha256"]
    segmented(
        monkeypatch, drawing_model, tmp_path / "out", paths[0], "--window", "lung"
    )  # the same source, shown otherwise
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 2
    segmented(monkeypatch, drawing_model, tmp_path / "hidden", paths[0], "--anonymise")
    source = result(tmp_path / "hidden" / "series-0004-image-0001")["source"]
    assert source == kept[0] | {"sop_instance_uids": []}


def test_what_a_source_leaves_untold_does_not_tell_it_apart():
    known = SourceRecord("a.png", (), "11")
    assert not known.differs(SourceRecord(None, (), "11")) and not known.differs(known)
    assert known.differs(SourceRecord("b.png", (), "11")) and known.differs(SourceRecord("a.png", (), "12"))
    assert SourceRecord.read({"input": "a.png"}).differs(known) and SourceRecord.read([]).differs(known)
    assert SourceRecord("", ("1.2",), "1").differs(SourceRecord("", ("1.3",), "1"))
    assert SourceRecord.read(json.loads(json.dumps({"source": asdict(known)}))) == known


def test_programs_writing_to_one_folder_at_once_lose_nothing(tmp_path):
    def write(k: int) -> Path:
        def fill(folder: Path) -> None:
            write_json(folder / "result.json", {"source": asdict(SourceRecord(None, (), str(k)))})

        return put_result(tmp_path, "lesion", SourceRecord(None, (), str(k)), fill).path

    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(write, range(16)))
    assert len(set(places)) == 16
    assert all(result(place)["source"]["pixels_sha256"] == str(k) for k, place in enumerate(places))
    assert {p.name for p in tmp_path.iterdir()} == {place.name for place in places}


def test_name_that_is_no_unicode_is_segmented_and_the_batch_goes_on(monkeypatch, drawing_model, tmp_path, capfd):
    """Case B17: Latin-1 names from a ZIP of Windows."""
    photograph(tmp_path / "in/a.png", 1).rename(os.fsdecode(bytes(tmp_path / "in" / "x")[:-1] + b"l\xe9sion.png"))
    photograph(tmp_path / "in/z.png", 2)
    segmented(monkeypatch, drawing_model, tmp_path / "out", tmp_path / "in")
    assert "2 of 2" in capfd.readouterr().out
    told = result(tmp_path / "out" / os.fsdecode(b"l\xe9sion"))
    assert told["input"] == told["source"]["file"] == os.fsdecode(b"l\xe9sion.png")
    assert b"l\\udce9sion" in (tmp_path / "out/summary.csv").read_bytes()


@pytest.mark.parametrize("error", [OSError(errno.ENAMETOOLONG, "File name too long"), RuntimeError("x"), MemoryError()])
def test_one_failing_image_never_ends_the_run_of_the_others(monkeypatch, drawing_model, tmp_path, capsys, error):
    for k in (1, 2, 3):
        photograph(tmp_path / f"in/{k}.png", k)
    real = inference.fill_aside

    def failing(out, name, *rest):
        if name == "2":
            raise error
        return real(out, name, *rest)

    monkeypatch.setattr(inference, "fill_aside", failing)
    segmented(monkeypatch, drawing_model, tmp_path / "out", tmp_path / "in", code=2)
    said = capsys.readouterr()
    assert "2 of 3 image(s) segmented" in said.out
    told = [line for line in said.err.splitlines() if "manymask: " in line and "warning" not in line]
    assert len(told) == 1 and "2.png" in told[0]
    assert {p.parent.name for p in (tmp_path / "out").glob("*/result.json")} == {"1", "3"}


def test_full_disk_stops_and_tells_how_many_are_written(monkeypatch, drawing_model, tmp_path, capsys):
    for k in (1, 2, 3):
        photograph(tmp_path / f"in/{k}.png", k)
    real = series.fill_result

    def full(folder, output):
        real(folder, output)
        if output.facts["input"] == "2.png":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(series, "fill_result", full)
    segmented(monkeypatch, drawing_model, tmp_path / "out", tmp_path / "in", code=2)
    said = capsys.readouterr()
    line = f"manymask: {tmp_path / 'out' / '2'}: No space left on device: stopped, 1 of 3 image(s) written"
    assert line in said.err and {p.name for p in (tmp_path / "out").iterdir()} == {"1", "summary.csv"}


def test_summary_tells_what_to_look_at_first(tmp_path):
    for name, iou, more in (("sure", 0.9, {}), ("torn", 0.2, {"warnings": ["Look."]}), ("one", None, {})):
        write_json(tmp_path / name / "result.json", {"input": f"{name}.png", "areas": [10, 20, 30], "area_consensus": 19,
                   "pairwise_iou": iou, "mean_entropy_bits": 0.1, **more})  # fmt: skip
    mm = {"areas": [1, 3], "areas_mm2": [0.5, 1.5], "area_consensus": 2, "area_consensus_mm2": 1.0, "pairwise_iou": 0.5}
    write_json(tmp_path / "ct" / "result.json", {"input": "ct", **mm})
    write_json(tmp_path / "series" / "result.json", {"images": ["ct"]})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/result.json").write_text("{")
    assert write_summary(tmp_path) == tmp_path / "summary.csv"
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == ["torn", "ct", "sure", "one"]
    assert (rows[0]["area_mean"], rows[0]["area_sd"], rows[0]["unit"], rows[0]["warnings"]) == (
        "20.0",
        "10.0",
        "px",
        "Look.",
    )
    assert (rows[1]["area_mean"], rows[1]["area_sd"], rows[1]["unit"], rows[1]["area_consensus"]) == (
        "1.0",
        "0.7071",
        "mm2",
        "1.0",
    )
    assert (rows[0]["area_low"], rows[0]["area_high"]) == ("11.0", "29.0")  # 5th and 95th percentile of 10, 20, 30
    (tmp_path / "summary.csv").write_text("my own notes")
    with pytest.raises(InputError, match=r"summary\.csv is not ours"):
        write_summary(tmp_path)
    assert (tmp_path / "summary.csv").read_text() == "my own notes"


def test_dicom_seg_tells_model_program_and_settings(monkeypatch, drawing_model, tmp_path):
    highdicom = pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    from tests.dicom_sources import ct_series

    (dataset,) = ct_series(1)
    dataset.save_as(tmp_path / "A.dcm", enforce_file_format=True)
    model = tmp_path / "my-lesions"
    shutil.copytree(drawing_model, model)
    segmented(monkeypatch, model, tmp_path / "out", tmp_path / "A.dcm")
    told = result(tmp_path / "out/series-0004-image-0001")
    seg = highdicom.seg.segread(tmp_path / "out/series-0004-image-0001/masks.dcm")
    assert seg.SeriesDescription == "my-lesions: masks (manymask, research use)"
    versions = [text for text in told["manymask"].values() if text]
    equipment = seg.ContributingEquipmentSequence[0]
    for item in (seg, equipment):
        assert [str(v) for v in np.atleast_1d(item.SoftwareVersions)] == versions
    assert equipment.ContributionDescription.endswith(told["model"]["weights_sha256"])
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    for part in ("model=my-lesions", "recipe=phantom", f"weights_sha256={told['model']['weights_sha256']}", "seed=0",
                 "samples=3", "orientations=1", "threshold=0.5", "sampler.kind=DDIM", "sampler.steps=3"):  # fmt: skip
        assert part in algorithm.AlgorithmParameters
    assert told["warnings"][-1].startswith("The image is CT, but the model was trained on simulation")


def test_library_takes_what_the_command_line_takes_and_refuses_the_rest(segmenter, tmp_path):
    pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    from tests.dicom_sources import ct_series, enhanced_ct

    (dataset,) = ct_series(1)
    dataset.save_as(tmp_path / "A.dcm", enforce_file_format=True)
    found = segmenter.segment(tmp_path / "A.dcm", samples=2)
    assert found.record.source.sop_instance_uids == (dataset.SOPInstanceUID,) and found.record.source.file is None
    enhanced_ct(2).save_as(tmp_path / "many.dcm", enforce_file_format=True)
    grey = phantom.draw(3).image[:, :, 0]
    assert torch.equal(segmenter.segment(torch.from_numpy(grey), 2).masks, segmenter.segment(grey, 2).masks)
    for image, asked, message in [
        (tmp_path / "many.dcm", {}, r"many\.dcm holds several pictures"),
        ([grey, [grey]], {}, "an image is a path, bytes, .* not a list"),
        (None, {}, "not a NoneType"),
        (grey, {"sampler": "dimm"}, r"sampler: 'dimm' is none of ddim, ddpm, .* no object such as DDIM\(10\)"),
        (grey, {"samples": "5"}, "samples must be a whole number, not '5'"),
        (grey, {"seed": 0.5}, r"seed must be a whole number, not 0\.5"),
        (grey, {"threshold": 2}, "threshold must lie between 0 and 1, not 2"),
    ]:
        with pytest.raises(ManymaskError, match=message):
            segmenter.segment(image, **asked)
    with pytest.raises(TypeError, match="temperature"):
        segmenter.segment(grey, temperature=1)
    with pytest.raises(ConfigError, match="no argument temperature"):
        Segmenter.from_pretrained(str(tmp_path), temperature=1)
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        Segmenter(segmenter.trained, device="gpu")


def test_results_of_evaluate_name_the_weights(segmenter, store):
    scores = evaluate(segmenter.model, store, store.ids[:1], EvalConfig(samples=2, ged_samples=2), progress=False)
    found = results(segmenter.trained, store, "train", EvalConfig(), scores).to_dict()
    assert found["model"]["weights_sha256"] == segmenter.trained.fingerprint


def test_a_summary_that_cannot_be_written_is_no_success(monkeypatch, drawing_model, tmp_path, capsys):
    """Somebody else's file of that name stays, and the run does not end as if all was there."""
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/summary.csv").write_text("my own notes")
    assert run(monkeypatch, "segment", tmp_path / "a.png", "--model", drawing_model, "--out", tmp_path / "out") == 2
    assert "summary.csv is not ours" in capsys.readouterr().err
    assert (tmp_path / "out/a/result.json").exists() and (tmp_path / "out/summary.csv").read_text() == "my own notes"


def test_a_picture_called_like_the_summary_leaves_it_its_name(monkeypatch, drawing_model, tmp_path):
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(tmp_path / "summary.csv.png")
    out = tmp_path / "out"
    assert run(monkeypatch, "segment", tmp_path / "summary.csv.png", "--model", drawing_model, "--out", out) == 0
    assert (out / "summary.csv").is_file() and (out / "summary.csv-2/result.json").exists()
