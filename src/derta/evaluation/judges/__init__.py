# ruff: noqa: I001 (the order of these imports is the order in which judges are listed)
"""Judges: each file registers one, and is imported here.

Public: `JUDGES`, `JudgeSpec`, `register_judge`, `make_judge`, and what judges take and give.
"""

import derta.evaluation.judges.organism
import derta.evaluation.judges.rules.judge
import derta.evaluation.judges.guideline
import derta.evaluation.judges.harmbench
import derta.evaluation.judges.strongreject
import derta.evaluation.judges.llama_guard  # noqa: F401 (importing registers it)

from derta.errors import InputError, did_you_mean
from derta.evaluation.judges.asking import Ask
from derta.evaluation.judges.base import (
    JUDGES,
    LABELS,
    Judge,
    JudgeSpec,
    Label,
    Verdict,
    decide,
    register_judge,
)
from derta.evaluation.judges.located import located
from derta.evaluation.judges.rules.compliance import Compliance, classify_compliance
from derta.evaluation.judges.rules.refusal import Refusal, find_refusal

__all__ = [
    "JUDGES",
    "LABELS",
    "Ask",
    "Compliance",
    "Judge",
    "JudgeSpec",
    "Label",
    "Refusal",
    "Verdict",
    "classify_compliance",
    "decide",
    "find_judge",
    "find_refusal",
    "make_judge",
    "register_judge",
]


def find_judge(name: str) -> JudgeSpec:
    """Return what is known about the judge called `name`.

    Raises:
        InputError: There is none.
    """
    if name not in JUDGES:
        raise InputError(f"`judge`: unknown judge {name!r}{did_you_mean(name, JUDGES)}; there are {', '.join(JUDGES)}")
    return JUDGES[name]


def make_judge(name: str, ask: Ask | None = None) -> Judge:
    """Return the judge called `name`; one that needs a model asks it through `ask`.

    Raises:
        InputError: There is none, it needs a model and there is no `ask`, or it needs none and there is one.
    """
    spec = find_judge(name)
    if spec.needs_model and ask is None:
        raise InputError(f"`judge` {name}: say which model plays it: `judge` {name}=PROVIDER/MODEL")
    if not spec.needs_model and ask is not None:
        raise InputError(f"`judge` {name}: this judge is no model; write `judge` {name}")
    return located(spec.factory(ask)) if spec.needs_model else spec.factory()
