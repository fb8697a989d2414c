"""A small mutation run on the scientific core: does a test fail for every one-line change that is wrong?

    python scripts/mutate.py --out mutation.jsonl --report docs/results/mutation.md

Mutants are the hand-made ones of `mutants.txt` and a seeded sample of generated ones (`generate`). Each runs the test
files of its module (`CORE`) with `pytest -x` in a fork of one process that holds everything imported. A finished mutant is
a line of --out and is not run again, so a stopped run goes on. Survivors that no test can kill are explained in
`mutants-explained.txt`.
"""

import argparse
import ast
import contextlib
import importlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
SOURCE, HERE = ROOT / "src" / "manymask", Path(__file__).parent
CPU_SECONDS = 90  # a mutant that takes longer hangs, and is killed

# module: its test files, the quickest first
CORE: dict[str, tuple[str, ...]] = {
    "diffusion.process": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.base": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.ddim": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.ddpm": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.dpm_solver": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.euler": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.heun": ("diffusion/process", "diffusion/samplers"),
    "diffusion.samplers.plms": ("diffusion/process", "diffusion/samplers"),
    "nn.quantizers": ("nn/quantizers", "models/autoencoder"),
    "nn.losses": ("nn/losses",),
    "metrics": ("metrics",),
    "ensemble": ("ensemble",),
    "data.raters": ("ensemble",),
    "rng": ("rng", "diffusion/process", "models/presence"),
    "diffusion.guidance": ("diffusion/guidance", "models/training_loss"),
    "models.autoencoder": ("models/autoencoder",),
    "models.latent_diffusion": (
        "models/training_loss",
        "models/latent_diffusion",
        "diffusion/guidance",
        "models/presence",
    ),
    "training.optim": ("training/optim",),
    "evaluation.evaluator": ("evaluation/scoring", "evaluation/evaluator"),
    "data.augment": ("data/augment_values", "data/augment"),
    "data.case": ("data/splits",),
}
# of these only the hand-made mutants are run
EDGE: dict[str, tuple[str, ...]] = {
    "data.datasets.folder": ("data/splits",),
    "training.trainer": ("training/selection",),
    "inference.preprocess": ("inference/preprocess",),
    "io.dicom.seg": ("io/dicom/seg",),
}
TESTS = CORE | EDGE


class Mutant(NamedTuple):
    """One line of a module, before and after."""

    module: str
    line: int
    before: str
    after: str

    def source(self) -> str:
        lines = path_of(self.module).read_text(encoding="utf-8").split("\n")
        lines[self.line - 1] = self.after
        return "\n".join(lines)


def test_file(name: str) -> Path:
    """`diffusion/process` → tests/diffusion/test_process.py, relative to the repository."""
    place = Path("tests") / name
    return place.with_name(f"test_{place.name}.py")


def path_of(module: str) -> Path:
    return SOURCE / f"{module.replace('.', '/')}.py"


