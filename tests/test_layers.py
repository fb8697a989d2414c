"""Size limits of files and functions; the layers themselves are checked by import-linter (`make lint`)."""

import ast
from pathlib import Path

import pytest

import manymask

SOURCE = Path(manymask.__file__).parent
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 62


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_file_and_its_functions_are_short_enough_to_read_in_one_go(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{node.name}, line {node.lineno}"
