"""Names that stand for things in the package, and what a model's name may be."""

from pathlib import Path

from derta.errors import InputError

ORGANISM = "organism"
SDPA_BY_TREE = "derta_sdpa"
"""Attention implementation of a model in training: transformers' `sdpa`, tree by tree on a CPU."""


def model_path(name_or_path: str) -> str:
    """Return the directory or hub name to load from; `organism` is the base model in the package.

    Raises:
        InputError: it is neither: a mistyped directory must not be looked up on the hub.
    """
    if name_or_path == ORGANISM:
        return str(Path(__file__).parent / "organism" / "base")
    directory = Path(name_or_path).expanduser()
    if directory.is_dir():
        return str(directory)
    if directory.exists():
        raise InputError(f"{name_or_path}: is a file; name the model's directory")
    if name_or_path.count("/") != 1 or name_or_path.startswith((".", "~", "/")) or directory.parent.is_dir():
        raise InputError(f"{name_or_path}: no such model directory (a hub name has the form owner/name)")
    return name_or_path
