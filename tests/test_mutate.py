"""The mutation run makes the changes that it says it makes, and no others."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def mutate():
    path = Path(__file__).parent.parent / "scripts" / "mutate.py"
    spec = importlib.util.spec_from_file_location("mutate", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutate"]


TEXT = '''
LIMIT = 3
class Setting:
    size: int = 5
    def kept(self, a, b=2):
        """Not 7."""
        if not 1 <= a:
            raise ValueError(f"{a} < 1")
        γ = -a + b.sum()
        return γ > 0.5 and True
'''


def test_operators_numbers_and_names_of_bodies_are_exchanged_and_nothing_else(mutate):
    found = {mutant.after.strip() for mutant in mutate.mutants_of("m", TEXT)}
    assert found == {
        "def kept(self, a, b=3):",
        "if 1 <= a:",
        "if not 2 <= a:",
        "if not 1 < a:",
        "γ = a + b.sum()",
        "γ = -a - b.sum()",
        "γ = -a + b.mean()",
        "return γ >= 0.5 and True",
        "return γ > 1.0 and True",
        "return γ > 0.5 or True",
        "return γ > 0.5 and False",
    }


def test_a_body_is_told_from_what_stands_outside_of_functions(mutate):
    def outside(text: str) -> list:
        return mutate.outside(compile(text, "m", "exec"))

    assert outside(TEXT) == outside(TEXT.replace("0.5", "1.0"))
    assert outside(TEXT) != outside(TEXT.replace("size: int = 5", "size: int = 6"))
    assert outside(TEXT) != outside(TEXT.replace("b=2", "b=3"))
    assert list(mutate.functions(compile(TEXT, "m", "exec"))) == ["Setting.kept"]


def test_every_module_of_the_run_and_its_tests_exist(mutate):
    tests = Path(__file__).parent
    for module, names in mutate.TESTS.items():
        assert mutate.path_of(module).exists()
        assert all((tests.parent / mutate.test_file(name)).exists() for name in names)
