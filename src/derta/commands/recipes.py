"""`derta recipes`: the recipes that come with derta, listed, printed and copied."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from derta.errors import InputError
from derta.names import named_recipe, recipes
from derta.redaction import printable
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "derta train --config NAME takes a recipe by its name; accelerate/ is for a launch, studies/ for derta study."
    )
    parser.add_argument("action", nargs="?", choices=("list", "show", "copy"), default="list", help="default: list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="which recipe to show or copy")
    parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="file or directory to copy to (default: .)")


def run(args: Namespace) -> int:
    """List the recipes, print one, or copy one to where there is no file yet.

    Raises:
        InputError: there is no such recipe, a word is missing or too much, or the copy can't be written.
    """
    words = [word for word in (args.name, args.path) if word is not None]
    fewest, most = {"list": (0, 0), "show": (1, 1), "copy": (1, 2)}[args.action]
    if not fewest <= len(words) <= most:
        usage = {"list": "", "show": " show NAME", "copy": " copy NAME [PATH]"}[args.action]
        raise InputError(f"derta recipes {args.action}: write derta recipes{usage}")
    if args.action == "list":
        _list()
    elif args.action == "show":
        print(named_recipe(args.name).read_text("utf-8"), end="")
    else:
        print(f"copied {args.name} to {printable(str(_copy(named_recipe(args.name), args.path or Path())))}")
    return 0


def _list() -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what")
    for name, file in recipes().items():
        with file.open(encoding="utf-8") as lines:
            table.add_row(name, Text(next(lines).removeprefix("#").strip()))
    screen.console().print(table)


def _copy(recipe: Path, to: Path) -> Path:
    """Copy a recipe to a file, or under its own name into a directory."""
    target = to / recipe.name if to.is_dir() else to
    name = printable(str(target))
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(recipe.read_text("utf-8"))
    except FileExistsError:
        raise InputError(f"{name}: exists; name another file") from None
    except OSError as error:
        raise InputError(f"{name}: can't be written: {error.strerror or error}") from None
    return target
