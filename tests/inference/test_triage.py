"""`manymask triage`: the order of review, what it promises, that it resumes, and what it exports."""

import csv
import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from manymask import Segmenter
from manymask.calibration.calibration import Calibration, Origin
from manymask.calibration.confidence import Temperature
from manymask.calibration.evidence import NAMES
from manymask.calibration.foreignness import Foreignness
from manymask.calibration.quality import fit_quality
from manymask.calibration.risk import RiskControl
from manymask.data.datasets import phantom
from manymask.data.store import Store
from manymask.hub.model_folder import load_model, save_calibration, save_model
from manymask.inference import labelling
from manymask.inference.thumbnail import SIDE
from manymask.io.dicom.series import Series
from manymask.io.image import DicomFrame
from manymask.io.inputs import Raster
from manymask.io.record import SourceRecord
from tests.factories import run

COUNT = 6


def calibration(segmenter, created="2026-01-01T00:00:00Z", foreign=None):
    """One that expects a Dice of about the agreement."""
    rng = np.random.default_rng(0)
    rows = rng.random((40, len(NAMES)))
    dice = (0.2 + 0.8 * rows[:, 0] + rng.normal(0, 0.05, 40)).clip(0, 1)
    drawn_as = segmenter.record(SourceRecord(), 3).drawn_as()
    origin = Origin(segmenter.trained.fingerprint, segmenter.trained.settings_sha256, "phantom", "sha256:00", "random", "val",
                    tuple(f"p{i}" for i in range(40)), 40, 12, drawn_as, 0, "", created)  # fmt: skip
    quality = fit_quality(rows, dice, np.arange(40) % 5)
    return Calibration(origin, Temperature(1.5, -0.1), (RiskControl(0.1, 0.2, 0.9),), quality, None, foreign)


