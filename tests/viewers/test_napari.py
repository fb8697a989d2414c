"""The plug-in in napari itself, on a screen that nobody sees."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manymask import Segmenter

# not imported here, where its warnings would be errors
if not all(map(find_spec, ("napari", "PySide6"))):
    pytest.skip("the extra `napari` or Qt is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]
QT_NEEDS = (
    "EGL",
    "GL",
    "xcb-cursor",
    "xcb-icccm",
    "xcb-keysyms",
    "xkbcommon-x11",
)  # its own platform "offscreen" has no OpenGL


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (4, 90, 130), dtype=np.uint8)


@pytest.fixture(scope="module")
def session(drawing_model: Path, stack: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("xvfb-run") is None or not all(map(find_library, QT_NEEDS)):
        pytest.skip("Xvfb or libraries of Qt are not installed (see .ci/run)")
    folder = tmp_path_factory.mktemp("napari")
    np.save(folder / "stack.npy", stack)
    command = ["xvfb-run", "-a", sys.executable, "-m", "tests.viewers.napari_session", drawing_model, folder]
    here = {"QT_QPA_PLATFORM": "xcb", "NAPARI_CONFIG": str(folder / "settings.yaml"), "HOME": str(folder)}
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=os.environ | here, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return folder


@pytest.fixture(scope="module")
def said(session: Path) -> dict:
    return json.loads((session / "said.json").read_text())


@pytest.fixture(scope="module")
def expected(drawing_model: Path, stack: np.ndarray):
    return Segmenter.from_pretrained(drawing_model, device="cpu").segment(stack[2], samples=3, seed=7)


def test_button_draws_the_masks_of_the_slice_that_is_shown(session, said, expected):
    assert said["started"] and said["layers"][:4] == ["stack", "disagreement", "confidence", "consensus"]
    assert said["layers"][4:] == ["mask 1", "mask 2", "mask 3"]
    assert np.allclose(np.load(session / "confidence.npy")[0], expected.confidence, atol=1e-5)
    for k, mask in enumerate(expected.masks, 1):
        drawn = np.load(session / f"mask-{k}.npy")
        assert drawn.shape == (1, 90, 130) and ((drawn[0] > 0) != (mask.numpy() >= 0.5)).mean() < 1e-3


def test_consensus_follows_the_slider(session, said):
    confidence = np.load(session / "confidence.npy")
    for threshold in (0.3, 0.5, 0.7):
        assert np.array_equal(np.load(session / f"consensus-{threshold}.npy") > 0, confidence >= np.float32(threshold))
        assert said["thresholds"][str(threshold)] == pytest.approx(threshold)
    assert (confidence >= 0.3).sum() > (confidence >= 0.7).sum() > 0


def test_results_lie_on_their_slice_of_the_stack(said):
    assert said["corner"] == [11, 3, 4] and said["far"] == [11, 23, 44]


def test_image_layer_stays_active_and_results_say_how_they_were_made(said, drawing_model, expected):
    assert said["active"] == "stack"
    assert said["metadata"]["model"]["weights_sha256"] == Segmenter.from_pretrained(drawing_model).trained.fingerprint
    assert said["metadata"]["seed"] == 7 and said["note"].startswith("3 masks drawn.")
    assert all(warning in said["note"] for warning in expected.warnings)


def test_without_an_image_layer_it_says_so(said):
    assert said["refused"] == [False, "Select an image layer."]


def test_window_shows_the_image_and_the_outlines_in_their_colours(session):
    pixels = np.asarray(Image.open(session / "napari.png").convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 400 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    orange = np.abs(pixels - (230, 159, 0)).max(axis=-1) < 12  # that of the first mask
    assert orange.sum() > 50


def test_package_names_its_manifest_where_napari_looks():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["napari.manifest"]
    module, _, name = points["manymask"].partition(":")
    assert (ROOT / "src" / module.replace(".", "/") / name).exists()