def by_hand() -> Iterator[Mutant]:
    """`mutants.txt`: a module, a line that starts with `-` and one with `+`, which replaces the one place that has it."""
    module, old = "", ""
    for number, line in enumerate((HERE / "mutants.txt").read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("- "):
            old = line[2:]
        elif line.startswith("+ "):
            lines = path_of(module).read_text(encoding="utf-8").split("\n")
            places = [i for i, text in enumerate(lines) if old in text]
            if len(places) == 1:
                before = lines[places[0]]
                yield Mutant(module, places[0] + 1, before, before.replace(old, line[2:], 1))
            else:
                print(f"mutants.txt:{number}: left out, {len(places)} lines of {module} hold {old!r}", file=sys.stderr)
        elif line and not line.startswith("#"):
            module = line


COMPARISONS = {"<=": "<", ">=": ">", "==": "!=", "!=": "==", "<": "<=", ">": ">=", "is not": "is", "is": "is not"}
ARITHMETIC = {"**": "*", "//": "/", "+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "|": "&", "&": "|"}
NAMES = {"min": "max", "max": "min", "mean": "sum", "sum": "mean", "any": "all", "all": "any", "cos": "sin", "sin": "cos",
         "amax": "amin", "argmin": "argmax", "sqrt": "square", "square": "abs"}  # fmt: skip


class Sites(ast.NodeVisitor):
    """Edits (line, from byte, to byte, text) of function bodies; no annotation, message or default of a setting."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines, self.edits = lines, list[tuple[int, int, int, str]]()

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.ClassDef | ast.Module):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.ClassDef):
                    self.visit(part)
            return
        if isinstance(node, ast.FunctionDef):
            for part in (*node.args.defaults, *node.body):
                self.visit(part)
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.visit(node.value)
            return
        super().generic_visit(node)

    def between(self, left: ast.expr, right: ast.expr, table: dict[str, str]) -> None:
        """Exchanges the operator that stands between two operands of one line."""
        if left.end_lineno != right.lineno or left.end_col_offset is None:
            return
        start = left.end_col_offset
        gap = self.lines[right.lineno - 1][start : right.col_offset].decode()
        found = next((operator for operator in table if operator in gap), None)
        if found:
            place = start + len(gap[: gap.index(found)].encode())
            self.edits.append((right.lineno, place, place + len(found), table[found]))

    def visit_Compare(self, node: ast.Compare) -> None:
        self.between(node.left, node.comparators[0], COMPARISONS)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.between(node.left, node.right, ARITHMETIC)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.between(*node.values[:2], {"and": "or", "or": "and"})
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub | ast.Not) and node.lineno == node.operand.lineno:
            self.edits.append((node.lineno, node.col_offset, node.operand.col_offset, ""))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool | int | float) and node.end_col_offset is not None:
            value = node.value
            new = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 2 * value or 1.0
            self.edits.append((node.lineno, node.col_offset, node.end_col_offset, repr(new)))

    def visit_Call(self, node: ast.Call) -> None:
        place, name = node.func, ""
        if isinstance(place, ast.Name | ast.Attribute):
            name = place.id if isinstance(place, ast.Name) else place.attr
        if name in NAMES and place.end_lineno and place.end_col_offset:
            self.edits.append((place.end_lineno, place.end_col_offset - len(name), place.end_col_offset, NAMES[name]))
        self.generic_visit(node)


def generate(module: str) -> list[Mutant]:
    """Every one-place edit of a module: operators, numbers and names exchanged, `not` and minus left out."""
    return mutants_of(module, path_of(module).read_text(encoding="utf-8"))


def mutants_of(module: str, text: str) -> list[Mutant]:
    sites = Sites([line.encode() for line in text.split("\n")])
    sites.visit(ast.parse(text))
    found = []
    for number, start, end, new in sites.edits:
        line = sites.lines[number - 1]
        found.append(Mutant(module, number, line.decode(), (line[:start] + new.encode() + line[end:]).decode()))
    return found


def chosen(per_hundred: int, seed: int) -> list[Mutant]:
    """The hand-made mutants, and of each core module `per_hundred` % of the generated ones; more hold the fewer."""
    sample = list[Mutant]()
    for module in CORE:
        everything = sorted(set(generate(module)))
        random.Random(f"{seed} {module}").shuffle(everything)
        sample += everything[: -(-len(everything) * per_hundred // 100)]
    return [mutant for mutant in dict.fromkeys([*by_hand(), *sample]) if compiles(mutant)]


def compiles(mutant: Mutant) -> bool:
    """A change that is no Python is not killed, it is none."""
    try:
        compile(mutant.source(), mutant.module, "exec")
    except SyntaxError:
        print(f"left out, no Python: {mutant.module}:{mutant.line} {mutant.after.strip()}", file=sys.stderr)
        return False
    return True


def functions(code: CodeType) -> dict[str, CodeType]:
    """The outermost functions of a module's code by their qualified names, those of classes included."""
    found = dict[str, CodeType]()
    for part in (const for const in code.co_consts if isinstance(const, CodeType)):
        is_class = not part.co_flags & 0x02  # CO_NEWLOCALS: a function's, not a class body's
        found |= functions(part) if is_class else {part.co_qualname: part}
    return found


def outside(code: CodeType) -> list[Any]:
    """What a module's code holds besides its functions: defaults, constants, settings."""
    own = [code.co_code, code.co_names, *(const for const in code.co_consts if not isinstance(const, CodeType))]
    for part in (const for const in code.co_consts if isinstance(const, CodeType)):
        own += outside(part) if not part.co_flags & 0x02 else []
    return own


def live(module: ModuleType, name: str) -> FunctionType | None:
    """The function object that everyone holds, beneath its decorators."""
    found: Any = module
    for part in name.split("."):
        found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
    for inner in ("fget", "func", "__func__"):
        found = getattr(found, inner, None) or found
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    return found if isinstance(found, FunctionType) else None


def swap(mutant: Mutant) -> bool:
    """Puts the mutated code into the functions as they were imported; False where more than a function's body changed."""
    path = path_of(mutant.module)
    old, new = (compile(text, str(path), "exec") for text in (path.read_text(encoding="utf-8"), mutant.source()))
    if outside(old) != outside(new):
        return False
    module, before = sys.modules[f"manymask.{mutant.module}"], functions(old)
    for name, code in functions(new).items():
        if code != before[name]:
            function = live(module, name)
            if function is None or function.__code__.co_freevars != code.co_freevars:
                return False
            function.__code__ = code
    return True


class Loader(SourceFileLoader):
    """Compiles the mutated text in place of the file's."""

    text = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec")


def import_anew(mutant: Mutant) -> None:
    """Forgets every module of ours; the next import of the mutated one finds the mutant."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("manymask", "tests")]:
        del sys.modules[name]

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name != f"manymask.{mutant.module}":
                return None
            loader = Loader(name, str(path_of(mutant.module)))
            loader.text = mutant.source()
            return spec_from_file_location(name, loader.path, loader=loader)

    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def passes(tests: tuple[str, ...], mutant: Mutant | None) -> bool:
    """Whether all tests of these files pass in a fork, with the mutant in place."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        import pytest

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if mutant is not None and not swap(mutant):
                import_anew(mutant)
            files = [str(test_file(name)) for name in tests]
            code = int(pytest.main([*files, "-x", "-q", "-p", "no:cacheprovider", "--timeout=0"]))
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def prepare(modules: set[str]) -> None:
    """Imports these modules and their tests once; whatever a fork changes is its own."""
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    import torch

    torch.set_num_threads(1)
    for name in modules:
        importlib.import_module(f"manymask.{name}")
    for name in {test for module in modules for test in TESTS[module]}:
        importlib.import_module(".".join(test_file(name).with_suffix("").parts))


def finished(out: Path) -> dict[Mutant, bool]:
    """The mutants that `out` holds, and whether they were killed."""
    entries = map(json.loads, out.read_text(encoding="utf-8").splitlines()) if out.exists() else ()
    return {Mutant(*entry["mutant"]): entry["killed"] for entry in entries}


def run(mutants: list[Mutant], out: Path) -> dict[Mutant, bool]:
    """Whether each mutant is killed; what `out` holds already is not run again."""
    done = finished(out)
    left = [mutant for mutant in mutants if mutant not in done]
    if left:
        prepare({mutant.module for mutant in left})
    green = set[str]()
    for k, mutant in enumerate(left, start=1):
        if mutant.module not in green and not passes(TESTS[mutant.module], None):
            raise SystemExit(f"the tests of {mutant.module} fail without any mutant: mend them first")
        green.add(mutant.module)
        done[mutant] = killed = not passes(TESTS[mutant.module], mutant)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"mutant": mutant, "killed": killed}, ensure_ascii=False) + "\n")
        word = "killed  " if killed else "SURVIVES"
        print(f"{k}/{len(left)} {word} {mutant.module}:{mutant.line} {mutant.after.strip()}", flush=True)
    return done


