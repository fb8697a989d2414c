"""What manymask leaves alone in the process that imports it, and what it runs without."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "src/manymask/serving/static/examples"
EXTRAS = {"train": ["accelerate", "tensorboard"], "report": ["matplotlib"]}

BLOCK = """
import sys
from importlib.abc import MetaPathFinder


class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocked())
"""

# Other libraries do as they like, so they are imported before the first look.
IMPORT_ALL = """
import importlib, json, logging, os, pkgutil, sys, warnings
import gradio, highdicom, matplotlib, monai.losses, monai.metrics, monai.networks.nets, nibabel, PIL.Image, pydicom
import ray.data, ray.serve, requests, scipy.stats, tifffile, torch, tqdm, tyro
import matplotlib.pyplot


def state():
    levels = {name: logger.level for name, logger in logging.root.manager.loggerDict.items() if hasattr(logger, "level")}
    handlers = {name: len(logging.getLogger(name).handlers) for name in levels}
    return {
        "backend": matplotlib.get_backend(), "style": dict(matplotlib.rcParams), "pixels": PIL.Image.MAX_IMAGE_PIXELS,
        "filters": warnings.filters[:], "root": logging.root.level, "levels": levels, "handlers": handlers,
        "environment": dict(os.environ), "threads": torch.get_num_threads(), "seed": torch.initial_seed(),
    }


matplotlib.use("svg")
before = state()
import manymask
# the runner is copied beside an exported model, and reads what is there; napari alone imports its widget
programs = ("__main__", "export.runner", "serving.napari_widget")
names = [m.name for m in pkgutil.walk_packages(manymask.__path__, "manymask.") if not m.name.endswith(programs)]
for name in names:
    importlib.import_module(name)
after = state()
known = before["levels"]
after["levels"] = {name: level for name, level in after["levels"].items() if name in known or level}
changed = [key for key in before if key not in ("handlers",) and before[key] != after[key]]
changed += [name for name, count in after["handlers"].items() if count != before["handlers"].get(name, 0)]
print(json.dumps({"changed": changed, "modules": len(names)}))
"""

SEGMENT = """
from manymask.inference.segmenter import Segmenter

found = Segmenter.from_pretrained("models/isic2018").segment(sys.argv[1], samples=2, seed=0)
print(tuple(found.masks.shape), any(name in sys.modules for name in {blocked}))
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def without(*names: str) -> str:
    return BLOCK.format(blocked=set(names))


def test_importing_every_module_changes_nothing_in_the_process():
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    found = json.loads(run(IMPORT_ALL))
    assert found["modules"] > 60
    assert found["changed"] == []


def test_masks_are_drawn_without_the_extras_for_training_and_figures():
    blocked = [name for names in EXTRAS.values() for name in names]
    example = next(path for path in sorted(EXAMPLES.iterdir()) if path.suffix in (".jpg", ".png"))
    said = run(without(*blocked) + SEGMENT.format(blocked=set(blocked)), str(example))
    assert said.startswith("(2, ") and said.endswith(") False")


@pytest.mark.parametrize(
    ("blocked", "call", "line"),
    [
        (
            "accelerate",
            "from manymask.training.trainer import new_accelerator as f; f(None)",
            "training needs the extra `train`",
        ),
        (
            "tensorboard",
            "from manymask.training.trainer import new_accelerator as f; f(None)",
            "training needs the extra `train`",
        ),
        (
            "matplotlib",
            "from manymask.evaluation.plots import new_figure as f; f(1, 1)",
            "figures needs the extra `report`",
        ),
        ("matplotlib", "from manymask.experiments.report.plots import house_style as f; f()", "manymask[report]"),
    ],
)
def test_missing_extra_is_one_line_that_states_it(blocked, call, line):
    code = f"{without(blocked)}\nfrom manymask.errors import MissingExtraError\ntry:\n    exec({call!r})\n"
    said = run(code + "except MissingExtraError as error:\n    print(error)")
    assert line in said and "pip install 'manymask[" in said
