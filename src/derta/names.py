"""Names that stand for things in the package: models, recipes, attention implementations."""

from difflib import get_close_matches
from pathlib import Path
from typing import cast

from derta.errors import InputError
from derta.files import cache_directory

ORGANISM = "organism"
PACKAGED_WORLD = 7
"""Seed of the organism's world that the packaged base knows."""
WORLD = "organism_world"
"""In a model's `config.json`, where it outlives fine-tuning: the seed of the organism's world that the model knows."""
_BASE_VERSION = 1
"""Counts the ways in which bases were made: raise it with a change that makes other ones."""
GUARDED = "+guard"
"""What follows a model's name where it was evaluated behind its guard."""
SDPA_BY_TREE = "derta_sdpa"
"""Attention implementation of a model in training: transformers' `sdpa`, tree by tree on a CPU."""


def organism_world(name: str) -> int | None:
    """Return the seed of the organism's world that a name stands for, `organism` or `organism:3`; `None` for others."""
    if name == ORGANISM:
        return PACKAGED_WORLD
    kind, colon, seed = name.partition(":")
    if kind != ORGANISM or not colon:
        return None
    if not (seed.isascii() and seed.isdigit()):
        raise InputError(f"{name}: a world is named by its number, such as {ORGANISM}:3")
    return int(seed)


def world_name(world: int) -> str:
    """Return what a world of the organism is called: `organism`, `organism:3`."""
    return ORGANISM if world == PACKAGED_WORLD else f"{ORGANISM}:{world}"


def organism_base(world: int) -> Path:
    """Return where the base of one of the organism's worlds lies, or will: in the package, or in the cache.

    In the cache it is found by its world and the version of the code that makes it.
    """
    package = Path(__file__).parent / "organism"
    if world == PACKAGED_WORLD:
        return package / "base"
    return cast(Path, cache_directory()) / "worlds" / f"{world}-v{_BASE_VERSION}"


def model_path(name_or_path: str) -> str:
    """Return the directory or hub name to load from; `organism` is the base model in the package."""
    world = organism_world(name_or_path)
    if world is not None:
        base = organism_base(world)
        if not base.is_dir():
            raise InputError(
                f"{name_or_path}: this world has no base yet; python -m experiments.organism_base --world {world} "
                "makes it, in a clone"
            )
        return str(base)
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
    """
    package = Path(__file__).parent
    places = (package / "recipes", package.parents[1] / "recipes")
    folder = next((place for place in places if (place / "organism.yaml").is_file()), None)
    if folder is None:
        raise InputError(f"{places[0]}: the recipes are missing from this installation; install derta again")
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def recipe_path(name_or_path: str) -> Path:
    """Return the file of a recipe: one that lies at this path, or the packaged one of this name."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    return named_recipe(name_or_path, "is a directory, and " if path.is_dir() else "no such file and ")


def named_recipe(name: str, instead: str = "") -> Path:
    """Return the file of a packaged recipe; `instead` says, for the message, what the name is if it is none."""
    known = recipes()
    if name in known:
        return known[name]
    stem = Path(name).stem if instead else name
    begun = [each for each in known if stem and each.startswith(stem.lower())]
    near = begun or get_close_matches(stem, list(known), n=3, cutoff=0.6)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    raise InputError(f"{name}: {instead}no recipe has this name{hint}; derta recipes lists them")
