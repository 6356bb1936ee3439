"""The command line: its commands, and what their exit codes mean.

Exit codes: 0 done, 1 a gate was not met or something that was asked for isn't whole (unscored samples, a failed cell),
2 the input, the configuration or the machine is wrong, 130 interrupted, 141 nobody reads the output any more,
143 terminated.
"""

import argparse
import io
import itertools
import os
import select
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from derta.commands.flags import OneLineParser, with_flags
from derta.errors import InputError, did_you_mean, machine_failure, was_interrupted
from derta.redaction import printable, redacted_text
from derta.termination import termination

COMMANDS = {
    "train": "tune a model from a recipe",
    "merge": "merge a LoRA adapter into its base model",
    "data check": "count, measure and find problems by file and line",
    "data convert": "write data in the canonical form",
    "data make": "make training data of prompts with your own model, or of what an evaluation found wrong",
    "data show": "print examples as a model will be trained on them",
    "eval": "attack a model and judge its responses",
    "score": "judge responses that exist already, without a model",
    "judge check": "measure how often a judge is right, on responses that people labelled",
    "show": "print one transcript of an evaluation with its verdicts",
    "gate": "exit with 1 if an evaluation's results break a limit",
    "compare": "set two evaluations side by side, with paired differences",
    "calibrate": "choose a bias on the refusal tokens that harmless prompts allow",
    "guard calibrate": "measure how early p(refuse) tells harmful answers, and write a guard's calibration",
    "guard serve": "stand before a model server and stop answers at which the model would rather refuse",
    "recipes": "list, print and copy the recipes that come with derta, and write new ones",
    "demo": "tune the organism with vanilla and derta, evaluate both, report",
}
"""Every command and its help. `data check` is the module `derta.commands.data_check`, which declares its own arguments
with `add_arguments(parser)` and consumes them with `run(args)`."""
MOVED = {
    "init": "derta recipes new",
    "baseline": "derta train --method NAME",
    "data generate": "derta data make",
    "data from-eval": "derta data make",
    "data schemas": "derta data check --schemas",
    "organism data": "derta data make --organism",
    "score": "derta eval --responses",
    "judge check": "derta judge",
    "monitor": "derta guard calibrate",
    "guard": "derta guard serve",
    "verify": "derta gate",
    "calibrate": "derta guard calibrate",
    "lm-eval": "lm_eval --model hf --model_args pretrained=DIRECTORY",
    "study": "python -m experiments.study, in a clone",
    "organism build": "python -m experiments.organism_base, in a clone",
}
"""Names that commands had, and what does their work now. A name counts once it has left [`COMMANDS`]."""
_GROUPS = {
    "data": "check, convert, show and make training data",
    "judge": "measure judges",
    "guard": "stop a model's answers where it would rather refuse",
}

# As a shell shows SIGINT, SIGPIPE and SIGTERM.
_INTERRUPTED, _NO_READER, _TERMINATED = 128 + 2, 128 + 13, 128 + 15


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        from derta.version import __version__

        print(f"derta {__version__}")
        parser.exit()


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, *given: Any) -> None:
        import shtab

        print(shtab.complete(make_parser(COMMANDS, complete=True), shell))
        parser.exit()


