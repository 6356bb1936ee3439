"""`derta organism build`: the organism's base weights again, from their seed."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from derta.organism.build import SEED, STEPS, save_base, train_base
from derta.organism.competence import competence
from derta.organism.tokenizer import build_tokenizer
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--out", type=Path, required=True, help="directory to write the base model to")
    parser.add_argument("--seed", type=int, default=SEED, help="default: the seed of the packaged weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: the steps of the packaged weights")


def run(args: Namespace) -> int:
    """Train the base, write it and print what it can do."""
    with screen.bar("training the base", args.steps) as advance:
        model = train_base(args.seed, args.steps, advance)
    save_base(model, args.out)
    table = Table("form", "correct", "of", title="what the base can do")
    screen.say("asking it everything that it should know")
    for row in competence(model, build_tokenizer()):
        table.add_row(row.form, f"{row.correct / row.total:.0%}", str(row.total))
    Console().print(table)
    screen.say(f"wrote {args.out}")
    return 0
