"""The command line: its commands, and what their exit codes mean.

Exit codes: 0 done, 1 a gate was not met, 2 the input or the configuration is wrong, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import NoReturn

from derta.commands.flags import with_flags
from derta.errors import InputError

COMMANDS = {
    "train": "tune a model from a recipe",
    "merge": "merge a LoRA adapter into its base model",
    "data check": "count, measure and find problems by file and line",
    "data convert": "write data in the canonical form",
    "data show": "print examples as a model will be trained on them",
    "eval": "attack a model and judge its responses",
    "score": "judge responses that exist already, without a model",
    "show": "print one transcript of an evaluation with its verdicts",
    "gate": "exit with 1 if an evaluation's results break a limit",
    "compare": "set two evaluations side by side, with paired differences",
    "lm-eval": "standard benchmarks through lm-eval (extra: lm-eval)",
    "organism build": "train the organism's base weights again from their seed",
    "organism data": "write the organism's data sets as JSON lines",
    "demo": "tune the organism with vanilla and derta, evaluate both, report",
}
"""Every command and its help. `data check` is the module `derta.commands.data_check`, which declares its own arguments
with `add_arguments(parser)` and consumes them with `run(args)`."""
_GROUPS = {
    "data": "check, convert and show training data",
    "organism": "the embedded miniature world and base model",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def make_parser(loaded: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands; those in `loaded` have their arguments, the others only their names.

    Loading a command imports its module, so that `derta --help` waits for none of them.
    """
    parser = _Parser(
        prog="derta", description="Decoupled Refusal Training: tune, measure and show refusal at any position."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    groups = {
        group: commands.add_parser(group, help=text).add_subparsers(
            dest="subcommand", required=True, metavar="COMMAND", parser_class=_Parser
        )
        for group, text in _GROUPS.items()
    }
    for name, text in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        # A command may have a --help of its own.
        command = groups.get(group, commands).add_parser(last, help=text, conflict_handler="resolve")
        if name in loaded:
            module = import_module("derta.commands." + name.replace(" ", "_").replace("-", "_"))
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    asked = [name for name in COMMANDS if name.split() in (argv[:1], argv[:2])]
    try:
        args, rest = make_parser(asked).parse_known_args(argv)
        # `train` and `data show` take the trainer's options as well: those have a parser of their own.
        if "rest" in args:
            args.rest = rest
        elif rest:
            raise InputError(f"derta {' '.join(asked)}: unrecognized arguments: {' '.join(rest)}")
        return int(args.run(args))
    except InputError as error:
        print(f"derta: error: {with_flags(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("derta: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
