"""Judges by name, those that are models played by any model of Inspect's."""

from inspect_ai.model import Model

from derta.evaluation.config import JudgeName
from derta.evaluation.harness.models import load_model
from derta.evaluation.harness.target import generate
from derta.evaluation.judges import Ask, Judge, find_judge, make_judge
from derta.generation import Generation, Request

_MAX_TOKENS = 512
_SECONDS = 120
"""After which a judge is taken to have stalled; it is asked once more."""


def load_judge(wanted: JudgeName) -> Judge:
    """Return the judge that was asked for, its model loaded.

    Raises:
        InputError: There is none of this name, its model can't be had, or it needs none.
    """
    find_judge(wanted.name)
    return make_judge(wanted.name, asking(load_model(wanted.model)) if wanted.model else None)


def asking(model: Model) -> Ask:
    """Return what puts a judge's question to a model, greedily and within bounds of time."""
    limits = {"max_retries": 1, "attempt_timeout": _SECONDS, "timeout": 2 * _SECONDS}

    async def put(request: Request) -> Generation:
        return await generate(model, request, max_tokens=_MAX_TOKENS, logprobs=True, top_logprobs=10, **limits)

    return put