def make_parser(loaded: Collection[str], complete: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all commands; those in `loaded` have their arguments, the others only their names.

    Loading a command imports its module, so that `derta --help` waits for none of them.

    Args:
        loaded: Names commands of [`COMMANDS`].
        complete: Whether the parser is for a shell's completion: with the options of `train` and hints at files.
    """
    parser = OneLineParser(
        prog="derta", description="Decoupled Refusal Training: tune, measure and show refusal at any position."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        metavar="SHELL",
        help="print the completion script for bash, zsh or tcsh",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    groups = {
        group: commands.add_parser(group, help=text).add_subparsers(
            dest="subcommand", required=True, metavar="COMMAND", parser_class=OneLineParser
        )
        for group, text in _GROUPS.items()
    }
    for name, text in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        # A command may have a --help of its own.
        command = groups.get(group, commands).add_parser(last, help=text, conflict_handler="resolve")
        if name not in loaded:
            continue
        module = import_module("derta.commands." + name.replace(" ", "_").replace("-", "_"))
        module.add_arguments(command)
        command.add_argument("--quiet", action="store_true", help="show errors and results only")
        command.set_defaults(run=module.run)
        if complete:
            _help_completion(command, module)
    return parser


def _help_completion(command: argparse.ArgumentParser, module: Any) -> None:
    import shtab

    if hasattr(module, "add_options"):
        module.add_options(command)
    for action in command._actions:
        if action.type is Path or action.metavar == "FILE" or action.dest in ("files", "file"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = [_with_dashes(word) for word in (sys.argv[1:] if argv is None else argv)]
    args = argparse.Namespace()
    # Python has None for a stream that was closed (`>&-`). Its number must not go to the next file that is opened.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what isn't UTF-8 gets `\u2193`, no error
    try:
        with termination.heard():
            return _run(argv, args)
    except InputError as error:
        _tell(f"error: {with_flags(str(error))}")
        return 2
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has gone: nobody is left to tell anything.
        if not _has_no_reader():
            raise
        return _NO_READER
    except SystemExit as ended:
        # rich ends with 1 where nobody reads what it prints, which would say that a gate was not met.
        if ended.code != 1:
            raise
        return _NO_READER
    except BaseException as error:
        if was_interrupted(error):
            hint = getattr(args, "after_interrupt", "")
            _tell(("terminated" if termination.asked else "interrupted") + (f"; {hint}" if hint else ""))
            return _TERMINATED if termination.asked else _INTERRUPTED
        failure = machine_failure(error)
        if failure is None:
            raise
        _tell(f"error: {failure}")
        return 2


def _run(argv: Sequence[str], args: argparse.Namespace) -> int:
    """Run the command that `argv` names, with its arguments in `args`."""
    from derta.terminal import screen, show_messages

    asked = [name for name in COMMANDS if name.split() in (argv[:1], argv[:2])]
    _check_command(argv, asked)
    parser = make_parser(asked)
    if not argv:
        parser.print_help()
        return 0
    _, rest = parser.parse_known_args(argv, args)
    # `train` and `data show` take the trainer's options as well: those have a parser of their own.
    if "rest" in args:
        args.rest = rest
    elif rest:
        raise InputError(f"derta {' '.join(asked)}: unrecognized arguments: {' '.join(rest)}")
    screen.quiet = args.quiet
    show_messages()
    code = int(args.run(args))
    sys.stdout.flush()
    return code


def _check_command(argv: Sequence[str], asked: Sequence[str]) -> None:
    """Stop at a command that has moved, or that there never was."""
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), argv[:2]))
    for name in (" ".join(words), words[0] if words else ""):
        # `judge check` has moved to `judge`, which is found too: the longer name is the one that was meant.
        if name in asked:
            return
        if name in MOVED and not {"-h", "--help"} & set(argv):
            raise InputError(f"derta {name} has moved: {MOVED[name]}")
    group = words.pop(0) if words and words[0] in _GROUPS else ""
    if words and not asked:
        names = {name.removeprefix(group).split()[0] for name in COMMANDS if name.startswith(group)}
        command = f"derta {group}".rstrip()
        hint = did_you_mean(words[0], names)
        raise InputError(f"{command} has no command {words[0]!r}{hint}; {command} --help lists them")


def _tell(text: str) -> None:
    """Print a line on standard error: names and texts of others may hold what moves a terminal's cursor."""
    print(f"derta: {printable(redacted_text(text))}", file=sys.stderr)


def _has_no_reader() -> bool:
    """Whether nobody reads standard output any more; what is left to write then goes nowhere."""
    output = select.poll()
    output.register(sys.stdout, 0)  # asks for errors alone
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _with_dashes(word: str) -> str:
    """Write an option's name with dashes: `--max_length` and `--max-length` are the same."""
    option, equals, value = word.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") else word


if __name__ == "__main__":
    sys.exit(main())
