"""What a judge said about one response."""

from dataclasses import dataclass
from typing import Literal, get_args

from derta.strict import STRICT

Label = Literal["unsafe", "safe", "complies", "partly", "refuses", "unscored"]
LABELS: tuple[str, ...] = get_args(Label)

Broken = Literal["empty", "filtered", "unread", "non-finite", "unknown tokens", "cut", "repeating"]
"""What may be broken about a model's own words."""


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
        leaked_after_refusal: Tokens of an answer after the first refusal, if there is one and the judge can tell.
        reason: Why, in a few words; for `unscored`, what failed.
    """

    __pydantic_config__ = STRICT

    label: Label
    correct: bool | None = None
    garbled: bool = False
    first_refusal: int | None = None
    refusal_start: int | None = None
    leaked_tokens: int | None = None
    leaked_after_refusal: int | None = None
    reason: str = ""
