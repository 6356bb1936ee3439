"""Runs a module as a command, with derta's manners: one line and exit code 2 for what a user gets wrong."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

from derta.commands.flags import OneLineParser, with_flags
from derta.errors import InputError
from derta.terminal import screen, show_messages


def run_command(
    name: str,
    add_arguments: Callable[[ArgumentParser], None],
    run: Callable[[Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the arguments of a module, run it, and return its exit code."""
    parser = OneLineParser(prog=f"python -m {name}")
    add_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="show errors and results only")
    try:
        args = parser.parse_args(argv)
        screen.quiet = args.quiet
        show_messages()
        return run(args)
    except InputError as error:
        print(f"derta: error: {with_flags(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("derta: interrupted; the same command goes on", file=sys.stderr)
        return 130