@pytest.fixture(scope="module")
def calibrated(drawing_model, tmp_path_factory):
    """The drawing model, calibrated for three masks."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    segmenter = Segmenter.from_pretrained(drawing_model)
    save_model(segmenter.trained, folder)
    save_calibration(load_model(folder), folder, calibration(segmenter))
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(COUNT):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(folder / f"case-{k}.png")
    return folder


@pytest.fixture
def triage(monkeypatch, images, tmp_path):
    """Runs the verb on the images, three masks each, into `tmp_path / "out"`; returns the exit status."""

    def call(model, *flags, out=tmp_path / "out"):
        return run(monkeypatch, "triage", images, "--model", model, "--out", out, "--samples", 3, *flags)

    return call


@pytest.fixture
def drawn(monkeypatch):
    """The names of the images that were drawn, in order: one worker draws them, since several do not keep it."""
    names, real = [], Segmenter.segment
    monkeypatch.setattr("manymask.inference.batch.shared_cores", lambda draws: nullcontext(1))

    def segment(self, image, *arguments, **settings):
        names.append(image.name)
        return real(self, image, *arguments, **settings)

    monkeypatch.setattr(Segmenter, "segment", segment)
    return names


def table(out):
    with (out / "triage.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def facts(out):
    return json.loads((out / "triage.json").read_text())


def test_table_holds_what_the_library_predicts_the_most_doubtful_first(triage, calibrated, images, tmp_path, capsys):
    assert triage(calibrated, "--budget", 2, "--find", 0.9) == 0
    rows = table(tmp_path / "out")
    segmenter = Segmenter.from_pretrained(calibrated)
    expected = {p.stem: segmenter.segment(p, 3).assessments[0] for p in images.iterdir()}
    assert [row["name"] for row in rows] == sorted(expected, key=lambda name: (-expected[name].doubt, name))
    total = sum(each.failure for each in expected.values())
    found = 0.0
    for rank, row in enumerate(rows, start=1):
        each = expected[row["name"]]
        found += each.failure
        assert (row["rank"], row["review"]) == (str(rank), "yes" if rank <= 2 else "no")
        assert float(row["failure"]) == pytest.approx(each.failure, abs=1e-4)
        assert float(row["predicted_dice"]) == pytest.approx(each.dice, abs=1e-4)
        assert float(row["expected_found"]) == pytest.approx(found / total, abs=1e-4)
    said, made = capsys.readouterr().out, facts(tmp_path / "out")
    assert f"Review these 2 of {COUNT} images" in said and made["promise"][0] in said
    assert made["budget"]["expected_share"] == pytest.approx(float(rows[1]["expected_found"]), abs=1e-4)
    assert float(rows[made["find"]["images"] - 1]["expected_found"]) >= 0.9 - 1e-4
    assert made["curve"][0] == [0, 0] and made["curve"][-1] == [1, 1] and made["complete"]
    assert made["calibration"]["cases"] == 40
    assert triage(calibrated, "--find", 0.9) == 0
    again, needed = facts(tmp_path / "out"), made["find"]["images"]
    assert again["budget"]["images"] == needed and again["budget"]["expected_share"] >= 0.9
    assert [row["review"] for row in table(tmp_path / "out")].count("yes") == needed


def test_without_a_calibration_agreement_sorts_and_nothing_is_promised(triage, drawing_model, tmp_path, capsys):
    assert triage(drawing_model) == 0
    rows, made = table(tmp_path / "out"), facts(tmp_path / "out")
    agreement = [float(row["agreement"]) for row in rows]
    assert agreement == sorted(agreement) and len(set(agreement)) > 1
    assert {row["failure"] for row in rows} == {row["expected_found"] for row in rows} == {""}
    assert made["ranked_by"] == "agreement" and made["calibration"] is None and "curve" not in made
    assert "Nothing is promised" in capsys.readouterr().out
    page = (tmp_path / "out/triage.html").read_text()
    assert "Nothing is promised" in page and "<svg" not in page and 'data-key="failure"' not in page


def test_off_the_calibration_nothing_is_promised(monkeypatch, calibrated, images, tmp_path, capsys):
    assert run(monkeypatch, "triage", images, "--model", calibrated, "--out", tmp_path / "out", "--samples", 2) == 0
    assert "off the calibration" in facts(tmp_path / "out")["promise"][0]
    assert "Nothing is promised" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--find", 0.9), "outline is promised (--find)"),
        (("--find", 1.5), "--find must lie"),
        (("--budget", "0"), "a budget is a number of images (12) or a share of them (0.1), not '0' (--budget)"),
        (("--export", -1), "--export must be"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_drawn(
    triage, drawing_model, tmp_path, capsys, drawn, flags, said
):
    assert triage(drawing_model, *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0]
    assert not drawn and not (tmp_path / "out/triage.csv").exists()


def test_one_uncalibrated_mask_has_nothing_to_agree_with(monkeypatch, drawing_model, images, tmp_path, capsys):
    assert run(monkeypatch, "triage", images, "--model", drawing_model, "--out", tmp_path / "o", "--samples", 1) == 2
    assert "(--samples)" in capsys.readouterr().err


def test_what_is_there_is_not_drawn_again(triage, calibrated, tmp_path, drawn, capsys):
    assert triage(calibrated) == 0 and len(drawn) == COUNT
    before = table(tmp_path / "out")
    drawn.clear()
    assert triage(calibrated) == 0 and not drawn
    assert table(tmp_path / "out") == before
    assert f"{COUNT} result(s) of an earlier run" in capsys.readouterr().out


def test_another_image_seed_calibration_or_model_is_drawn(triage, calibrated, drawing_model, images, tmp_path, drawn):
    triage(calibrated)
    drawn.clear()
    Image.fromarray(phantom.draw(50).image[:, :, 0]).save(images / "case-3.png")
    assert triage(calibrated) == 0 and drawn == ["case-3"]
    assert {row["name"] for row in table(tmp_path / "out")} == {
        "case-3-2",
        *(f"case-{k}" for k in range(COUNT) if k != 3),
    }
    drawn.clear()
    assert triage(calibrated, "--seed", 1) == 0 and len(drawn) == COUNT
    drawn.clear()
    assert triage(drawing_model, "--seed", 1) == 0 and len(drawn) == COUNT  # equal weights, no calibration
    drawn.clear()
    later = tmp_path / "later"
    trained = load_model(calibrated)
    trained.calibration = replace(trained.calibration, origin=replace(trained.calibration.origin, created="2027"))
    save_model(trained, later)
    triage(calibrated, "--seed", 1)
    drawn.clear()
    assert triage(later, "--seed", 1) == 0 and len(drawn) == COUNT


def test_results_that_lack_something_are_drawn_again(triage, calibrated, tmp_path, drawn):
    triage(calibrated)
    before, out = table(tmp_path / "out"), tmp_path / "out"
    (out / "case-0/thumbnail.jpg").unlink()
    (out / "case-1/result.json").write_text("{")
    (out / "case-2/result.json").write_text((out / "case-2/result.json").read_text().replace('"worst"', '"best"'))
    drawn.clear()
    assert triage(calibrated) == 0
    assert drawn == ["case-0", "case-1", "case-2"]
    assert {row["name"]: row["doubt"] for row in table(out)}.items() >= {
        row["name"]: row["doubt"] for row in before if row["name"] != "case-1"
    }.items()  # what cannot be read is never replaced: case-1 goes to case-1-2


def test_ctrl_c_leaves_a_table_of_what_is_done_and_the_next_run_goes_on(
    triage, calibrated, tmp_path, monkeypatch, capsys, drawn
):
    real = Segmenter.segment

    def interrupted(self, image, *arguments, **settings):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return real(self, image, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "segment", interrupted)
        assert triage(calibrated) == 130
    out = tmp_path / "out"
    assert [row["name"] for row in table(out)] and {row["name"] for row in table(out)} == {"case-0", "case-1"}
    assert not facts(out)["complete"] and "The run was interrupted" in (out / "triage.html").read_text()
    drawn.clear()
    assert triage(calibrated) == 0
    assert drawn == [f"case-{k}" for k in range(2, COUNT)] and len(table(out)) == COUNT and facts(out)["complete"]


def test_bad_files_are_reported_and_counted(triage, calibrated, images, tmp_path, capsys):
    (images / "bad.png").write_bytes(b"not an image")
    assert triage(calibrated) == 2
    assert "bad.png" in capsys.readouterr().err
    assert facts(tmp_path / "out")["failed"] == 1 and len(table(tmp_path / "out")) == COUNT
    assert "1 image(s) could not be segmented" in (tmp_path / "out/triage.html").read_text()


def test_many_foreign_images_break_the_promise(drawing_model, triage, tmp_path, capsys):
    segmenter = Segmenter.from_pretrained(drawing_model)
    view = segmenter.look(phantom.draw(0).image[:, :, 0])
    d = segmenter.draw(view, 3).traits.embedding.shape[1]
    far = Foreignness(np.full(d, 1e3), np.zeros((1, d)), np.ones(1), 1.0, np.ones(30))
    trained = segmenter.trained
    trained.calibration = calibration(segmenter, foreign=far)
    save_model(trained, tmp_path / "model")
    assert triage(tmp_path / "model") == 0
    assert f"{COUNT} of {COUNT} images are unlike the training images" in capsys.readouterr().out
    assert {row["foreign"] for row in table(tmp_path / "out")} == {"yes"}


def test_output_inside_the_folder_is_no_input(triage, calibrated, images, drawn):
    out = images / "out"
    assert triage(calibrated, "--export", 3, out=out) == 0
    drawn.clear()
    assert triage(calibrated, out=out) == 0
    assert not drawn and len(table(out)) == COUNT


def test_a_table_of_others_is_not_replaced(triage, calibrated, tmp_path, capsys, drawn):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/triage.csv").write_text("patient,ward\n")
    assert triage(calibrated) == 2 and not drawn
    assert "triage.csv is not ours" in capsys.readouterr().err


def test_thumbnails_have_one_size_and_keep_small_masks(triage, calibrated, tmp_path):
    triage(calibrated)
    found = sorted((tmp_path / "out").glob("*/thumbnail.jpg"))
    assert len(found) == COUNT
    for path in found:
        with Image.open(path) as image:
            assert max(image.size) == SIDE


def test_exported_images_go_back_through_prepare(monkeypatch, triage, calibrated, images, tmp_path):
    for name in ("anna", "bert"):  # patients
        (images / name).mkdir()
        for k in (10, 11):
            number = k + 10 * (name == "bert")
            Image.fromarray(phantom.draw(number).image[:, :, 0]).save(images / name / f"{name}-{k}.png")
    assert triage(calibrated, "--export", 7) == 0
    out, folder = tmp_path / "out", tmp_path / "out/labelling"
    flags = ("prepare", "folder", "--source", folder, "--out", tmp_path / "store")
    assert run(monkeypatch, *flags) == 2  # masks or polygons: which were corrected?
    assert run(monkeypatch, *flags, "--masks", "masks") == 0
    store = Store(tmp_path / "store")
    chosen = table(out)[:7]
    listed = json.loads((folder / "labelling.json").read_text())["images"]
    assert [each["result"] for each in listed] == [row["name"] for row in chosen]
    assert sorted(store.ids) == sorted(each["image"] for each in listed)
    for each in listed:
        name = each["image"]
        with Image.open(out / each["result"] / "consensus.png") as consensus:
            proposed = np.asarray(consensus) > 0
        assert (store.native_masks(name)[0] == proposed).all()
        with Image.open(folder / "images" / f"{name}.png") as image, Image.open(images / f"{name}.png") as original:
            assert (np.asarray(image) == np.asarray(original)).all()
        polygons = json.loads((folder / "labelme" / f"{name}.json").read_text())
        assert (folder / "labelme" / f"{name}.json").parent.joinpath(polygons["imagePath"]).resolve().exists()
        assert (polygons["imageHeight"], polygons["imageWidth"]) == proposed.shape
        assert bool(polygons["shapes"]) == bool(proposed.any())
        assert len(list((folder / "drawn" / name).glob("mask-*.png"))) == 3
    assert any("/" in each["image"] for each in listed)


def test_polygons_edited_in_labelme_are_read_back(monkeypatch, triage, calibrated, tmp_path):
    assert triage(calibrated, "--export", COUNT) == 0
    folder = tmp_path / "out/labelling"
    edited = sorted((folder / "labelme").glob("*.json"))[0]
    content = json.loads(edited.read_text())
    corners = [[10, 20], [30, 20], [30, 40], [10, 40]]
    content["shapes"] = [{"label": "lesion", "points": corners, "shape_type": "polygon"}]
    edited.write_text(json.dumps(content))
    flags = ("prepare", "folder", "--source", folder, "--out", tmp_path / "store", "--masks", "labelme")
    assert run(monkeypatch, *flags, "--mask-labels", "lesion") == 0
    mask = Store(tmp_path / "store").native_masks(edited.stem)[0]
    assert mask.sum() == 400 and mask[20:40, 10:30].all()


def test_edited_labels_are_never_touched(triage, calibrated, tmp_path):
    triage(calibrated, "--export", 3)
    folder = tmp_path / "out/labelling"
    edited = next((folder / "masks").glob("*.png"))
    edited.write_bytes(b"edited")
    assert triage(calibrated, "--export", 3) == 0
    assert edited.read_bytes() == b"edited"
    assert len(list((tmp_path / "out/labelling-2/masks").glob("*.png"))) == 3


def test_names_of_which_only_some_hold_a_patient_stay_readable(monkeypatch, triage, calibrated, images, tmp_path):
    (images / "case-0.png").rename(images / "case__0.png")
    assert triage(calibrated, "--export", COUNT) == 0
    folder = tmp_path / "out/labelling"
    assert "case_0.png" in {p.name for p in (folder / "images").iterdir()}
    flags = ("--source", folder, "--out", tmp_path / "store", "--masks", "masks")
    assert run(monkeypatch, "prepare", "folder", *flags) == 0


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from manymask.inference.batch import Request, carry_out
from manymask.inference.entries import find_entries
from manymask.inference.tally import RunSummary
from manymask.inference.segmenter import Segmenter
from manymask.inference.triage import TriageRun

def kilobytes(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])

model, place = Path(sys.argv[1]), Path(sys.argv[2])
segmenter = Segmenter.from_pretrained(model)
result = segmenter.segment(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64), 3)
Segmenter.segment = lambda self, picture, *rest, **more: __import__("dataclasses").replace(
    result, record=self.record(__import__("manymask.io.source", fromlist=["x"]).source_of(picture), 3))
rng = np.random.default_rng(0)
peaks = []
for count in (60, 300):
    folder = place / str(count)
    folder.mkdir()
    for k in range(count):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{k}.png")
    run = TriageRun(segmenter, Request(place / f"out-{count}", 3), RunSummary())
    assert carry_out(run, find_entries([str(folder)])[0]).done == count
    peaks.append(kilobytes("VmHWM"))
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")
def test_memory_does_not_grow_with_the_number_of_images(calibrated, tmp_path):
    """240 more images may take 16 kB each, since peaks move by a megabyte; masks and maps of one at 64² alone take 130 kB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, calibrated, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 240 * 16


