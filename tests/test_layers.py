"""The house has floors: a module imports from lower floors, or from what stands earlier on its own."""

import ast
from pathlib import Path

import pytest

import manymask

# as drawn in docs/architecture.md, bottom first
FLOORS = (
    "errors", "signals", "choices", "noise", "limits", "settings", "provenance", "record", "datasets", "licences",
    "blocks", "imagenet", "losses", "process", "consensus", "metrics",
    "samplers", "bottlenecks",
    "files.text", "files.atomic", "files.tensors",
    "files.samples", "files.colours", "files.tiff", "files.pillow", "files.depth", "files.raster", "files.masks",
    "files.picture", "files.window",
    "files.dicom_header", "files.dicom_spacing", "files.dicom_decode", "files.dicom_tables", "files.dicom_pixels",
    "files.dicom_file", "files.dicom_series",
    "files.dicom", "files.nifti", "files.inputs", "files.source", "files.result", "files.summary",
    "files.anonymise", "files.dicom_source", "files.dicom_uid", "files.dicom_seg", "files.dicomweb",
    "data.case", "data.pairs", "data.layout", "data.twins", "data.survey", "data.writer", "data.manifest", "data.store",
    "data.augment",
    "data.cvc_clinicdb", "data.isic2018", "data.lidc_xml", "data.lidc_tcia", "data.lidc_idri",
    "data.folder", "data.phantom", "data.polyps",
    "codec",
    "denoisers.concat_unet", "denoisers.pyramid_unet", "denoisers.segdiff", "denoisers.medsegdiff", "denoisers",
    "stream", "networks", "presence", "prob_unet", "guidance", "segmenters",
    "recipes", "model_files", "card", "regions", "cautions", "hub", "leaks", "inference",
    "agreement", "evaluate", "invariance", "show", "publish",
    "run_folder", "optim", "job", "train", "demo",
    "experiments", "measure", "pictures", "sweeps", "task",
    "report.paper", "report.table", "report.shape", "report.collect", "report.tables", "report.plots",
    "report.curves", "report.write",
    "reproduce",
    "page.line", "page.door", "page.uploads", "page.scene", "page.desk", "page.office", "page.app", "page.patches", "page.serve",
    "verbs.data", "verbs.train", "verbs.use", "verbs.score", "verbs.experiments", "cli", "__main__",
)  # fmt: skip
PACKAGES = {"files", "data", "report", "page", "verbs"}  # no more than a line each
SOURCE = Path(manymask.__file__).parent


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
        if path != SOURCE / "__init__.py"
    }


def imported(path: Path) -> set[str]:
    """The manymask modules that a file imports, also inside functions."""
    known, found = modules(), set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("manymask"):
            base = (node.module or "").removeprefix("manymask").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in known else base)
    return found - {"", "Segmenter", *PACKAGES}


def test_every_module_has_a_floor():
    assert set(modules()) - PACKAGES == set(FLOORS)


@pytest.mark.parametrize("module", FLOORS)
def test_module_imports_only_from_below(module):
    below = set(FLOORS[: FLOORS.index(module)])
    assert imported(modules()[module]) <= below


def test_no_module_or_function_has_outgrown_the_house():
    for path in modules().values():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, f"{path} is too long to read in one go"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 62, f"{path}:{node.lineno} {node.name} is too long"
