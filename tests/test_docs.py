"""The snippets of README and docs: Python blocks run, `manymask` commands parse."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "src/manymask/serving/static/examples/ISIC_0010249.jpg"
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    skipped: bool


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(match["language"], match["code"], line, match["skip"] is not None)


def python_blocks(page: Path) -> list[Block]:
    """The Python blocks that are run."""
    return [block for block in blocks(page) if block.language == "python" and not block.skipped]


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every `manymask` command in the shell blocks of a page."""
    for block in blocks(page):
        if block.language not in ("", "bash", "console"):
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            if line.startswith("manymask "):
                yield shlex.split(line.partition(" > ")[0], comments=True)[1:]  # without a redirection


def name(page: Path) -> str:
    """A page as pytest shows it."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=name)
def test_python_snippets_run(page, tmp_path, monkeypatch):
    shutil.copy(EXAMPLE, tmp_path / "lesion.jpg")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": f"snippets of {name(page)}"}
    for block in python_blocks(page):
        code = "\n" * (block.line - 1) + block.code  # tracebacks show the line of the page
        exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=name)
def test_commands_parse(page, parse, capsys):
    for arguments in commands(page):
        status = parse(arguments)
        shown = capsys.readouterr()
        assert not status, f"manymask {shlex.join(arguments)}\n{shown.out}{shown.err}"


def test_blocks_that_are_not_run_say_why():
    """A hidden comment before the block is the only way to leave it out."""
    skipped = [block for page in PAGES for block in blocks(page) if block.skipped]
    assert skipped
    assert all(block.language == "python" for block in skipped)
