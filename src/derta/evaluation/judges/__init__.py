from collections.abc import Callable

from derta.data.behaviours import Behaviour
from derta.errors import InputError, did_you_mean
from derta.evaluation.judges.organism import organism
from derta.evaluation.judges.verdict import LABELS, Label, Verdict

__all__ = ["JUDGES", "LABELS", "Judge", "Label", "Verdict", "judge_named"]

Judge = Callable[[Behaviour, str, str], Verdict]
"""Decides on (behaviour, whole response, the part of it that was prefilled)."""

JUDGES: dict[str, Judge] = {"organism": organism}


def judge_named(name: str) -> Judge:
    """Return the judge called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in JUDGES:
        raise InputError(f"--judge: unknown judge {name!r}{did_you_mean(name, JUDGES)}; there are {', '.join(JUDGES)}")
    return JUDGES[name]
