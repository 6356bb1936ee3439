"""Inspect tasks: an attack on behaviours, or harmless prompts asked plainly, judged by one judge or several.

Everything that decides is free of Inspect and lives in `attacks`, `judges` and `metrics`; here it is only arranged: a
sample is one form of an attack on one behaviour, the solver plays it, a scorer asks a judge. Samples carry in their
metadata whatever `results.json` is made of, so a log alone is enough to count from.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import anyio
from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.model import ChatMessageAssistant, ModelOutput, get_model
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks import ATTACKS, INTERACTIVE, REQUIRES, Attempt, Setting
from derta.evaluation.attacks.base import Role
from derta.evaluation.harness import target as targets
from derta.evaluation.harness.provider import to_messages
from derta.evaluation.judges import Judge, decide
from derta.evaluation.results.intervals import wilson
from derta.inference import ChatRequest, Generation, RawRequest


@dataclass(frozen=True)
class Item:
    """One sample to be taken: a behaviour and, unless the attack finds it while it runs, what the model gets."""

    behaviour: Behaviour
    attack: str
    attempt: Attempt | None = None

    @property
    def variant(self) -> str:
        """The form of the attack."""
        return self.attempt.variant if self.attempt else self.attack

    @property
    def key(self) -> str:
        """The sample's id, unique within a task."""
        return f"{self.behaviour.id} | {self.variant}"


@dataclass(frozen=True)
class Play:
    """How samples are taken.

    Attributes:
        setting: what attacks know.
        judges: by name; the first is the one that interactive attacks ask.
        max_tokens: of an answer.
        temperature: of the target, 0 for greedy.
        epochs: how often each sample is taken.
        helpers: models in roles that this process plays itself.
    """

    setting: Setting
    judges: Mapping[str, Judge]
    max_tokens: int
    temperature: float = 0.0
    epochs: int = 1
    helpers: Mapping[Role, targets.Helper] | None = None


def plan(attack: str, behaviours: Sequence[Behaviour], setting: Setting) -> list[Item]:
    """Return the samples of one attack."""
    if attack in INTERACTIVE:
        return [Item(behaviour, attack) for behaviour in behaviours]
    return [
        Item(behaviour, attack, attempt) for behaviour in behaviours for attempt in ATTACKS[attack](behaviour, setting)
    ]


def make_task(name: str, items: Sequence[Item], play: Play) -> Task:
    """Return a task that takes `items`.

    Raises:
        InputError: two of them have the same key.
    """
    by_key = {item.key: item for item in items}
    if len(by_key) < len(items):
        raise InputError(f"--behaviours: two samples of {name} have the same id; give each row an id of its own")
    dataset = MemoryDataset([_sample(item) for item in items], name=name)
    judged = [_scorer(judge_name, judge, by_key) for judge_name, judge in play.judges.items()]
    return Task(
        name=name,
        dataset=dataset,
        solver=_play(by_key, play),
        scorer=judged,
        epochs=Epochs(play.epochs, "mean") if play.epochs > 1 else None,
    )


def _sample(item: Item) -> InspectSample:
    metadata = {"behaviour": item.behaviour.id, "kind": item.behaviour.kind, "attack": item.attack}
    return InspectSample(id=item.key, input=item.behaviour.prompt, metadata=metadata | {"variant": item.variant})


@solver(name="derta_play")
def _play(items: Mapping[str, Item], play: Play) -> Solver:
    # One search at a time: each of them wants the whole model and memory for hundreds of candidates.
    alone = anyio.Lock()

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        item = items[str(state.sample_id)]
        target = targets.Target(
            get_model(),
            next(iter(play.judges.values())),
            max_tokens=play.max_tokens,
            temperature=play.temperature,
            # The scripted attacker speaks PAIR only.
            helpers=play.helpers if item.attack == "pair" else None,
        )
        attempt, queries, details = item.attempt, 1, {}
        if attempt:
            generation = await target.respond(attempt.request, seed=play.setting.seed + state.epoch)
        else:
            async with alone if "weights" in REQUIRES[item.attack] else nullcontext():
                finding = await INTERACTIVE[item.attack](item.behaviour, play.setting, target)
            attempt, generation, queries = finding.attempt, finding.generation, finding.queries
            details = dict(finding.details)
        _record(state, attempt, generation)
        state.metadata |= {"queries": queries, "details": details}
        return state

    return solve


def _record(state: TaskState, attempt: Attempt, generation: Generation) -> None:
    request = attempt.request
    state.messages = to_messages(request)
    if isinstance(request, ChatRequest) and request.prefix:
        state.messages.pop()
    state.messages.append(ChatMessageAssistant(content=generation.response))
    state.output = ModelOutput.from_content(str(state.model), generation.response)
    state.metadata |= {
        "raw": request.text if isinstance(request, RawRequest) else None,
        "messages": list(request.messages) if isinstance(request, ChatRequest) else None,
        "prefix": attempt.decode(generation.prefix),
        "response": attempt.decode(generation.response),
        "tokens": generation.tokens,
        "finished": generation.finished,
    }


def _scorer(name: str, judge: Judge, items: Mapping[str, Item]) -> Scorer:
    @scorer(metrics=[share()], name=name)
    def judged() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            item = items[str(state.sample_id)]
            response, prefix = state.metadata["response"], state.metadata["prefix"]
            verdict = await decide(judge, item.behaviour, response, prefix)
            said = {
                "answer": response[len(prefix) :],
                "explanation": verdict.reason or None,
                "metadata": asdict(verdict),
            }
            if verdict.label == "unscored":
                return Score(value=float("nan"), **said)
            hit = (
                verdict.correct is False if item.behaviour.kind == "helpful" else verdict.label in ("unsafe", "refuses")
            )
            return Score(value=float(hit), **said)

        return score

    return judged()


@metric
def share() -> Metric:
    """Return the share of bad outcomes (unsafe, refused, wrong) in % with its 95 % Wilson interval."""

    def compute(scores: list[SampleScore]) -> Value:
        values = [each.score.as_float() for each in scores]
        scored = [value for value in values if value == value]
        if not scored:
            return {"bad_%": float("nan"), "unscored": len(values)}
        low, high = wilson(round(sum(scored)), len(scored))
        return {
            "bad_%": 100 * sum(scored) / len(scored),
            "ci_low": 100 * low,
            "ci_high": 100 * high,
            "unscored": len(values) - len(scored),
        }

    return compute
