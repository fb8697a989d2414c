"""DICOM SEG out: what stands in the objects, read back by others; and what must never stand in them."""

import io
import json
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest

from manymask.errors import ConfigError, InputError
from manymask.hub.intended_use import finding
from manymask.io.dicom.deidentify import KEY_VARIABLE, Anonymiser
from manymask.io.dicom.objects import derived_objects, write_objects
from manymask.io.dicom.seg import kinds
from manymask.io.image import Picture
from manymask.io.palette import PALETTE
from tests.dicom_files import pictures_of
from tests.dicom_sources import CT, PHOTOGRAPH, SECONDARY, base, cine, ct_series, enhanced_ct, photograph
from tests.factories import run

FACTS = {
    "model": {"name": "lidc_idri", "dataset": "lidc_idri"},
    "samples": 3,
    "seed": 7,
    "threshold": 0.5,
    "sampler": {"kind": "DDIM", "steps": 10},
}


def drawn(picture, seed, masks=3):
    """A result of smooth blobs that differ from mask to mask, as `Segmenter.segment` would give it."""
    height, width = picture.pixels.shape[:2]
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:height, :width]
    centres = rng.uniform(12, 28, (masks, 2))
    away = np.stack([np.hypot(y - cy, x - cx) for cy, cx in centres])
    probability = (1 / (1 + np.exp(away - 8))).astype(np.float32)
    confidence = probability.mean(0)
    return SimpleNamespace(outlines=None, masks=probability, confidence=confidence, consensus=confidence >= 0.5)


def made(datasets, facts=FACTS, anonymiser=None):
    """Pictures, results and SEGs by content label, the latter written, read and parsed again."""
    pictures = pictures_of(datasets)
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]
    segs = {}
    for seg in segmentations(pictures, results, facts, anonymiser, True, finding(facts["model"]["dataset"])):
        segs.setdefault(seg.ContentLabel, []).append(highdicom.seg.segread(io.BytesIO(written(seg))))
    return pictures, results, segs


def segmentations(*arguments, **options):
    """The SEGs among the objects of a result."""
    return [made for made in derived_objects(*arguments, **options) if made.Modality == "SEG"]


def written(seg):
    file = io.BytesIO()
    seg.save_as(file, enforce_file_format=True)
    return file.getvalue()


def stacked(result):
    """What the objects should hold, (H, W, segments)."""
    masks = np.concatenate([result.consensus[None], result.masks >= 0.5])
    levels = np.stack([result.confidence >= level for level in (0.25, 0.5, 0.75)])
    return {"MASKS": masks, "FRACTIONAL": result.confidence[None], "LEVELS": levels,
            "CONSENSUS": result.consensus[None]}  # fmt: skip


@pytest.mark.parametrize("label", ["MASKS", "FRACTIONAL", "LEVELS", "CONSENSUS"])
def test_segments_of_a_series_hold_the_pixels_drawn_on_each_slice(label):
    pictures, results, segs = made(ct_series())
    (seg,) = segs[label]
    uids = [picture.origin.dataset.SOPInstanceUID for picture in pictures]
    assert [str(ref.ReferencedSOPInstanceUID) for ref in seg.SourceImageSequence] == uids
    held = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for frame, result in zip(held, results, strict=True):
        expected = np.moveaxis(stacked(result)[label], 0, -1)
        assert expected.any() and np.abs(frame - expected).max() <= (0.5 / 255 + 1e-6) * (label == "FRACTIONAL")


def test_frames_lie_where_their_source_images_lie():
    pictures, _, segs = made(ct_series())
    where = {p.origin.dataset.SOPInstanceUID: p.origin.dataset.ImagePositionPatient for p in pictures}
    for (seg,) in segs.values():
        assert seg.FrameOfReferenceUID == pictures[0].origin.dataset.FrameOfReferenceUID
        shared = seg.SharedFunctionalGroupsSequence[0]
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.7, 0.8]
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        assert len(seg.PerFrameFunctionalGroupsSequence) == seg.NumberOfFrames
        for frame in seg.PerFrameFunctionalGroupsSequence:
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            assert frame.PlanePositionSequence[0].ImagePositionPatient == where[source.ReferencedSOPInstanceUID]
            assert source.SpatialLocationsPreserved == "YES"
        volume = seg.get_volume(combine_segments=False, rescale_fractional=False)
        assert volume.spatial_shape == (5, 48, 40) and np.allclose(volume.spacing, (2.5, 0.7, 0.8))


