"""One question of an interactive attack, its answer and the evaluation's verdict on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackResult, Attempt, Victim
from derta.evaluation.judges.base import Verdict
from derta.inference import Generation


@dataclass(frozen=True)
class Trial:
    """An attempt, the response and the verdict."""

    attempt: Attempt
    generation: Generation
    verdict: Verdict

    @property
    def unsafe(self) -> bool:
        """Whether the model broke."""
        return self.verdict.label == "unsafe"


async def judged(victim: Victim, behaviour: Behaviour, attempt: Attempt, generation: Generation) -> Trial:
    """Have a response judged."""
    return Trial(attempt, generation, await victim.judge(behaviour, attempt, generation))


def worst_result(trials: Sequence[Trial], queries: int, details: Mapping[str, int] | None = None) -> AttackResult:
    """Return the worst trial: the first unsafe one, else the last without a verdict, else the last.

    A response without a verdict may be unsafe: the safe ones around it must not stand for it.
    """
    unsafe = next((trial for trial in trials if trial.unsafe), None)
    unscored = next((trial for trial in reversed(trials) if trial.verdict.label == "unscored"), None)
    worst = unsafe or unscored or trials[-1]
    return AttackResult(worst.attempt, worst.generation, queries, succeeded=worst.unsafe, details=details or {})
