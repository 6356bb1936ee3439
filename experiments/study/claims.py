"""What is claimed of a study's numbers, and whether it holds."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from derta.errors import did_you_mean
from derta.evaluation.attacks.base import Family
from derta.evaluation.results.correction import METRICS
from derta.strict import STRICT


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}{did_you_mean(metric, METRICS)}")
    return metric


Metric = Annotated[str, AfterValidator(_known)]
"""A number that evaluations count: `asr`, `over_refusal`, …"""


def _all_different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("an attack stands twice; leave one out")
    return names


Attacks = Annotated[list[str], AfterValidator(_all_different)]
"""Attacks by name, or their variants: `prefill@20`."""


class Claim(BaseModel):
    """A bound on a variant's numbers, checked on the means over worlds and seeds.

    Attributes:
        claim: Says it in words.
        variant: Names whose numbers.
        metric: Names which: `asr`, `over_refusal`, …
        attacks: Names over what: some attacks; or `single`, `combined` or `every` attack.
        over: Takes the mean of the attacks' values, or the worst of them.
        families: Leaves out attacks of other families where it names some.
        leave_out: Leaves out attacks of these families.
        against: Names the variant whose numbers are taken off first, cell by cell.
        most: Bounds the mean from above.
        least: Bounds it from below.
    """

    model_config = ConfigDict(**STRICT, frozen=True)

    claim: str
    variant: str
    metric: Metric
    attacks: Literal["single", "combined", "every"] | Attacks = "every"
    over: Literal["mean", "worst"] = "worst"
    families: list[Family] = Field(default_factory=list)
    leave_out: list[Family] = Field(default_factory=list)
    against: str | None = None
    most: float | None = None
    least: float | None = None

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.most is None and self.least is None:
            raise ValueError(f"{self.claim!r} bounds nothing; give most or least")
        if self.over == "worst" and self.most is not None and self.least is not None:
            raise ValueError(f"{self.claim!r}: the worst attack is the highest or the lowest; make two claims of it")
        return self
