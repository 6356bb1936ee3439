"""From fields to flags: library code names `fields`, in backticks, and the command line shows them as options."""

import re

_FIELD = re.compile(r"`([a-z][a-z_]+)`")
_SHORT = {"model_arg": "-M"}


def with_flags(message: str) -> str:
    """Return an error's message with its fields written as the options of a command: `max_asr` as --max-asr."""
    return _FIELD.sub(lambda match: _SHORT.get(match[1], "--" + match[1].replace("_", "-")), message)
