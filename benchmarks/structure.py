"""The shape of the code in numbers: files, folders, helpers used once, imports between modules.

    python benchmarks/structure.py [SOURCE ...]      # default: src/derta; several are set side by side

Counts every import, those inside functions too. A private helper is a function, class or method whose
name begins with one underscore; it is used once if its name is read once in its module and nowhere else.
"""

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table


def modules(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Return the modules below a package's folder by dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path, ast.parse(path.read_text("utf-8"))
    return found


def imports(package: dict[str, tuple[Path, ast.Module]], name: str) -> set[str]:
    """Return the modules of the package that a module imports, at whatever depth of its code."""
    top = name.split(".")[0]
    found = set()
    for node in ast.walk(package[name][1]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in package}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == top:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in package else node.module)
    return found - {name}


def helpers(tree: ast.Module) -> Iterator[str]:
    """Yield the names of private functions, classes and methods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and re.match(r"_[^_]", node.name):
            yield node.name


def uses(tree: ast.Module) -> Counter[str]:
    """Count how often each name is read."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute):
            found[node.attr] += 1
    return found


def measure(root: Path) -> dict[str, str]:
    """Return each figure of one source tree."""
    package = modules(root)
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, (path, _) in package.items()}
    folders = Counter(path.parent for path, _ in package.values())
    functions = [
        node
        for _, tree in package.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    private = [(name, helper) for name, (_, tree) in package.items() for helper in helpers(tree)]
    once = [1 for name, helper in private if uses(package[name][1])[helper] == 1]
    inside = [name for name in package if ".evaluation" in name]
    arrows = sum(len([other for other in imports(package, name) if other in inside]) for name in inside)
    most = max(package, key=lambda name: len(imports(package, name)))
    return {
        "modules": str(len(package)),
        "lines": f"{sum(lines.values()):,}",
        "lines of a module, median / largest": f"{median(lines.values()):.0f} / {max(lines.values())}",
        "folders": str(len(folders)),
        "files in a folder, median / largest": f"{median(folders.values()):.0f} / {max(folders.values())}",
        "functions": str(len(functions)),
        "private helpers": str(len(private)),
        "of them used once": f"{len(once)} ({100 * len(once) / max(1, len(functions)):.0f} % of functions)",
        "imports inside evaluation": str(arrows),
        "most imports of a module": f"{len(imports(package, most))} ({most})",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, default=[Path("src/derta")])
    measured = {str(source): measure(source) for source in parser.parse_args().sources}
    table = Table("figure", *measured)
    for figure in next(iter(measured.values())):
        table.add_row(figure, *(each[figure] for each in measured.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