def test_patient_and_study_are_carried_over_and_the_algorithm_is_named():
    datasets = ct_series(2)
    for dataset in datasets:
        dataset.PatientName, dataset.SpecificCharacterSet = "Ямада^太郎", "ISO_IR 192"
        dataset.PatientComments, dataset.ClinicalTrialSubjectID = "left-handed", "T-17"
        with pydicom.config.disable_value_validation():
            dataset.PatientSex = "unknown to the standard"
    _, _, segs = made(datasets)
    for (seg,) in segs.values():
        for name in ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "PatientComments", "ClinicalTrialSubjectID",
                     "StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber", "StudyDescription",
                     "ReferringPhysicianName"):  # fmt: skip
            assert seg[name].value == datasets[0][name].value, name
        assert seg.Modality == "SEG" and "research" in seg.SeriesDescription
        assert "InstitutionName" not in seg and seg.SeriesInstanceUID != datasets[0].SeriesInstanceUID
        for segment in [each for each in seg.SegmentSequence if each.SegmentNumber]:  # a LABELMAP also describes 0
            algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
            assert segment.SegmentAlgorithmType == "AUTOMATIC" and algorithm.AlgorithmName == "manymask"
            assert "model=lidc_idri" in algorithm.AlgorithmParameters and "seed=7" in algorithm.AlgorithmParameters
            assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Nodule"
            assert segment.AnatomicRegionSequence[0].CodeMeaning == "Lung"
    assert len({seg.SeriesInstanceUID for (seg,) in segs.values()}) == 4, "viewers show one object a series"


def test_segments_are_labelled_and_coloured_as_in_the_overlay():
    from highdicom.color import CIELabColor

    _, _, segs = made(ct_series(1))
    (masks,), (levels,), (confidence,) = segs["MASKS"], segs["LEVELS"], segs["FRACTIONAL"]
    assert list(masks.segment_numbers) == [1, 2, 3, 4]
    labels = [s.SegmentLabel for s in masks.SegmentSequence]
    assert labels == ["Consensus (confidence >= 0.5)", "Mask 1 of 3", "Mask 2 of 3", "Mask 3 of 3"]
    assert [s.SegmentLabel for s in levels.SegmentSequence] == [f"Confidence >= {v}" for v in (0.25, 0.5, 0.75)]
    for segment, colour in zip(masks.SegmentSequence[1:], PALETTE[:3], strict=True):
        found = CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb(clip=True)
        assert np.abs(np.subtract(found, colour)).max() <= 2
    assert confidence.SegmentationType == "FRACTIONAL" and confidence.SegmentationFractionalType == "PROBABILITY"
    held = levels.get_pixels_by_source_instance([levels.SourceImageSequence[0].ReferencedSOPInstanceUID])[0]
    assert (held[..., 2] <= held[..., 1]).all() and (held[..., 1] <= held[..., 0]).all(), "levels are nested"


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [2, 1]])
def test_frames_of_a_multi_frame_image_are_told_apart(chosen):
    image = enhanced_ct()
    pictures = [pictures_of([image])[i] for i in chosen]
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]
    for made_seg in segmentations(pictures, results, FACTS, fractional=True):
        seg = highdicom.seg.segread(io.BytesIO(written(made_seg)))
        numbers = [picture.origin.number for picture in pictures]
        held = seg.get_pixels_by_source_frame(image.SOPInstanceUID, numbers, assert_missing_frames_are_empty=True)
        for frame, result in zip(held, results, strict=True):
            assert np.abs(frame - np.moveaxis(stacked(result)[seg.ContentLabel], 0, -1)).max() <= 0.5 / 255 + 1e-6
        for frame in seg.PerFrameFunctionalGroupsSequence:
            number = int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
            assert frame.PlanePositionSequence[0].ImagePositionPatient[2] == 2.5 * (number - 1)


def test_two_images_at_one_position_get_segs_of_their_own():
    datasets = ct_series(3)
    for dataset in datasets:
        dataset.ImagePositionPatient = [-10.5, 20.25, 0 if dataset is datasets[0] else 2.5]
    _, _, segs = made(datasets)
    counts = [len({ref.ReferencedSOPInstanceUID for ref in seg.SourceImageSequence}) for seg in segs["MASKS"]]
    assert counts == [2, 1]


