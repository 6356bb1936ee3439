"""`derta init`: a commented recipe for a model and data at hand."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from derta.errors import InputError
from derta.redaction import printable
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Looks at the model (template, refusal token, size, layers), at the data (kinds, polarity, lengths) and at "
        "this machine's memory, and writes a recipe for derta train with the reason of each choice. No weights are "
        "loaded."
    )
    add = parser.add_argument
    add("--model", required=True, help="directory, hub name, or 'organism'")
    add("--data", nargs="+", required=True, metavar="FILE", help="triples and helpful examples: files or data sets")
    add("--out", type=Path, default=Path("recipe.yaml"), metavar="FILE", help="recipe to write (default: recipe.yaml)")
    add("--method", default="derta", help="derta, rto, harmful-prefix or vanilla (default: derta)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--full", action="store_true", help="train all weights (default: if they fit)")
    kind.add_argument("--lora", action="store_true", help="train an adapter")


def run(args: Namespace) -> int:
    """Write the recipe where there is no file yet.

    Raises:
        InputError: the model or the data can't be used, or the file is there.
    """
    from derta.method.tree_builder import check_names
    from derta.training.proposal import Machine, propose, render

    out: Path = args.out
    name = printable(str(out))
    if out.exists():
        raise InputError(f"--out: {name}: exists; name another file")
    check_names(args.method, "uniform")
    lora = args.lora if args.lora or args.full else None
    with screen.libraries_aside():
        choices = propose(args.model, args.data, method=args.method, lora=lora, machine=Machine.here())
    head = [
        f"Written by derta init for {args.model}; change what you know better.",
        f"  derta train --config {name} --dry-run",
        f"  derta train --config {name} --output-dir runs/tuned",
    ]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(render(choices, head))
    except OSError as error:
        raise InputError(f"--out: {name}: can't be written: {error.strerror or error}") from None
    for choice in choices:
        screen.say(f"{choice.name}: {choice.value}{choice.why and f'  ({choice.why})'}")
    print(f"wrote {name}; next: derta train --config {name} --dry-run")
    return 0
