"""The app in `deploy/monailabel` behind MONAI Label's own FastAPI application.

MONAI Label is in none of the extras (docs/how-to/viewers.md says why). In an environment that has it:
python -m pytest tests/test_monailabel.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manymask.data.datasets import phantom
from manymask.inference.batch import segment_all
from manymask.inference.entries import find_entries
from manymask.inference.request import Request
from manymask.inference.segmenter import Segmenter
from manymask.inference.triage import doubt_of

pytest.importorskip("monailabel", reason="MONAI Label is not installed, as it is in no extra")
multipart = pytest.importorskip("requests_toolbelt.multipart.decoder")  # comes with it
pytestmark = pytest.mark.filterwarnings("ignore")
APP = Path(__file__).parents[1] / "deploy/monailabel"
COUNT = 4


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Images, a broken one, and a volume."""
    nibabel = pytest.importorskip("nibabel")
    folder = tmp_path_factory.mktemp("studies")
    for number in range(COUNT):
        Image.fromarray(phantom.draw(number).image[:, :, 0]).save(folder / f"image-{number}.png")
    (folder / "broken.png").write_bytes((folder / "image-0.png").read_bytes()[:60])
    slices = np.stack([phantom.draw(number).image[:, :, 0].T for number in range(3)], axis=2).astype(np.int16)
    affine = np.diag([0.7, 0.7, 3.0, 1.0])
    (tmp := folder.parent / "volume").mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(slices, affine), tmp / "brain.nii.gz")
    return folder


@pytest.fixture(scope="module")
def client(studies, drawing_model):
    from fastapi.testclient import TestClient
    from monailabel.config import settings

    settings.MONAI_LABEL_APP_DIR, settings.MONAI_LABEL_STUDIES = str(APP), str(studies)
    settings.MONAI_LABEL_APP_CONF = {"model": str(drawing_model), "samples": "3"}
    settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
    from monailabel.app import app

    with TestClient(app) as found:
        yield found


@pytest.fixture(scope="module")
def expected(studies, drawing_model, tmp_path_factory):
    """What `manymask segment` writes of the images, by their names."""
    out = tmp_path_factory.mktemp("out")
    paths = [str(studies / f"image-{number}.png") for number in range(COUNT)]
    segment_all(Segmenter.from_pretrained(drawing_model), find_entries(paths)[0], Request(out, 3))
    return {path.parent.name: path.parent for path in out.glob("*/result.json")}


def parts(answer):
    """The numbers and the file of an answer."""
    assert answer.status_code == 200, answer.text
    numbers, label = multipart.MultipartDecoder(answer.content, answer.headers["content-type"]).parts
    return json.loads(numbers.content), label


def test_app_tells_its_model_and_its_strategy(client):
    told = client.get("/info/").json()
    assert list(told["models"]) == ["manymask"] and list(told["strategies"]) == ["doubt"]
    assert told["models"]["manymask"]["type"] == "segmentation" and len(told["labels"]) == 1
    assert told["datastore"]["total"] == COUNT + 1


def test_label_is_the_consensus_that_segment_writes(client, expected, tmp_path):
    for name, folder in expected.items():
        numbers, label = parts(client.post("/infer/manymask", params={"image": name}))
        (tmp_path / "label.png").write_bytes(label.content)
        found = np.asarray(Image.open(tmp_path / "label.png"))
        assert np.array_equal(found, np.asarray(Image.open(folder / "consensus.png")) > 0) and found.max() <= 1
        result = json.loads((folder / "result.json").read_text())
        assert numbers["areas"] == result["areas"] and numbers["doubt"] == pytest.approx(doubt_of(result))
        assert list(numbers["label_names"].values()) == [1]


def test_volume_gets_a_label_on_its_own_grid(client, studies, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = studies.parent / "volume" / "brain.nii.gz"
    with path.open("rb") as file:
        numbers, label = parts(client.post("/infer/manymask", files={"file": ("brain.nii.gz", file)}))
    (tmp_path / "label.nii.gz").write_bytes(label.content)
    found, image = nibabel.load(tmp_path / "label.nii.gz"), nibabel.load(path)
    assert found.shape == image.shape and np.allclose(found.affine, image.affine)
    assert set(np.unique(found.dataobj)) == {0, 1} and 0 <= numbers["doubt"] <= 1


def test_next_sample_is_the_most_doubtful_one_without_a_label(client, expected, studies, tmp_path):
    """One that was just offered waits; one with a label is not offered; one that cannot be read is the last."""
    doubts = {name: doubt_of(json.loads((folder / "result.json").read_text())) for name, folder in expected.items()}
    first, second, *others = sorted(doubts, key=lambda name: -doubts[name])
    offered = client.post("/activelearning/doubt").json()
    assert offered["id"] == first and offered["doubt"] == pytest.approx(doubts[first], abs=1e-5)
    assert Path(offered["path"]).name == f"{first}.png"
    Image.new("L", (64, 64), 1).save(tmp_path / "label.png")
    with (tmp_path / "label.png").open("rb") as label:
        saved = client.put("/datastore/label", params={"image": second, "tag": "final"}, files={"label": label})
    assert saved.status_code == 200
    ids = [client.post("/activelearning/doubt").json()["id"] for _ in range(3)]
    assert ids == [*others, "broken"]
    known = json.loads((studies / "datastore_v2.json").read_text())["objects"]
    assert "manymask" in known["broken"]["image"]["info"] and "error" in known["broken"]["image"]["info"]["manymask"]


def test_unreadable_image_is_an_error_of_its_own(client):
    with pytest.raises(Exception, match=r"broken\.png"):
        client.post("/infer/manymask", params={"image": "broken"})
    assert client.get("/info/").status_code == 200