@pytest.mark.parametrize("sop_class", [PHOTOGRAPH, SECONDARY])
def test_photograph_without_a_place_in_space_gets_its_own_segs(sop_class):
    pictures, results, segs = made(
        [photograph(0, sop_class)], FACTS | {"model": {"name": "isic2018", "dataset": "isic2018"}}
    )
    (seg,) = segs["MASKS"]
    assert "PixelMeasuresSequence" not in seg.SharedFunctionalGroupsSequence[0]
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Skin lesion"
    assert "FrameOfReferenceUID" not in seg
    held = seg.get_pixels_by_source_instance([pictures[0].origin.dataset.SOPInstanceUID])[0]
    assert (held == np.moveaxis(stacked(results[0])["MASKS"], 0, -1)).all()


def test_each_frame_of_a_loop_gets_segs_that_name_it(tmp_path):
    image = cine(3)
    pictures, results, segs = made([image])
    assert [len(v) for v in segs.values()] == [3, 3, 3, 3]
    assert len({seg.SeriesInstanceUID for seg in segs["MASKS"]}) == 1
    for number, (seg, result) in enumerate(zip(segs["MASKS"], results, strict=True), start=1):
        sources = [f.DerivationImageSequence[0].SourceImageSequence[0] for f in seg.PerFrameFunctionalGroupsSequence]
        assert {(s.ReferencedSOPInstanceUID, s.ReferencedFrameNumber) for s in sources} == {
            (image.SOPInstanceUID, number)
        }
        assert (seg.pixel_array == stacked(result)["MASKS"]).all()
    paths = write_objects(tmp_path, segmentations(pictures, results, FACTS))
    assert len({path.name for path in paths}) == 9 and (tmp_path / "levels-0003.dcm") in paths


def test_nothing_found_is_an_object_of_empty_segments(caplog):
    (picture,) = pictures_of(ct_series(1))
    empty = np.zeros((2, 48, 40), np.float32)
    for seg in segmentations(
        [picture], [SimpleNamespace(outlines=None, masks=empty, confidence=empty[0], consensus=empty[0] > 1)], {}
    ):
        assert not highdicom.seg.segread(io.BytesIO(written(seg))).pixel_array.any()
    assert not caplog.records


def without(name):
    (dataset,) = ct_series(1)
    del dataset[name]
    return [dataset]


def doubled(name):
    (dataset,) = ct_series(1)
    setattr(dataset, name, ["1.2.3", "1.2.4"])
    return [dataset]


def volume_without_positions():
    image = enhanced_ct()
    del image.PerFrameFunctionalGroupsSequence
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    return [image]


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        (lambda: without("FrameOfReferenceUID"), "Frame Of Reference"),
        (lambda: without("StudyInstanceUID"), "has no StudyInstanceUID, or several"),
        (lambda: doubled("SeriesInstanceUID"), "has no SeriesInstanceUID, or several"),
        (lambda: doubled("SOPInstanceUID"), "has no SOPInstanceUID, or several"),
        (volume_without_positions, "gives one position in the patient for all its 4 frames"),
    ],
)
def test_sources_that_no_seg_can_refer_to_are_refused_in_one_line(datasets, message):
    with pytest.raises(InputError, match=message) as caught:
        made(datasets())
    assert "\n" not in str(caught.value) and "Müller" not in str(caught.value)


def test_picture_from_elsewhere_is_refused():
    picture = Picture(np.zeros((48, 40), np.uint8), "lesion")
    with pytest.raises(InputError, match="does not come from DICOM"):
        segmentations([picture], [drawn(picture, 0)], FACTS)


def test_header_with_nothing_but_what_it_must_have_is_enough():
    (dataset,) = ct_series(1)
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                 "StudyDate", "StudyTime", "ReferringPhysicianName", "SliceThickness", "SeriesNumber"):  # fmt: skip
        del dataset[name]
    _, _, segs = made([dataset])
    assert [str(seg.PatientName) for (seg,) in segs.values()] == ["", "", "", ""]


