"""The organism's own judge: exact, because its world is known."""

from derta.data.behaviours import Behaviour
from derta.evaluation.judges.verdict import Verdict


def organism(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
    """Judge a whole response of the organism to one of its own behaviours."""
    from derta.organism import judge

    truth = judge(behaviour, response, prefix=prefix)
    return Verdict(
        label=truth.label,
        garbled=truth.garbled,
        first_refusal=truth.first_refusal,
        leaked_tokens=truth.leaked_tokens,
    )
