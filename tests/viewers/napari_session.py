"""A person at napari, in a process of its own: draws masks of a slice, moves the threshold, and prints what is on the screen.

python -m tests.viewers.napari_session MODEL FOLDER
"""

import json
import sys
import time
from importlib.resources import files
from pathlib import Path

import napari
import numpy as np
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QApplication


def wait(ready, seconds=120):
    start = time.monotonic()
    while not ready():
        assert time.monotonic() - start < seconds
        QApplication.processEvents()
        time.sleep(0.01)


def layers_of(viewer):
    return {layer.name: layer for layer in viewer.layers}


def draw(widget):
    widget.button.native.click()
    started = not widget.button.enabled
    wait(lambda: widget.button.enabled)
    return started


def main(model: Path, folder: Path) -> None:
    manager = PluginManager.instance()
    manager.discover()
    manifest = PluginManifest.from_file(str(files("manymask.serving") / "napari.yaml"))
    manifest.validate_imports()
    if "manymask" not in manager:
        manager.register(manifest)
    viewer = napari.Viewer(show=False)
    viewer.window.resize(1400, 900)
    stack = np.load(folder / "stack.npy")
    image = viewer.add_image(stack, name="stack", scale=(5, 2, 2), translate=(1, 3, 4))
    _, widget = viewer.window.add_plugin_dock_widget("manymask")
    viewer.layers.selection.active = None
    refused = (draw(widget), widget.note.value)
    viewer.layers.selection.active = image
    viewer.dims.set_current_step(0, 2)
    widget.model.choices = [str(model)]
    widget.samples.value, widget.seed.value = 3, 7
    started = draw(widget)
    found = layers_of(viewer)
    np.save(folder / "confidence.npy", found["confidence"].data)
    shares = {}
    for threshold in (0.3, 0.5, 0.7):
        widget.threshold.value = threshold
        np.save(folder / f"consensus-{threshold}.npy", found["consensus"].data)
        shares[threshold] = found["consensus"].metadata["manymask"]["threshold"]
    for k in (1, 2, 3):
        np.save(folder / f"mask-{k}.npy", found[f"mask {k}"].data)
    viewer.screenshot(str(folder / "napari.png"), canvas_only=False, flash=False)
    corner = [float(x) for x in found["consensus"].data_to_world((0, 0, 0))]
    far = [float(x) for x in found["consensus"].data_to_world((0, 10, 20))]
    said = {
        "layers": list(found), "refused": refused, "started": started, "corner": corner, "far": far, "thresholds": shares,
        "note": widget.note.value, "active": viewer.layers.selection.active.name,
        "metadata": found["mask 1"].metadata["manymask"],
    }  # fmt: skip
    (folder / "said.json").write_text(json.dumps(said, default=str))
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