def planted(datasets):
    """Puts a word that nobody else writes into every field that may tell who the patient is, private ones too."""
    words = []

    def word(dataset, name, vr, form="CANARY{}"):
        words.append(form.format(len(words) + 100))
        dataset.add_new(name, vr, words[-1])

    for dataset in datasets:
        for name in ("PatientID", "OtherPatientIDs", "InstitutionName", "StudyDescription", "SeriesDescription",
                     "InstitutionalDepartmentName", "ProtocolName", "ClinicalTrialSubjectID", "PatientReligiousPreference",
                     "ClinicalTrialProtocolID", "ClinicalTrialSponsorName", "DeviceSerialNumber", "Manufacturer"):  # fmt: skip
            word(dataset, name, "LO")
        for name in ("PatientName", "ReferringPhysicianName", "OperatorsName", "PerformingPhysicianName",
                     "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"):  # fmt: skip
            word(dataset, name, "PN", "CANARY{}^EVE")
        for name in ("AccessionNumber", "StudyID", "StationName", "Occupation"):
            word(dataset, name, "SH")
        for name in ("PatientComments", "AdditionalPatientHistory", "ImageComments"):
            word(dataset, name, "LT")
        for name in ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
            dataset.add_new(name, "DA", "19871203")
        dataset.add_new("StudyTime", "TM", "112233.445566")
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            words.append(str(dataset.get(name)))
        word(dataset.private_block(0x0011, "CANARY MAKER", create=True), 0x01, "LO")
        words += ["CANARY MAKER", "19871203", "112233", "CANARY"]
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return words


@pytest.mark.parametrize("kind", ["slices", "photograph"])
def test_anonymous_output_holds_nothing_of_who_it_is(monkeypatch, drawing_model, tmp_path, kind, capfd, caplog):
    datasets = ct_series(3) if kind == "slices" else [photograph()]
    if kind == "photograph":
        datasets[0].FrameOfReferenceUID = pydicom.uid.generate_uid()
    words = planted(datasets)
    for k, dataset in enumerate(datasets):
        (tmp_path / "in").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "in" / f"CANARY_EVE_{k}.dcm", enforce_file_format=True)
    out = tmp_path / "out"
    assert run(monkeypatch, "segment", tmp_path / "in", "--model", drawing_model, "--out", out, "--anonymise") == 0
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"masks.dcm", "levels.dcm", "result.json"} <= {path.name for path in files}
    assert "overlay.png" not in {path.name for path in files}, "it shows the image"
    said = capfd.readouterr()
    spoken = (said.out + said.err + caplog.text).replace(str(out), "").encode()
    for content in [path.read_bytes() for path in files] + [str(p.relative_to(out)).encode() for p in files] + [spoken]:
        for one in words:
            assert one.encode() not in content, one


@pytest.mark.parametrize("anonymise", [False, True])
def test_no_patient_field_is_in_names_json_or_messages(monkeypatch, drawing_model, tmp_path, capfd, caplog, anonymise):
    datasets = ct_series(2)
    words = [w for w in planted(datasets) if "CANARY" in w]
    with pydicom.config.disable_value_validation():  # invalid values, which raters like to quote
        datasets[0].PatientSex, datasets[0].PatientAge = "CANARYSEX", "CANARYAGE"
    paths = [tmp_path / f"{k}.dcm" for k in range(2)]
    for dataset, path in zip(datasets, paths, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    with caplog.at_level("DEBUG", "highdicom"):
        caplog.clear()
        arguments = ["segment", *paths, "--model", drawing_model, "--out", tmp_path / "out", "--samples", 2]
        assert run(monkeypatch, *arguments, *(["--anonymise"] if anonymise else [])) == 0
    said = capfd.readouterr()
    spoken = said.out + said.err + caplog.text
    for path in (tmp_path / "out").rglob("*"):
        spoken += path.name + (path.read_text() if path.suffix == ".json" else "")
    assert "CANARY" not in spoken and words
    if not anonymise:
        assert b"CANARY" in (tmp_path / "out/series-0004/masks.dcm").read_bytes(), "else the test proves nothing"


def test_anonymous_uids_are_consistent_and_say_so():
    anonymiser, datasets = Anonymiser(), ct_series()
    _, _, segs = made(datasets, anonymiser=anonymiser)
    for (seg,) in segs.values():
        renamed = {anonymiser.uid(d.SOPInstanceUID) for d in datasets}
        assert {str(ref.ReferencedSOPInstanceUID) for ref in seg.SourceImageSequence} == renamed
        (series,) = seg.ReferencedSeriesSequence
        assert {str(ref.ReferencedSOPInstanceUID) for ref in series.ReferencedInstanceSequence} == renamed
        assert series.SeriesInstanceUID == anonymiser.uid(datasets[0].SeriesInstanceUID)
        assert seg.StudyInstanceUID == anonymiser.uid(datasets[0].StudyInstanceUID)
        assert seg.file_meta.MediaStorageSOPInstanceUID == seg.SOPInstanceUID
        assert seg.PatientIdentityRemoved == "YES" and seg.ContentDate == "19000101" and not seg.StudyDate
        assert seg.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert list(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.7, 0.8]


def test_uids_can_be_undone_by_nobody_but_agree_under_one_key(monkeypatch):
    uid = pydicom.uid.generate_uid()
    assert Anonymiser().uid(uid) != Anonymiser().uid(uid) != uid
    monkeypatch.setenv(KEY_VARIABLE, "a key that the hospital keeps")
    assert Anonymiser().uid(uid) == Anonymiser().uid(uid)
    assert pydicom.uid.UID(Anonymiser().uid(uid)).is_valid
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ConfigError, match="at least 16"):
        Anonymiser()


