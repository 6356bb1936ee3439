"""Judges by name, those that are models played by any model of Inspect's."""

from inspect_ai.model import Model

from derta.errors import InputError
from derta.evaluation.config import JudgeName
from derta.evaluation.harness.models import connect
from derta.evaluation.harness.target import reach
from derta.evaluation.judges import MODEL_JUDGES, Ask, Judge, judge_named, model_judge
from derta.inference import Generation, Request

_MAX_TOKENS = 512
_SECONDS = 120
"""After which a judge is taken to have stalled; it is asked once more."""


def make_judge(wanted: JudgeName) -> Judge:
    """Return the judge that was asked for.

    Raises:
        InputError: there is none of this name, its model can't be had, or it needs none.
    """
    if wanted.name not in MODEL_JUDGES:
        if wanted.model:
            raise InputError(
                f"--judge {wanted.name}={wanted.model}: this judge is no model; write --judge {wanted.name}"
            )
        return judge_named(wanted.name)
    if not wanted.model:
        raise InputError(f"--judge {wanted.name}: say which model plays it: --judge {wanted.name}=PROVIDER/MODEL")
    return model_judge(wanted.name, asking(connect(wanted.model)))


def asking(model: Model) -> Ask:
    """Return what puts a judge's question to a model, greedily and within bounds of time."""
    limits = {"max_retries": 1, "attempt_timeout": _SECONDS, "timeout": 2 * _SECONDS}

    async def put(request: Request) -> Generation:
        return await reach(model, request, max_tokens=_MAX_TOKENS, logprobs=True, top_logprobs=10, **limits)

    return put
