"""From fields to flags: library code names `fields`, in backticks, and the command line shows them as options."""

import re
from argparse import ArgumentParser
from typing import NoReturn

from derta.errors import InputError

_FIELD = re.compile(r"`([a-z][a-z_]+)`")
_SHORT = {"model_arg": "-M"}


class OneLineParser(ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Stop with the line.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def with_flags(message: str) -> str:
    """Return an error's message with its fields written as the options of a command: `max_asr` as --max-asr."""
    return _FIELD.sub(lambda match: _SHORT.get(match[1], "--" + match[1].replace("_", "-")), message)
