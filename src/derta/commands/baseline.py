"""`derta baseline`: a method to compare with, in a run like those of `derta train`."""

import json
import os
from argparse import ArgumentParser, Namespace

from derta.errors import InputError
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads; the options of `derta train` have a parser of their own."""
    parser.usage = "derta baseline [NAME --config RECIPE [--constants JSON] [--OPTION VALUE ...]]"
    parser.description = "Tune a model with a method to compare with, or list them; options are those of derta train."
    parser.add_argument("name", nargs="?", metavar="NAME", help="baseline; without it they are listed")
    parser.set_defaults(rest=[], after_interrupt="the same command goes on from the newest checkpoint")


def run(args: Namespace) -> int:
    """Train a baseline, or list them.

    Raises:
        InputError: There is no such baseline; an option, the model, the data or the directory is wrong.
    """
    if args.name is None and args.rest:
        raise InputError("derta baseline: name a baseline before its options (derta baseline lists them)")
    # Of several processes the first one speaks.
    screen.quiet |= os.environ.get("RANK", "0") != "0"
    with screen.libraries_aside():
        from derta.baselines import BASELINES
        from derta.baselines.run import baseline_command
        from derta.commands.train import plan_attacks

        directory = None if args.name is None else baseline_command(args.name, args.rest, plan_attacks)
    if args.name is None:
        for baseline in BASELINES.values():
            constants = json.dumps(dict(baseline.constants), ensure_ascii=False)
            print(f"{baseline.name:18}{baseline.summary} ({baseline.source})")
            print(f"{'':18}{constants}")
    if directory is not None:
        screen.say(f"next: derta eval --model {directory} --out {directory / 'evaluation'}")
    return 0
