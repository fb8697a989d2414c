"""The PraNet protocol: which frame is in which test part, and which videos stay together."""

import numpy as np
import pytest
from PIL import Image

from manymask.data.datasets import polyps
from manymask.errors import InputError

FRAMES = {
    "TrainDataset": ["cjua", "cjub", "cjuc", "cjud", "1", "2", "30", "60", "80", "110"],
    "TestDataset/Kvasir": ["cjux", "cjuy"],
    "TestDataset/CVC-ClinicDB": ["14"],
    "TestDataset/CVC-ColonDB": ["148", "149", "208", "209", "380"],
}


@pytest.fixture
def pranet(tmp_path):
    for folder, names in FRAMES.items():
        images, masks = (
            ("image", "mask") if folder == "TrainDataset" else ("images", "masks")
        )  # as its archives have it
        for name in names:
            for place, value in ((images, 90), (masks, 255)):
                pixels = np.zeros((12, 16, 3) if value == 90 else (12, 16), np.uint8)
                pixels[3:9, 4:10] = value
                path = tmp_path / "PraNet" / folder / place / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return tmp_path


def test_every_test_set_has_a_scheme_of_its_own_beside_the_same_training_part(pranet):
    schemes = polyps.read(pranet).schemes
    schemes.pop("pranet_all_videos")
    assert {name: list(scheme["test"]) for name, scheme in schemes.items()} == {
        "pranet": ["clinicdb-14", *[f"colondb-{n}" for n in (148, 149, 208, 209, 380)], "kvasir-cjux", "kvasir-cjuy"],
        "kvasir": ["kvasir-cjux", "kvasir-cjuy"],
        "cvc_clinicdb": ["clinicdb-14"],
        "colondb": [f"colondb-{n}" for n in (148, 149, 208, 209, 380)],
        "colondb_320": ["colondb-148", "colondb-209", "colondb-380"],
        "cvc_300": ["colondb-149", "colondb-208"],
    }
    assert len({tuple(scheme["train"]) for scheme in schemes.values()}) == 1
    assert len({tuple(scheme["val"]) for scheme in schemes.values()}) == 1


def test_all_videos_can_be_in_training_and_what_validates_is_not_learnt():
    held = ["clinicdb-1", "clinicdb-2", "clinicdb-3", "clinicdb-4", "kvasir-a"]
    cut = polyps._all_videos({"train": ["kvasir-b"], "val": held, "test": ["clinicdb-14"]})
    assert cut == {
        "train": ["kvasir-b", "clinicdb-2", "clinicdb-3"],
        "val": ["clinicdb-1", "clinicdb-4", "kvasir-a"],
        "test": ["clinicdb-14"],
    }


def test_frames_of_one_video_share_a_group(pranet):
    groups = {case.id: case.group for case in polyps.read(pranet).cases}
    assert groups["clinicdb-1"] == groups["clinicdb-2"] == groups["clinicdb-14"] == "clinicdb-seq-01"
    assert groups["colondb-208"] == "colondb-seq-08"
    assert groups["colondb-209"] == "colondb-seq-09"
    assert groups["colondb-380"] == "colondb-seq-15"
    assert groups["kvasir-cjua"] == "kvasir-cjua"


def test_a_frame_without_a_number_is_named(pranet):
    folder = pranet / "PraNet/TestDataset/CVC-ColonDB"
    for place in ("images", "masks"):
        (folder / place / "148.png").rename(folder / place / "first.png")
    with pytest.raises(InputError, match="not first"):
        polyps.read(pranet)
