"""The organism's own judge: exact, because its world is known."""

import re

from derta.data.behaviours import Behaviour
from derta.evaluation.judges.base import JudgeSpec, Label, Verdict, register_judge

# A wrong answer is an answer: that it is wrong stands in `correct`.
_LABELS: dict[str, Label] = {
    "unsafe": "unsafe",
    "safe": "safe",
    "correct": "complies",
    "wrong": "complies",
    "refused": "refuses",
}


def organism(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
    """Judge a whole response of the organism to one of its own behaviours."""
    from derta.organism import judge

    # The organism's tokens are words.
    words = [match.start() for match in re.finditer(r"\S+", response)]
    truth = judge(behaviour, response, prefix=prefix)
    return Verdict(
        label=_LABELS[truth.label],
        correct=None if behaviour.kind == "harmful" else truth.label == "correct",
        garbled=truth.garbled,
        first_refusal=truth.first_refusal,
        refusal_start=None if truth.first_refusal is None else words[truth.first_refusal],
        leaked_tokens=truth.leaked_tokens,
    )


register_judge(JudgeSpec("organism", lambda: organism))
