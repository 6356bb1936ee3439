"""`plan.json`: what an evaluation was asked to measure, and what of it is missing from what it did."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from derta.data.behaviours import Kind
from derta.errors import InputError, first_line
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.versioned import read_versioned
from derta.strict import STRICT, validated

PLAN = "plan.json"


def harmless_task(kind: Kind, attack: str) -> str:
    """Return the name of the task that asks harmless prompts of one kind, plainly (`direct`) or in an attack's form."""
    return kind if attack == "direct" else f"{kind}-under-{attack}"


@dataclass(frozen=True)
class PlannedSample:
    """One sample that is to be taken, in each epoch.

    Attributes:
        kind: The behaviour's kind.
        id: The behaviour's id.
        variant: The attack, or which variant of it.
        prompt: A short hash of the behaviour in plain words.
    """

    __pydantic_config__ = STRICT

    kind: Kind
    id: str
    variant: str
    prompt: str


@dataclass(frozen=True)
class PlannedTask:
    """What one task asks.

    Attributes:
        attack: The attack; the task's name where no attack is carried out.
        family: The attack's family, if it is one.
        kinds: What kinds of behaviours it asks for.
        variants: How many samples each variant has, in each epoch.
        judges: Who judges the responses; the first decides.
        digest: A hash of the requests: samples of another question mustn't stand for these.
        samples: All that are to be taken.
    """

    __pydantic_config__ = STRICT

    attack: str
    family: str | None
    kinds: list[str]
    variants: dict[str, int]
    judges: list[str]
    digest: str
    samples: list[PlannedSample]

    @classmethod
    def of(
        cls,
        samples: Sequence[PlannedSample],
        *,
        attack: str,
        judges: Sequence[str],
        digest: str,
        family: str | None = None,
    ) -> "PlannedTask":
        """Count the kinds and variants of samples."""
        kinds: list[str] = list(dict.fromkeys(sample.kind for sample in samples))
        variants = dict(Counter(sample.variant for sample in samples))
        return cls(attack, family, kinds, variants, list(judges), digest, list(samples))


@dataclass(frozen=True)
class Unmet:
    """Something that was asked for and wasn't measured.

    Attributes:
        task: The attack, the kind of harmless prompts or the helpfulness task.
        variant: Which variant of it.
        judge: Whose verdicts are missing.
        planned: How many verdicts there should be.
        measured: How many there are.
    """

    task: str
    variant: str
    judge: str
    planned: int
    measured: int

    def __str__(self) -> str:
        return f"{self.variant}: {self.planned} verdicts of {self.judge} were planned, {self.measured} are there"

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict."""
        return asdict(self)


@dataclass(frozen=True)
class PlanFile:
    """A plan as it stands in its file.

    Attributes:
        epochs: How often each sample is taken.
        tasks: What is asked, by the task's name.
    """

    epochs: int
    tasks: Mapping[str, PlannedTask]

    @property
    def judges(self) -> list[str]:
        """Everybody who judges, the one who decides first."""
        return list(dict.fromkeys(judge for task in self.tasks.values() for judge in task.judges))

    def find_unmet(self, samples: Sequence[Sample]) -> list[Unmet]:
        """Return what is asked for and `samples` lack: samples, or every verdict of a judge on a variant.

        Single samples without a verdict are counted as unscored, and aren't listed here.
        """
        labels = {sample.key: sample for sample in samples}
        unmet = []
        for name, task in self.tasks.items():
            for variant in task.variants:
                keys = [(each.kind, each.id, variant) for each in task.samples if each.variant == variant]
                planned = len(keys) * self.epochs
                for judge in task.judges:
                    found = [
                        sample
                        for key in keys
                        for epoch in range(1, self.epochs + 1)
                        if (sample := labels.get((*key, epoch, judge)))
                    ]
                    judged = [sample for sample in found if sample.verdict.label != "unscored" or sample.broken]
                    if len(found) < planned or not judged:
                        unmet.append(Unmet(name, variant, judge, planned, len(found) if judged else 0))
        return unmet

    def check_asked(self, samples: Sequence[Sample], place: Path) -> None:
        """Stop at samples that nobody asked for.

        Raises:
            InputError: There is one; the message begins with `place`.
        """
        asked = {
            (e.kind, e.id, e.variant): (task.attack, e.prompt) for task in self.tasks.values() for e in task.samples
        }
        judges = set(self.judges)
        for sample in samples:
            attack, prompt = asked.get((sample.kind, sample.id, sample.variant), ("", ""))
            if attack != sample.attack or sample.judge not in judges or sample.epoch > self.epochs:
                raise InputError(f"{place}: {sample.id!r} under {sample.variant} by {sample.judge} was never asked for")
            if prompt != prompt_digest(sample.prompt):
                raise InputError(f"{place}: {sample.id!r}: another prompt than was asked")


def prompt_digest(prompt: str) -> str:
    """Return a short hash of a behaviour in plain words."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def load_plan(directory: Path) -> PlanFile:
    """Return the plan of an evaluation's directory.

    Raises:
        InputError: There is none, or it isn't one.
    """
    return read_plan(read_versioned(directory / PLAN), directory / PLAN)


def read_plan(document: Mapping[str, Any], path: Path) -> PlanFile:
    """Return the plan that a document holds; `path` names it in errors.

    Raises:
        InputError: It isn't one.
    """
    tasks, epochs = document.get("tasks"), document.get("epochs")
    if not isinstance(tasks, dict) or not tasks or type(epochs) is not int or epochs < 1:
        raise InputError(f"{path}: not the plan of an evaluation")
    try:
        planned = {str(name): validated(PlannedTask, task) for name, task in tasks.items()}
    except ValueError as error:
        raise InputError(f"{path}: {first_line(error)}") from None
    for name, task in planned.items():
        if dict(Counter(sample.variant for sample in task.samples)) != task.variants or not task.judges:
            raise InputError(f"{path}: {name}: its variants contradict its samples")
    return PlanFile(epochs, planned)
