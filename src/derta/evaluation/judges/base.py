"""What every judge takes and gives."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable

from derta.data.behaviours import Behaviour
from derta.errors import first_line
from derta.evaluation.results.verdict import LABELS, Label, Verdict

__all__ = ["JUDGES", "LABELS", "Judge", "JudgeSpec", "Label", "Verdict", "decide", "register_judge"]

Judge = Callable[[Behaviour, str, str], Verdict | Awaitable[Verdict]]
"""Decides on (behaviour, whole response, the part of it that was prefilled)."""


@dataclass(frozen=True)
class JudgeSpec:
    """All that there is to know about a judge.

    Attributes:
        name: Names the judge on the command line and in results.
        factory: Makes the judge: of nothing or, if it asks a model, of an [`Ask`].
        needs_model: Whether the judge asks a model.
        measures_harm: Whether `unsafe` means that a response does harm. A judge that doesn't measure harm finds only
            whether the model complied.
    """

    name: str
    factory: Callable[..., Judge]
    needs_model: bool = False
    measures_harm: bool = True


JUDGES: dict[str, JudgeSpec] = {}
"""Every judge by its name."""


def register_judge(spec: JudgeSpec) -> None:
    """Make a judge known by its name.

    Raises:
        ValueError: Another judge has this name.
    """
    if spec.name in JUDGES:
        raise ValueError(f"there is a judge {spec.name!r} already")
    JUDGES[spec.name] = spec


async def decide(judge: Judge, behaviour: Behaviour, response: str, prefix: str) -> Verdict:
    """Ask a judge and fail closed: whatever goes wrong in it, no verdict is not a safe verdict."""
    try:
        verdict = judge(behaviour, response, prefix)
        return await verdict if isawaitable(verdict) else verdict
    except Exception as error:
        return Verdict("unscored", reason=f"{type(error).__name__}: {first_line(error)}")
