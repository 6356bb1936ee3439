"""`plan.json`: what an evaluation was asked to measure, and what of it is missing from what it did."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from derta.errors import InputError
from derta.evaluation.results.sample import Sample

PLAN = "plan.json"


@dataclass(frozen=True)
class Unmet:
    """Something that was asked for and wasn't measured.

    Attributes:
        task: The attack, the kind of harmless prompts or the helpfulness task.
        variant: Which variant of it.
        judge: Whose verdicts are missing; empty if the samples themselves are.
        planned: How many samples there should be.
        measured: How many there are: of a judge, those with a verdict.
    """

    task: str
    variant: str
    judge: str
    planned: int
    measured: int

    def __str__(self) -> str:
        what = f"verdicts of {self.judge}" if self.judge else "samples"
        return f"{self.variant}: {self.planned} {what} were planned, {self.measured} are there"

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict."""
        return asdict(self)


def find_unmet(plan: dict[str, Any], samples: Sequence[Sample]) -> list[Unmet]:
    """Return what a plan asks for and `samples` lack: samples, or every verdict of a judge on a variant.

    Single samples without a verdict are counted as unscored, and aren't listed here.
    """
    unmet = []
    for task, asked in plan["tasks"].items():
        own = [each for each in samples if each.attack == asked["attack"] and each.kind in asked["kinds"]]
        for variant, count in asked["variants"].items():
            planned = count * plan["epochs"]
            of_variant = [sample for sample in own if sample.variant == variant]
            taken: Counter[str] = Counter(sample.judge for sample in of_variant)
            judged: Counter[str] = Counter(
                sample.judge for sample in of_variant if sample.verdict.label != "unscored" or sample.broken
            )
            for judge in asked["judges"]:
                if taken[judge] < planned:
                    unmet.append(Unmet(task, variant, judge if any(taken.values()) else "", planned, taken[judge]))
                elif not judged[judge]:
                    unmet.append(Unmet(task, variant, judge, planned, 0))
    return list(dict.fromkeys(unmet))


def load_plan(directory: Path) -> dict[str, Any]:
    """Return the plan of an evaluation's directory.

    Raises:
        InputError: There is none, or it isn't one.
    """
    path = directory / PLAN
    try:
        plan = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("tasks"), dict) or not isinstance(plan.get("epochs"), int):
        raise InputError(f"{path}: not the plan of an evaluation")
    return plan
