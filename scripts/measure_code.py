"""What can be counted of the code: sizes, density, docstrings, names, and arrows between packages.

    python scripts/measure_code.py [CHECKOUT]

A line of code is one that is neither blank nor a comment nor part of a docstring.
"""

import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of all docstrings below a node."""
    lines = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node) is not None:
            lines |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def code_lines(source: str, tree: ast.AST, first: int = 1, last: int | None = None) -> int:
    """Lines of code from `first` to `last`."""
    hidden = docstring_lines(tree)
    numbered = enumerate(source.splitlines()[first - 1 : last], start=first)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in hidden for n, line in numbered)


def module_name(path: Path, root: Path) -> str:
    """`manymask.io.raster`."""
    return ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")


def arrows(path: Path, root: Path, modules: set[str]) -> Iterator[tuple[str, str]]:
    """Pairs of top-level packages (or modules) of which the first imports the second."""
    here = module_name(path, root).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("manymask"):
            continue
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            there = (full if full in modules else str(node.module)).split(".")
            if len(here) > 1 and len(there) > 1 and here[1] != there[1]:
                yield here[1], there[1]


def main(checkout: Path) -> None:
    """Prints the counts of a checkout."""
    root = checkout / "src" / "manymask"
    paths = sorted(root.rglob("*.py"))
    modules = {module_name(path, root) for path in paths}
    lengths, total, parallel, conditional = list[int](), 0, 0, 0
    public, documented = 0, 0
    homes = defaultdict[str, set[Path]](set)
    for path in paths:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        total += code_lines(source, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                lengths.append(code_lines(source, node, node.lineno, node.end_lineno))
                public += not node.name.startswith("_")
                documented += not node.name.startswith("_") and ast.get_docstring(node) is not None
            parallel += (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Tuple)
                and isinstance(node.value, ast.Tuple)
            )
            conditional += isinstance(node, ast.IfExp)
        for top in tree.body:
            if isinstance(top, ast.FunctionDef | ast.ClassDef) and not top.name.startswith("_"):
                homes[top.name].add(path)
    lengths.sort()
    pairs = {pair for path in paths for pair in arrows(path, root, modules)}
    rooms = {name.split(".")[1] for name in modules if "." in name}
    print(f"modules {len(paths)}, lines of code {total}")
    print(f"top-level packages and modules {len(rooms)}, arrows between them {len(pairs)}")
    middle, ninetieth = statistics.median(lengths), lengths[len(lengths) * 9 // 10]
    print(f"lines per function: median {middle:.0f}, p90 {ninetieth}, max {lengths[-1]}")
    print(f"parallel assignments per 1,000 lines {1000 * parallel / total:.1f}")
    print(f"conditional expressions per 1,000 lines {1000 * conditional / total:.1f}")
    print(f"public functions with a docstring {100 * documented / public:.0f} %")
    print(f"public names defined in two modules or more {sum(len(places) > 1 for places in homes.values())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent)
