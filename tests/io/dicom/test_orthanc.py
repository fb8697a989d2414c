"""A real archive: Debian's Orthanc with its DICOMweb plugin, on loopback, with a password."""

import numpy as np
import pytest

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")

import highdicom
from dicomweb_client import DICOMwebClient

from tests.archive import ORTHANC, PLUGIN, free_port, orthanc
from tests.dicom_sources import ct_series, photograph
from tests.factories import run

pytestmark = [
    pytest.mark.archive,
    pytest.mark.skipif(
        ORTHANC is None or not PLUGIN.exists(),
        reason="Orthanc with its DICOMweb plugin is not installed (apt-get install orthanc orthanc-dicomweb)",
    ),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.fixture
def known(archive, monkeypatch):
    """The environment of a user whom the archive knows."""
    monkeypatch.setenv("MANYMASK_DICOMWEB_USER", archive.user)
    monkeypatch.setenv("MANYMASK_DICOMWEB_PASSWORD", archive.password)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return archive


def stored_series(archive, slices=4):
    datasets = ct_series(slices)
    archive.client.store_instances(datasets)
    first = datasets[0]
    return datasets, f"{archive.root}/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}"


def segs_of(archive, study):
    """The SEG objects of a study, found by QIDO and fetched by WADO, by content label."""
    found = archive.client.search_for_series(study, search_filters={"Modality": "SEG"})
    uids = [item["0020000E"]["Value"][0] for item in found]
    segs = [d for uid in uids for d in archive.client.retrieve_series(study, uid)]
    return {d.ContentLabel: highdicom.seg.Segmentation.from_dataset(d) for d in segs}


def test_series_comes_from_the_archive_and_its_segs_go_back_into_the_study(
    known, monkeypatch, drawing_model, tmp_path, capsys
):
    datasets, address = stored_series(known)
    out = tmp_path / "out"
    arguments = ["segment", address, "--model", drawing_model, "--out", out, "--samples", 2, "--store", "--fractional"]
    assert run(monkeypatch, *arguments) == 0
    said = capsys.readouterr()
    assert "4 of 4 image(s)" in said.out and "6 DICOM object(s) stored" in said.out
    assert run(monkeypatch, *arguments) == 0, "a rerun puts the same objects there, not three more"
    assert len(known.client.search_for_instances(search_filters={"Modality": "SEG"})) == 4
    capsys.readouterr()
    assert known.password not in said.out + said.err and "Müller" not in said.out + said.err

    segs = segs_of(known, datasets[0].StudyInstanceUID)
    assert set(segs) == {"MASKS", "FRACTIONAL", "LEVELS", "CONSENSUS"}
    by_place = sorted(datasets, key=lambda d: d.ImagePositionPatient[2])
    uids = [d.SOPInstanceUID for d in by_place]
    for seg in segs.values():
        assert (seg.PatientID, str(seg.PatientName), seg.StudyID) == ("4711", "Müller^Eva", "S1")
        assert {str(ref.ReferencedSOPInstanceUID) for ref in seg.SourceImageSequence} == set(uids)
    masks = segs["MASKS"].get_pixels_by_source_instance(uids, ignore_spatial_locations=False)
    assert masks.shape == (4, 48, 40, 3)
    for k, dataset in enumerate(by_place):
        folder = out / f"series-0004-image-{dataset.InstanceNumber:04}"
        for segment, name in enumerate(("consensus", "mask-01", "mask-02")):
            assert (masks[k, :, :, segment] == png(folder / f"{name}.png") // 255).all()
        confidence = segs["FRACTIONAL"].get_pixels_by_source_instance([dataset.SOPInstanceUID])[0, :, :, 0]
        assert np.abs(confidence - png(folder / "confidence.png") / 65535).max() <= 0.5 / 255 + 1e-4
    assert masks.any()
    assert {p.name for p in (out / "series-0004").iterdir()} >= {
        "masks.dcm",
        "confidence.dcm",
        "levels.dcm",
        "consensus.dcm",
    }


def png(path):
    from PIL import Image

    return np.asarray(Image.open(path)).astype(np.int64)


def test_nothing_is_stored_unless_it_is_asked_for(known, monkeypatch, drawing_model, tmp_path, capsys):
    datasets, address = stored_series(known, 1)
    arguments = ["segment", address, "--model", drawing_model, "--out", tmp_path / "out"]
    assert run(monkeypatch, *arguments, "--store", "--anonymise") == 2
    assert "not both" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--anonymise") == 0
    assert segs_of(known, datasets[0].StudyInstanceUID) == {}
    assert (tmp_path / "out/series-0004-image-0001/masks.dcm").exists()


def test_photographs_that_lie_nowhere_in_space_are_stored_too(known, monkeypatch, drawing_model, tmp_path):
    picture = photograph()
    known.client.store_instances([picture])
    address = f"{known.root}/studies/{picture.StudyInstanceUID}/series/{picture.SeriesInstanceUID}/"
    arguments = ["segment", address, "--model", drawing_model, "--out", tmp_path / "out", "--store"]
    assert run(monkeypatch, *arguments) == 0
    segs = segs_of(known, picture.StudyInstanceUID)
    assert segs["LEVELS"].SourceImageSequence[0].ReferencedSOPInstanceUID == picture.SOPInstanceUID


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, s: s.replace("http://", "http://rater:wrong@"), r"asks who you are or does not let you in"),
        (
            lambda a, s: f"{s.rpartition('/')[0]}/1.2.3",
            "has no such series, or it is empty|knows no such address or series",
        ),
        (lambda a, s: s.replace("/dicom-web/", "/nothing/"), "knows no such address or series"),
        (lambda a, s: s.rpartition("/series/")[0], "an archive is addressed by a series"),
        (lambda a, s: s.replace(a.root.split(":")[2].split("/")[0], str(free_port())), "cannot be reached"),
        (lambda a, s: s.replace("dicom-web", "app"), "knows no such address|does not answer|no usable answer"),
    ],
)
def test_what_goes_wrong_with_an_archive_is_told_in_one_line(
    known, monkeypatch, drawing_model, tmp_path, capsys, change, message
):
    import re

    _, address = stored_series(known, 1)
    wrong = change(known, address)
    assert run(monkeypatch, "segment", wrong, "--model", drawing_model, "--out", tmp_path / "out") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("manymask:")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert "wrong" not in lines[0] and known.password not in lines[0]


def test_series_too_large_is_refused_before_it_is_fetched(known, monkeypatch, drawing_model, tmp_path, capsys):
    from manymask.io.dicom import web as dicomweb

    _, address = stored_series(known, 3)
    monkeypatch.setattr(DICOMwebClient, "iter_series", lambda *a, **k: pytest.fail("fetched"))
    for limit, value, message in (("INSTANCE_LIMIT", 2, "more than 2 objects"), ("BYTE_LIMIT", 10_000, "more than")):
        with monkeypatch.context() as patch:
            patch.setattr(dicomweb, limit, value)
            assert run(monkeypatch, "segment", address, "--model", drawing_model, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err
