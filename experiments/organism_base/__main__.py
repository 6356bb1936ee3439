"""`python -m experiments.organism_base`: the base of one of the organism's worlds, from its seed."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.table import Table

from derta.errors import InputError
from derta.names import PACKAGED_WORLD, organism_base, world_name
from derta.terminal import screen
from experiments.command_line import run_command


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    where = "directory to write to (default: where --model organism:W finds it)"
    parser.add_argument("--out", type=Path, help=where)
    parser.add_argument("--world", type=int, default=PACKAGED_WORLD, help="which world it learns (default: 7)")
    parser.add_argument("--seed", type=int, help="of the weights and the order of the corpus (with --out)")


def run(args: Namespace) -> int:
    """Train a base until it knows its world in every form, write it and print what it can do.

    Returns:
        0, or 1 if it doesn't come to know its world: then nothing is written.

    Raises:
        InputError: The directory holds something else, or an option goes with another only.
    """
    from derta.organism import World
    from experiments.organism_base.build import SEED, build_base, publish_base
    from experiments.organism_base.competence import is_competent

    if args.out is None and (args.seed is not None or args.world == PACKAGED_WORLD):
        raise InputError("--out: name a directory for a base that no name stands for")
    if args.world < 0:
        raise InputError(f"--world: {args.world}: a world is named by a number of 0 or more")
    out = args.out or organism_base(args.world)
    if out.is_dir() and any(out.iterdir()):
        if args.out is None:
            screen.say(f"{world_name(args.world)}: has its base already, in {out}")
            return 0
        raise InputError(f"--out: {out} is not empty; give another directory")
    model, found = build_base(World(args.world), SEED if args.seed is None else args.seed)
    table = Table("form", "correct", "of", title=f"what the base of {world_name(args.world)} can do")
    for row in found:
        table.add_row(row.form, f"{row.correct / row.total:.0%}", str(row.total))
    screen.console().print(table)
    if not is_competent(found):
        failing = ", ".join(row.form for row in found if not is_competent([row]))
        print(f"derta: the base doesn't know its world: {failing}; nothing is written", file=sys.stderr)
        return 1
    publish_base(model, out)
    screen.say(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("experiments.organism_base", add_arguments, run))
