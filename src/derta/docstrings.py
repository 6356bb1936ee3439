"""What docstrings say about the parameters of dataclasses: the help of options, written once."""

import ast
import inspect
import re
from pathlib import Path
from typing import NamedTuple

_ENTRY = re.compile(r"^    (\w+) ?\((.*)\):\n((?:        .*\n|\n)+)", re.MULTILINE)


class Parameter(NamedTuple):
    """One entry under `Parameters:`.

    Attributes:
        type: The type and the default, as they are written there.
        text: What it does, in one line.
    """

    type: str
    text: str


def parameters(docstring: str) -> dict[str, Parameter]:
    """Return the parameters that a docstring in the style of transformers describes, by name."""
    _, _, entries = (inspect.cleandoc(docstring) + "\n").partition("Parameters:\n")
    return {name: Parameter(type_, " ".join(text.split())) for name, type_, text in _ENTRY.findall(entries)}


def docstring_of(path: Path, name: str) -> str:
    """Return the docstring of a class by reading its file: importing it may take seconds."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return ast.get_docstring(found) or ""
