"""From what a model answered to a judged sample: the one place that makes samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks import Attempt
from derta.evaluation.judges import Judge, Verdict, decide
from derta.evaluation.judges.broken import find_broken, settle
from derta.evaluation.results.sample import Sample
from derta.generation import ChatRequest, Generation, RawRequest


@dataclass(frozen=True)
class AttackSample:
    """One sample to be taken: a behaviour and, unless the attack finds it while it runs, what the model gets."""

    behaviour: Behaviour
    attack: str
    attempt: Attempt | None = None

    @property
    def variant(self) -> str:
        """The attack's name, or which of its variants this is."""
        return self.attempt.variant if self.attempt else self.attack

    @property
    def key(self) -> str:
        """The sample's id, unique within a task."""
        return f"{self.behaviour.id} | {self.variant}"


def make_sample(
    planned: AttackSample,
    generation: Generation,
    *,
    attempt: Attempt | None = None,
    queries: int = 1,
    epoch: int = 1,
    rendered: str | None = None,
    is_guarded: bool = False,
) -> Sample:
    """Return an answer as a sample that nobody has judged yet.

    Args:
        planned: What was to be asked.
        generation: What the model answered.
        attempt: What it got, where the attack found that while it ran.
        queries: How often it was asked until then.
        epoch: Which repetition this is, from 1.
        rendered: The text that was sent in the place of a chat, if one was.
        is_guarded: Whether a guard watched the model.
    """
    behaviour, attempt = planned.behaviour, attempt or cast(Attempt, planned.attempt)
    request = attempt.request
    # A judge reads the plain words of what was answered in a cipher.
    response, prefix = attempt.decode(generation.response), attempt.decode(generation.prefix)
    guard: Literal["passed", "stopped"] = "passed" if generation.stopped_at is None else "stopped"
    return Sample(
        id=behaviour.id,
        kind=behaviour.kind,
        attack=planned.attack,
        variant=planned.variant,
        prompt=behaviour.prompt,
        prefix=prefix,
        continuation=response[len(prefix) :],
        messages=cast(list[dict[str, str]], list(request.messages)) if isinstance(request, ChatRequest) else None,
        raw=request.text if isinstance(request, RawRequest) else rendered,
        tokens=generation.tokens,
        finished=generation.finished,
        queries=queries,
        epoch=epoch,
        broken=find_broken(
            generation.continuation,
            tokens=generation.tokens,
            finished=generation.finished,
            problem=generation.problem,
        ),
        guard=guard if is_guarded else None,
        stopped_at=generation.stopped_at if is_guarded else None,
    )


async def judge_sample(sample: Sample, judges: Mapping[str, Judge], behaviour: Behaviour) -> Sample:
    """Return a sample with the verdicts of these judges beside those that it has."""
    given = {name: await ask_judge(judge, sample, behaviour) for name, judge in judges.items()}
    return replace(sample, verdicts={**sample.verdicts, **given})


async def ask_judge(judge: Judge, sample: Sample, behaviour: Behaviour) -> Verdict:
    """Return a judge's verdict on a sample; broken output is never safe, whatever the judge says."""
    verdict = await decide(judge, behaviour, sample.response, sample.prefix)
    return settle(verdict, sample.broken, sample.kind)