def explanations() -> dict[str, str]:
    """`mutants-explained.txt`: a mutated line, and under it why it changes nothing that matters."""
    lines = [line for line in (HERE / "mutants-explained.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("#")]
    return {line.strip(): reason.strip() for line, reason in zip(lines[::2], lines[1::2], strict=True)}


def report(found: dict[Mutant, bool], left: int) -> str:
    """The page: score, by module, survivors with their reasons; `left` mutants were not run."""
    head = ["git", "describe", "--always", "--dirty", "--abbrev=8"]
    revision = subprocess.run(head, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    killed, reasons = sum(found.values()), explanations()
    stopped = f" The run was stopped before {left} more." if left else ""
    lines = ["# Mutation run", "", f"`make mutate` at {revision}: **{killed} of {len(found)} mutants killed "
             f"({100 * killed / len(found):.0f} %)**.{stopped}", "", "| module | killed | of |", "|---|---|---|"]  # fmt: skip
    for module in TESTS:
        of = [alive for mutant, alive in found.items() if mutant.module == module]
        lines += [f"| `{module}` | {sum(of)} | {len(of)} |"] if of else []
    lines += ["", "Survivors, each as the line reads after the mutation:", ""]
    for mutant in (mutant for mutant, dead in found.items() if not dead):
        reason = reasons.get(mutant.after.strip(), "no test is there for it yet")
        lines.append(f"- `{mutant.module}:{mutant.line}` `{mutant.after.strip()}`: {reason}")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-hundred", type=int, default=10, help="share of the generated mutants, in percent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(TESTS), help="modules")
    parser.add_argument("--out", type=Path, default=Path("mutation.jsonl"))
    parser.add_argument("--report", type=Path)
    parser.add_argument("--finished", action="store_true", help="run no more: report what --out holds")
    given = parser.parse_args()
    mutants = [m for m in chosen(given.per_hundred, given.seed) if m.module in given.only]
    out = given.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    found = finished(out) if given.finished else run(mutants, out)
    found = {mutant: found[mutant] for mutant in mutants if mutant in found}
    print(f"{sum(found.values())} of {len(found)} killed; {len(mutants) - len(found)} were not run")
    if given.report:
        (ROOT / given.report).write_text(report(found, len(mutants) - len(found)), encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
