"""How large the house is, and how it reads: `python -m experiments.house` prints it; `tests/test_size.py` holds it.

A helper is *used once* where its private name stands in one place beside its definition.
"""

import argparse
import ast
import re
from collections import Counter
from pathlib import Path

CLONE = Path(__file__).parents[1]
PACKAGE = CLONE / "src" / "derta"


def measure() -> dict[str, float]:
    """Return the figures of the house by name."""
    from derta.cli import COMMANDS, make_parser

    texts = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    helpers = used_once = comprehensions = code = comments = 0
    for text in texts.values():
        tree = ast.parse(text)
        names = Counter(re.findall(r"\w+", text))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                helpers += 1
                used_once += node.name.startswith("_") and not node.name.endswith("__") and names[node.name] == 2
            comprehensions += isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
        lines = [line.strip() for line in text.splitlines()]
        comments += sum(line.startswith("#") for line in lines)
        code += sum(bool(line) for line in lines) - sum(line.startswith("#") for line in lines) - _docstring_lines(tree)
    parser = make_parser([name for name in COMMANDS if name != "train"])
    options = sum(len(action.option_strings) > 0 for command in _commands(parser) for action in command._actions)
    docs = [path for path in (CLONE / "docs").glob("*.md")]
    return {
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "modules": len(texts),
        "used-once helpers, % of functions": round(100 * used_once / helpers, 1),
        "comments per 100 lines of code": round(100 * comments / code, 1),
        "comprehensions per 1,000 lines of code": round(1000 * comprehensions / code),
        "class names with two meanings": len(repeated_classes()),
        "commands": len(COMMANDS),
        "options, those of train and --help left out": options - 2 * len(list(_commands(parser))),
        "words of README": len((CLONE / "README.md").read_text(encoding="utf-8").split()),
        "words of docs for users": sum(len(path.read_text(encoding="utf-8").split()) for path in docs),
        "lines of tests": sum(len(path.read_text("utf-8").splitlines()) for path in (CLONE / "tests").rglob("*.py")),
    }


def repeated_classes() -> list[str]:
    """Return the names of public classes that are defined in more than one module."""
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found.update(node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")
    return sorted(name for name, count in found.items() if count > 1)


def _docstring_lines(tree: ast.Module) -> int:
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return sum((string.end_lineno or string.lineno) - string.lineno + 1 for string in strings)


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands, groups taken apart."""
    found: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += _commands(child) or [child]
    return found


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:45}{value:>10,}")
    print("repeated classes:", ", ".join(repeated_classes()) or "none")