def test_names_to_label_stay_apart_where_underscores_go():
    results = ("a__b", "a___b", "a_b", "c")
    chosen = [SimpleNamespace(entry=k, name=name) for k, name in enumerate(results)]
    names = labelling._Names(chosen, [Raster(Path(f"{name}.png")) for name in results], [])
    assert [names.of(name, SimpleNamespace(origin=None)) for name in results] == ["a_b-2", "a_b-3", "a_b", "c"]


def test_slices_and_patients_to_label_stay_in_one_part(monkeypatch, triage, calibrated, images, tmp_path):
    for path in images.iterdir():
        path.unlink()
    for number, name in enumerate(("one", "two", "three", "four")):
        slices = [phantom.draw(10 * number + k).image[:, :, 0].T for k in range(3)]
        nib.save(nib.Nifti1Image(np.stack(slices, axis=2), np.eye(4)), images / f"{name}__a.nii.gz")
    assert triage(calibrated, "--export", 12) == 0
    exported = {path.name for path in (tmp_path / "out/labelling/images").iterdir()}
    assert len(exported) == 12 and {name.split("__")[0] for name in exported} == {"one", "two", "three", "four"}
    for path in sorted(images.iterdir()):
        path.rename(images / path.name.replace("__", "-"))
    Image.fromarray(phantom.draw(50).image[:, :, 0]).save(images / "alone.png")
    assert triage(calibrated, "--export", 13, out=tmp_path / "again") == 0
    again = tmp_path / "again/labelling"
    groups = {path.name.split("__")[0] for path in (again / "images").iterdir()}
    assert groups == {"one-a", "two-a", "three-a", "four-a", "alone"}
    assert (
        run(monkeypatch, "prepare", "folder", "--source", again, "--out", tmp_path / "store", "--masks", "masks") == 0
    )
    store = Store(tmp_path / "store")
    parts = [{name.split("__")[0] for name in store.part("random", part)} for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 5 and all(parts)


def test_folders_of_patients_stay_groups_when_few_of_them_are_exported():
    results = [f"p{k // 2}-{k}" for k in range(24)]
    entries = [Raster(Path(f"in/p{k // 2}/{k}.png")) for k in range(24)]
    chosen = [SimpleNamespace(entry=k, name=results[k]) for k in (0, 1, 4)]
    names = labelling._Names(chosen, entries, [Path("in")])
    found = [names.of(each.name, SimpleNamespace(origin=None)) for each in chosen]
    assert found == ["p0/p0__p0-0", "p0/p0__p0-1", "p2/p2__p2-4"]


def test_patients_of_dicom_to_label_are_told_apart_but_not_named():
    held = [pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()]
    for each, patient in zip(held, ("Anna", "Anna", "Bert"), strict=True):
        each.PatientID = patient
    chosen = [SimpleNamespace(entry=k, name=f"r{k}") for k in range(3)]
    names = labelling._Names(chosen, [Series([]), Series([]), Series([])], [])
    found = [names.of(f"r{k}", SimpleNamespace(origin=DicomFrame(held[k], 0))) for k in range(3)]
    groups = [name.split("__")[0] for name in found]
    assert groups[0] == groups[1] != groups[2] and "anna" not in "".join(found).lower()
