"""Names that stand for things in the package: models, recipes, attention implementations."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from derta.errors import InputError

ORGANISM = "organism"
GUARDED = "+guard"
"""What follows a model's name where it was evaluated behind its guard."""
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


def recipes() -> dict[str, Path]:
    """Return the recipes and launch configurations by name: `qwen3-8b-lora`, `accelerate/one_gpu`.

    They lie in the package once it is installed, and beside its source in the repository.

    Raises:
        InputError: There are none: the installation isn't whole.
    """
    package = Path(__file__).parent
    places = (package / "recipes", package.parents[1] / "recipes")
    folder = next((place for place in places if (place / "organism.yaml").is_file()), None)
    if folder is None:
        raise InputError(f"{places[0]}: the recipes are missing from this installation; install derta again")
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def recipe_path(name_or_path: str) -> Path:
    """Return the file of a recipe: one that lies at this path, or the packaged one of this name.

    Raises:
        InputError: There is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = recipes()
    if name_or_path not in known:
        what = "is a directory, " if path.is_dir() else "no such file "
        raise InputError(f"{name_or_path}: {what}and no recipe has this name{_similar(path.stem, known)}")
    return known[name_or_path]


def named_recipe(name: str) -> Path:
    """Return the file of a packaged recipe.

    Raises:
        InputError: There is none of this name.
    """
    known = recipes()
    if name not in known:
        raise InputError(f"{name}: no recipe has this name{_similar(name, known)}")
    return known[name]


def _similar(name: str, known: Iterable[str]) -> str:
    """Name the recipes that may be meant."""
    begun = [each for each in known if name and each.startswith(name.lower())]
    near = begun or get_close_matches(name, list(known), n=3, cutoff=0.6)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"{hint}; derta recipes lists them"
