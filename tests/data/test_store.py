"""Readers of the official layouts, splits that do not leak, and the prepared store."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manymask.data.case import PARTS, Source, random_scheme
from manymask.data.datasets import cvc_clinicdb, folder, isic2018, lidc_idri, phantom
from manymask.data.resize import resize_image, resize_mask
from manymask.data.store import Store, prepare
from manymask.errors import ConfigError, InputError
from manymask.io.masks import MaskReading

RNG = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photo(size=(40, 48)):
    return RNG.integers(0, 255, (*size, 3), dtype=np.uint8)


def blob(size=(40, 48)):
    mask = np.zeros(size, np.uint8)
    mask[10:20, 12:30] = 255
    return mask


@pytest.fixture
def cvc(tmp_path):
    for frame in (1, 25, 26, 50, 51, 67, 68, 612, 14, 21):
        save(tmp_path / "CVC-ClinicDB/PNG/Original" / f"{frame}.png", photo())
        save(tmp_path / "CVC-ClinicDB/PNG/Ground Truth" / f"{frame}.png", blob())
    return tmp_path


@pytest.fixture
def isic(tmp_path):
    def write(parts):
        for name in parts:
            for i in range(10):
                case = f"ISIC_{name}{i:04}"
                save(tmp_path / f"ISIC2018_Task1-2_{name}_Input" / f"{case}.jpg", photo())
                save(tmp_path / f"ISIC2018_Task1_{name}_GroundTruth" / f"{case}_segmentation.png", blob())
        return tmp_path

    return write


@pytest.fixture
def lidc(tmp_path):
    for patient in range(20):
        for nodule in range(2):
            base = tmp_path / "LIDC-IDRI-slices" / f"LIDC-IDRI-{patient:04}" / f"nodule-{nodule}"
            for s in range(2):
                save(base / "images" / f"slice-{s}.png", RNG.integers(0, 255, (128, 128), dtype=np.uint8))
                for k in range(4):
                    save(
                        base / f"mask-{k}" / f"slice-{s}.png", np.zeros((128, 128), np.uint8) if k else blob((128, 128))
                    )
    return tmp_path


def no_group_crosses(source: Source) -> None:
    groups = {case.id: case.group for case in source.cases}
    first = next(iter(source.schemes.values()))
    seen = [{groups[case] for case in first[part]} for part in PARTS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert sorted(case for part in PARTS for case in first[part]) == sorted(groups)


def test_cvc_is_read_with_its_three_splits(cvc):
    source = cvc_clinicdb.read(cvc)
    assert list(source.schemes) == ["sequence", "random", "pranet"]
    assert sorted(source.schemes["pranet"]["test"]) == ["14", "21", "25", "50"]
    assert {c.group for c in source.cases if c.id in ("1", "14", "25")} == {"seq-01"}
    no_group_crosses(source)


def test_every_cvc_frame_belongs_to_its_sequence_and_pranet_holds_62():
    assert [cvc_clinicdb.sequence_of(n) for n in (1, 25, 26, 591, 592, 612)] == [1, 1, 2, 28, 29, 29]
    assert len(set(cvc_clinicdb.PRANET_TEST)) == 62


def test_isic_without_official_parts_splits_the_training_ids_and_says_so(isic):
    source = isic2018.read(isic(["Training"]))
    assert list(source.schemes) == ["training-ids"] and "training ids" in source.remark
    no_group_crosses(source)


def test_isic_with_all_parts_takes_the_official_split(isic):
    source = isic2018.read(isic(["Training", "Validation", "Test"]))
    assert next(iter(source.schemes)) == "official"
    assert all("Test" in case for case in source.schemes["official"]["test"])


def test_no_lidc_patient_crosses_a_split(lidc):
    source = lidc_idri.read(lidc)
    assert len(source.cases) == 80 and source.cases[0].read()[1].shape == (4, 128, 128)
    no_group_crosses(source)


def test_lidc_with_a_rater_missing_is_refused(lidc):
    next(lidc.glob("**/mask-2/slice-1.png")).unlink()
    with pytest.raises(InputError, match=r"has no mask .*mask-2"):
        prepare(lidc_idri.read(lidc), lidc / "store", 128, 1)


def test_own_folder_with_several_raters_and_patients(tmp_path):
    for i in range(12):
        save(tmp_path / "images" / f"p{i // 2}__{i}.png", photo())
        for k in range(3):
            save(tmp_path / f"masks-{k}" / f"p{i // 2}__{i}.png", blob())
    source = folder.read(tmp_path)
    assert source.cases[0].read()[1].shape[0] == 3
    no_group_crosses(source)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "masks/3.png").unlink(), r"3\.png has no mask in .*masks; or leave it out$"),
        (lambda d: (d / "images/3.png").unlink(), r"3\.png has no image in .*images"),
        (lambda d: save(d / "masks/3.png", blob((20, 20))), r"3\.png is 20×20 but its image 3\.png is 48×40"),
        (
            lambda d: save(d / "masks/3.png", photo()[:, :, 0]),
            r"must hold 0 and one other value, found .*cut a soft mask at a threshold",
        ),
        (lambda d: save(d / "masks/3.png", photo()), "this one has colours"),
        (lambda d: save(d / "images/3.png", np.zeros((40, 48), np.uint8)), "case 3: the image is flat"),
        (lambda d: (d / "images/3.png").write_bytes(b""), r"3\.png is empty"),
        (lambda d: (d / "images/3.png").write_bytes(b"not an image"), r"3\.png is not an image"),
        (
            lambda d: (d / "images/3.png").write_bytes((d / "images/4.png").read_bytes()[:200]),
            r"3\.png is (damaged|not an)",
        ),
    ],
)
def test_bad_folder_gets_one_line_and_leaves_nothing(tmp_path, damage, message):
    source = tmp_path / "source"
    for i in range(10):
        save(source / "images" / f"{i}.png", photo())
        save(source / "masks" / f"{i}.png", blob())
    damage(source)
    with pytest.raises(InputError, match=message) as caught:
        prepare(folder.read(source), tmp_path / "store", 32, 3)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_wrong_layout_says_what_was_expected_and_found(tmp_path):
    (tmp_path / "pictures").mkdir()
    for read in (folder.read, cvc_clinicdb.read, isic2018.read, lidc_idri.read):
        with pytest.raises(InputError, match=r"expected .*found pictures"):
            read(tmp_path)


def test_images_whose_masks_have_another_name_hear_what_lies_beside_them(tmp_path):
    for name in ("images/a.png", "reader_A/a.png", "reader_B/a.png"):
        save(tmp_path / name, photo())
    with pytest.raises(InputError) as caught:
        folder.read(tmp_path)
    said = str(caught.value).removeprefix(f"{tmp_path}: ")
    assert said == (
        "expected a folder masks beside images (several raters' folders are called masks-0, masks-1 …), masks beside their "
        "images (NAME_mask), or a COCO or labelme file, found reader_A, reader_B"
    )


def test_names_of_two_kinds_are_refused_lest_a_patient_cross_the_split(tmp_path):
    for name in ("a__1", "a__2", "b__1", "lone"):
        save(tmp_path / "images" / f"{name}.png", photo())
        save(tmp_path / "masks" / f"{name}.png", blob())
    with pytest.raises(InputError, match=r"others don't \(lone"):
        folder.read(tmp_path)


def test_frames_that_cvc_does_not_have_are_refused(cvc):
    save(cvc / "CVC-ClinicDB/PNG/Original/frame_1.png", photo())
    save(cvc / "CVC-ClinicDB/PNG/Ground Truth/frame_1.png", blob())
    with pytest.raises(InputError, match=r"named 1\.png … 612\.png, not frame_1"):
        cvc_clinicdb.read(cvc)


def test_masks_cut_at_a_threshold_when_asked(tmp_path):
    for i in range(10):
        save(tmp_path / "images" / f"{i}.png", photo())
        save(tmp_path / "masks" / f"{i}.png", np.full((40, 48), 10 * i, np.uint8))
    cases = folder.read(tmp_path, reading=MaskReading(50)).cases
    assert [bool(case.read()[1].any()) for case in (cases[0], *cases[4:])] == [False] * 2 + [True] * 5
    for case in cases[1:4]:  # values as low as labels have
        with pytest.raises(InputError, match="nothing reaches the threshold 50"):
            case.read()


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=6), st.sampled_from("uvwxyz"), min_size=6, max_size=60),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_random_scheme_never_splits_a_group(groups, seed):
    scheme = random_scheme(groups, seed)
    for group in set(groups.values()):
        assert sum(any(groups[case] == group for case in scheme[part]) for part in PARTS) == 1
    assert sum(len(scheme[part]) for part in PARTS) == len(groups)


@given(st.integers(0, 199), st.integers(0, 199), st.integers(8, 64))
@settings(max_examples=60)
def test_a_mask_of_one_pixel_survives_resizing(y, x, size):
    mask = np.zeros((200, 200), bool)
    mask[y, x] = True
    assert resize_mask(mask, size).sum() >= 1
    assert resize_mask(np.zeros((200, 200), bool), size).sum() == 0


def test_resizing_to_the_same_size_changes_nothing():
    image, mask = photo((32, 32)), blob((32, 32)) > 0
    assert (resize_image(image, 32) == image.transpose(2, 0, 1)).all()
    assert (resize_mask(mask, 32) == mask).all()


def test_store_gives_back_what_went_in(store):
    ids = [store.ids[5], store.ids[2], store.ids[9]]
    batch = store.batch(ids)
    for k, case in enumerate(ids):
        truth = phantom.draw(phantom.case_index(case))
        assert (batch.image[k, 0].mul(255).round().numpy() == truth.image[:, :, 0]).all()
        assert (batch.truth()[k].numpy() > 0).tolist() == truth.masks.tolist()
        assert (store.native_masks(case) == truth.masks).all()


def test_hash_follows_the_content(tmp_path):
    cases = phantom.read().cases
    one, other = (
        prepare(Source("p", cases[a:b], {"random": {}}, ""), tmp_path / str(a), 64, 1).hash for a, b in ((0, 3), (3, 6))
    )
    again = prepare(Source("p", cases[:3], {"random": {}}, ""), tmp_path / "again", 64, 1).hash
    assert one != other and one == again


def test_damaged_store_is_a_clear_error(store, tmp_path):
    with pytest.raises(InputError, match="no prepared data set"):
        Store(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"manifest\.json is missing"):
        Store(tmp_path / "empty")
    with pytest.raises(ConfigError, match="has no split 'nonsense'; it has random"):
        store.part("nonsense", "test")


def test_phantom_raters_mark_pixels_as_often_as_the_truth_says():
    drawn = [phantom.draw(i) for i in range(300)]
    found = np.mean([p.masks.mean() for p in drawn])
    expected = np.mean([p.pixel_probability.mean() for p in drawn])
    assert found == pytest.approx(expected, rel=0.03)
    unsure = [p for p in drawn if 0.4 < p.halo_probability < 0.6]
    included = np.mean([(p.masks[:, p.halo_ring].mean(axis=1) > 0.5).mean() for p in unsure])
    assert 0.35 < included < 0.65
