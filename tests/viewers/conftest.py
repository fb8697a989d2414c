"""A study in an archive, segmented by manymask as a user would, and OHIF in a browser that looks at it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

pytest.importorskip("dicomweb_client", reason="the extra `dicom` is not installed")

from tests.archive import ORTHANC, PLUGIN, orthanc
from tests.chest import chest_ct
from tests.factories import run


@dataclass(frozen=True)
class Study:
    """A CT series from the feet upwards, the objects that manymask made of it by file name, and its pictures (H, W) by
    name, slice by slice."""

    images: list[Any]
    objects: dict[str, Path]
    folder: Path

    def picture(self, name: str, k: int) -> np.ndarray:
        """The values of NAME.png of slice k."""
        number = self.images[k].InstanceNumber
        return np.asarray(Image.open(self.folder / f"series-0004-image-{number:04}" / f"{name}.png")).astype(int)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """By the shipped LIDC model, three masks on each slice."""
    folder = tmp_path_factory.mktemp("chest")
    images = chest_ct()
    (folder / "ct").mkdir()
    for image in images:
        image.save_as(folder / "ct" / f"{image.InstanceNumber}.dcm", enforce_file_format=True)
    out = folder / "out"
    arguments = ["segment", folder / "ct", "--model", "lidc_idri", "--roi", "104,62", "--samples", 3, "--out", out,
                 "--form", "dicom", "--form", "png"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *arguments) == 0
    return Study(images, {path.stem: path for path in (out / "series-0004").glob("*.dcm")}, out)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, study):
    """Orthanc with the series and all objects made of it."""
    if ORTHANC is None or not PLUGIN.exists():
        pytest.skip("Orthanc with its DICOMweb plugin is not installed (apt-get install orthanc orthanc-dicomweb)")
    with orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        found.client.store_instances([*study.images, *map(pydicom.dcmread, study.objects.values())])
        yield found
