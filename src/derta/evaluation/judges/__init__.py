from collections.abc import Callable

from derta.errors import InputError, did_you_mean
from derta.evaluation.judges.asking import Ask
from derta.evaluation.judges.base import LABELS, Judge, Label, Verdict, decide
from derta.evaluation.judges.guideline import guideline
from derta.evaluation.judges.harmbench import harmbench
from derta.evaluation.judges.llama_guard import llama_guard
from derta.evaluation.judges.located import located
from derta.evaluation.judges.organism import organism
from derta.evaluation.judges.rules.compliance import Compliance, classify_compliance
from derta.evaluation.judges.rules.judge import refusal
from derta.evaluation.judges.rules.refusal import Refusal, find_refusal
from derta.evaluation.judges.strongreject import strongreject

__all__ = [
    "JUDGES",
    "LABELS",
    "MODEL_JUDGES",
    "Ask",
    "Compliance",
    "Judge",
    "Label",
    "Refusal",
    "Verdict",
    "classify_compliance",
    "decide",
    "find_refusal",
    "judge_named",
    "model_judge",
]

JUDGES: dict[str, Judge] = {"organism": organism, "refusal": refusal}

# These ask a model.
MODEL_JUDGES: dict[str, Callable[[Ask], Judge]] = {
    "guideline": guideline,
    "harmbench": harmbench,
    "strongreject": strongreject,
    "llama-guard": llama_guard,
}


def judge_named(name: str) -> Judge:
    """Return the judge called `name`, of those that work by themselves.

    Raises:
        InputError: there is none, or it needs a model.
    """
    if name in MODEL_JUDGES:
        raise InputError(f"--judge: {name} asks a model: name it")
    if name not in JUDGES:
        raise _unknown(name)
    return JUDGES[name]


def model_judge(name: str, ask: Ask) -> Judge:
    """Return the judge called `name`, which lets a model decide.

    Raises:
        InputError: there is none, or it needs no model.
    """
    if name in JUDGES:
        raise InputError(f"--judge: {name} asks no model")
    if name not in MODEL_JUDGES:
        raise _unknown(name)
    return located(MODEL_JUDGES[name](ask))


def _unknown(name: str) -> InputError:
    names = [*JUDGES, *MODEL_JUDGES]
    return InputError(f"--judge: unknown judge {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}")
