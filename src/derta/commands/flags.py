"""From fields to flags: library code names `fields`, in backticks, and the command line shows them as options."""

import re
from argparse import Action, ArgumentParser, Namespace
from typing import Any, NoReturn

from derta.errors import InputError

_FIELD = re.compile(r"`([a-z][a-z_]+)`")
_SHORT = {"model_arg": "-M"}


class _GivenOnce(Action):
    """Stores a value as argparse does, and stops at a second one: it would take the first one's place."""

    is_given = False

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None) -> None:
        if option is not None and self.is_given:
            several = "give its values after one" if self.nargs == "+" else "leave one out"
            parser.error(f"{option} is given twice; {several}")
        self.is_given = True
        setattr(namespace, self.dest, values)


class OneLineParser(ArgumentParser):
    """An argument parser whose errors are one line, and whose options are given once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("action", None, _GivenOnce)

    def error(self, message: str) -> NoReturn:
        """Stop with the line.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def with_flags(message: str) -> str:
    """Return an error's message with its fields written as the options of a command: `max_asr` as --max-asr."""
    return _FIELD.sub(lambda match: _SHORT.get(match[1], "--" + match[1].replace("_", "-")), message)
