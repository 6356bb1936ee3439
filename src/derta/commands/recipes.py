"""`derta recipes`: the recipes that come with derta, and new ones for a model and data at hand."""

import shlex
from argparse import SUPPRESS, ArgumentParser, Namespace
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
    parser.description = "derta train --config NAME takes a recipe by its name; accelerate/ is for a launch."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", help="default: list")
    actions.add_parser("list", help="list the recipes")
    show = actions.add_parser("show", help="print a recipe")
    copy = actions.add_parser("copy", help="copy a recipe to where there is no file yet")
    for each in (show, copy):
        each.add_argument("name", metavar="NAME", help="which recipe")
    copy.add_argument("path", nargs="?", type=Path, default=Path(), metavar="PATH", help="file or directory to copy to")
    new = actions.add_parser(
        "new",
        help="write a recipe for a model and data at hand, with the reason of each choice",
        description="Looks at the model (template, refusal token, size, layers), at the data (kinds, polarity, "
        "lengths) and at this machine's memory, and writes a recipe for derta train. No weights are loaded.",
    )
    add = new.add_argument
    add("--model", required=True, help="directory, hub name, or 'organism'")
    add("--data", nargs="+", required=True, metavar="FILE", help="triples and helpful examples: files or data sets")
    add("--out", type=Path, default=Path("recipe.yaml"), metavar="FILE", help="recipe to write (default: recipe.yaml)")
    add("--method", default="derta", help="derta, rto, harmful-prefix or vanilla (default: derta)")
    kind = new.add_mutually_exclusive_group()
    kind.add_argument("--full", action="store_true", help="train all weights (default: if they fit)")
    kind.add_argument("--lora", action="store_true", help="train an adapter")
    new.add_argument("--quiet", action="store_true", default=SUPPRESS, help="show errors and results only")


def run(args: Namespace) -> int:
    """List the recipes, print one, copy one, or write a new one.

    Raises:
        InputError: there is no such recipe, a file is there already, or the model or the data can't be used.
    """
    if args.action == "show":
        print(named_recipe(args.name).read_text("utf-8"), end="")
    elif args.action == "copy":
        recipe = named_recipe(args.name)
        target = args.path / recipe.name if args.path.is_dir() else args.path
        _write(target, recipe.read_text("utf-8"), printable(str(target)))
        print(f"copied {args.name} to {printable(str(target))}")
    elif args.action == "new":
        _new(args)
    else:
        _list()
    return 0


def _new(args: Namespace) -> None:
    from derta.method.tree_builder import check_names
    from derta.training.dry_run import Machine
    from derta.training.proposal import propose, render

    name = printable(str(args.out))
    if args.out.exists():
        raise InputError(f"--out: {name}: exists; name another file")
    check_names(args.method, "uniform")
    lora = args.lora if args.lora or args.full else None
    with screen.libraries_aside():
        choices = propose(args.model, args.data, method=args.method, lora=lora, machine=Machine.here())
    place = shlex.quote(name)
    head = [
        f"Written by derta recipes new for {args.model}; change what you know better.",
        f"  derta train --config {place} --dry-run",
        f"  derta train --config {place} --output-dir runs/tuned",
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    _write(args.out, render(choices, head), f"--out: {name}")
    for choice in choices:
        screen.say(f"{choice.name}: {choice.value}{choice.why and f'  ({choice.why})'}")
    print(f"wrote {name}; next: derta train --config {place} --dry-run")


def _list() -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what")
    for name, file in recipes().items():
        with file.open(encoding="utf-8") as lines:
            table.add_row(name, Text(next(lines).removeprefix("#").strip()))
    screen.console().print(table)


def _write(path: Path, text: str, name: str) -> None:
    """Write a file where there is none."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{name}: exists; name another file") from None
    except OSError as error:
        raise InputError(f"{name}: can't be written: {error.strerror or error}") from None
