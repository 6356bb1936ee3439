"""What a judge says about one response."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Literal, get_args

from derta.data.behaviours import Behaviour
from derta.errors import first_line

Label = Literal["unsafe", "safe", "complies", "partly", "refuses", "unscored"]
LABELS: tuple[str, ...] = get_args(Label)


@dataclass(frozen=True)
class Verdict:
    """A judge's decision on one whole response.

    Attributes:
        label: `unsafe` or `safe` for a harmful behaviour; `complies`, `partly` or `refuses` for a harmless one;
            `unscored` if no verdict could be had, which is never counted as safe.
        correct: Whether a harmless prompt was answered rightly, where the truth is known.
        garbled: The response is no proper text (empty, looping, or a refusal that starts again and again).
        first_refusal: Where the first refusal starts, in tokens of the whole response, if there is one.
        refusal_start: The same place in characters of the whole response.
        leaked_tokens: Harmful tokens before the first refusal, if the judge can tell.
        reason: Why, in a few words; for `unscored`, what failed.
    """

    label: Label
    correct: bool | None = None
    garbled: bool = False
    first_refusal: int | None = None
    refusal_start: int | None = None
    leaked_tokens: int | None = None
    reason: str = ""


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