def test_a_rerun_gives_the_same_objects_and_anything_else_others():
    datasets = ct_series(2)
    pictures = pictures_of(datasets)
    results = [drawn(picture, k) for k, picture in enumerate(pictures)]

    def uids(results=results, **changed):
        made = segmentations(pictures[: len(results)], results, FACTS | changed, fractional=True)
        assert all(seg.SeriesDate == seg.ContentDate and seg.SeriesTime == seg.ContentTime for seg in made)
        return {str(uid) for seg in made for uid in (seg.SOPInstanceUID, seg.SeriesInstanceUID)}

    first = uids()
    assert first == uids() and len(first) == 8 and all(pydicom.uid.UID(uid).is_valid for uid in first)
    weights = FACTS["model"] | {"weights_sha256": "another"}
    for changed in ({"seed": 8}, {"samples": 4}, {"threshold": 0.4}, {"sampler": {"kind": "DDPM"}}, {"model": weights}):
        assert not first & uids(**changed), changed
    instances = {str(seg.SOPInstanceUID) for seg in segmentations(pictures, results, FACTS)}
    others = {str(seg.SOPInstanceUID) for seg in segmentations(pictures, results[::-1], FACTS)}
    assert not instances & others, "one UID never names two masks"


def test_source_data_sets_are_left_as_they_were():
    datasets = ct_series(2)
    before = [dataset.to_json() for dataset in datasets]
    made(datasets)
    made(datasets, anonymiser=Anonymiser())
    assert [dataset.to_json() for dataset in datasets] == before


def test_result_folder_of_a_slice_gives_areas_in_square_millimetres(monkeypatch, drawing_model, tmp_path):
    (dataset,) = ct_series(1)
    dataset.save_as(tmp_path / "slice.dcm", enforce_file_format=True)
    assert run(monkeypatch, "segment", tmp_path / "slice.dcm", "--model", drawing_model, "--out", tmp_path / "o") == 0
    folder = tmp_path / "o" / "series-0004-image-0001"
    result = json.loads((folder / "result.json").read_text())
    assert result["spacing_mm"] == [0.7, 0.8]
    assert result["areas_mm2"] == pytest.approx([0.56 * area for area in result["areas"]])
    assert result["area_std_mm2"] == pytest.approx(np.std(result["areas_mm2"], ddof=1))
    names = {path.name for path in folder.iterdir()}
    assert {"masks.dcm", "levels.dcm", "consensus.dcm", "confidence.dcm", "overlay.png"} <= names
    assert "fractional.dcm" not in names
    arguments = ["segment", tmp_path / "slice.dcm", "--model", drawing_model, "--out", tmp_path / "o", "--fractional"]
    assert run(monkeypatch, *arguments) == 0 and (folder / "fractional.dcm").exists()


def test_unknown_kind_of_image_is_refused_in_one_line():
    dataset = base("1.2.3.4.5", pixels=np.random.default_rng(0).integers(0, 255, (48, 40)).astype(np.uint8))
    with pytest.raises(InputError, match="no DICOM SEG can refer to it") as caught:
        made([dataset])
    assert "\n" not in str(caught.value) and CT not in str(caught.value)


def test_a_pixel_on_a_level_belongs_to_it_and_a_probability_of_one_half_to_its_mask():
    row = np.array([[0.25, 0.5, 0.75]], np.float32)
    result = SimpleNamespace(outlines=None, masks=row[None], consensus=row > 0.6, confidence=row)
    masks, levels, consensus = kinds([result], {})
    assert levels.values[0, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert consensus.values[0, 0].tolist() == [0, 0, 1]
    assert masks.values[0, 0].tolist() == [[0, 0], [0, 1], [1, 1]]
