"""The container image: what its build takes from the checkout is there, and it runs as it says."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_everything_that_the_build_needs_reaches_it():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert {"pyproject.toml", "constraints.txt", PROJECT["readme"], *PROJECT["license-files"], "src", "models"} == kept
    assert all((ROOT / name).exists() for name in kept)


def test_installed_extras_are_those_of_the_project():
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_it_runs_without_root_and_answers_where_its_health_is_asked():
    last = DOCKERFILE.rpartition("FROM ")[2]
    assert int(re.search(r"^USER (\d+)$", last, re.MULTILINE)[1]) > 0
    (port,) = re.findall(r"^EXPOSE (\d+)$", last, re.MULTILINE)
    assert f"http://127.0.0.1:{port}/healthz" in last.partition("HEALTHCHECK")[2]
