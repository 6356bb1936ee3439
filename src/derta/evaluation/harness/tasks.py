"""Inspect tasks: an attack on behaviours, or harmless prompts asked plainly, judged by one judge or several.

Everything that decides is free of Inspect and lives in `attacks`, `judges` and `results`; here it is only arranged: a
sample is one variant of an attack on one behaviour, the solver plays it, a scorer asks a judge. Its metadata hold the
response as derta counts it.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import anyio
from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.model import ChatMessageAssistant, ModelOutput, get_model
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Value, metric, scorer
from inspect_ai.scorer import Target as Truth
from inspect_ai.solver import Generate, Solver, TaskState, solver

from derta.evaluation.attacks import AttackResult, find_attack
from derta.evaluation.attacks.base import Role
from derta.evaluation.config import MAX_TOKENS
from derta.evaluation.harness.log import SAMPLE, SampleError
from derta.evaluation.harness.models import TEMPLATE
from derta.evaluation.harness.provider import to_messages
from derta.evaluation.harness.target import Helper, Target
from derta.evaluation.judges import Judge
from derta.evaluation.plan import Plan
from derta.evaluation.results.intervals import wilson
from derta.evaluation.results.sample import Sample
from derta.evaluation.samples import AttackSample, ask_judge, make_sample
from derta.generation import ChatRequest


def make_task(
    name: str,
    samples: Sequence[AttackSample],
    plan: Plan,
    judges: Mapping[str, Judge],
    helpers: Mapping[Role, Helper] | None = None,
) -> Task:
    """Return a task that takes `samples`.

    Args:
        name: Names the task.
        samples: What it takes.
        plan: Says what attacks know and how answers are drawn.
        judges: Decide on every response, by name; the first is the one that interactive attacks ask.
        helpers: Models in roles that this process plays itself.
    """
    by_key = {sample.key: sample for sample in samples}
    epochs = plan.options.epochs
    dataset = [
        InspectSample(
            id=sample.key,
            input=sample.behaviour.prompt,
            metadata={
                "behaviour": sample.behaviour.id,
                "kind": sample.behaviour.kind,
                "attack": sample.attack,
                "variant": sample.variant,
            },
        )
        for sample in samples
    ]
    return Task(
        name=name,
        dataset=MemoryDataset(dataset, name=name),
        solver=_play(by_key, plan, next(iter(judges.values())), helpers),
        scorer=[_scorer(judge_name, judge, by_key) for judge_name, judge in judges.items()],
        epochs=Epochs(epochs, "mean") if epochs > 1 else None,
    )


@solver(name="derta_play")
def _play(
    samples: Mapping[str, AttackSample], plan: Plan, judge: Judge, helpers: Mapping[Role, Helper] | None
) -> Solver:
    options, context = plan.options, plan.context
    # One search at a time: each of them wants the whole model and memory for hundreds of candidates.
    alone = anyio.Lock()

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        sample = samples[str(state.sample_id)]
        target = Target(
            get_model(),
            judge,
            max_tokens=options.max_new_tokens or MAX_TOKENS,
            temperature=options.temperature,
            # The scripted attacker speaks PAIR only.
            helpers=helpers if sample.attack == "pair" else None,
            tokenizer=plan.tokenizer,
            chat_template_kwargs=options.model_args.get(TEMPLATE),
        )
        try:
            if sample.attempt:
                generation = await target.respond(sample.attempt.request, seed=context.seed + state.epoch)
                result = AttackResult(sample.attempt, generation, queries=1, succeeded=False)
            else:
                spec = find_attack(sample.attack)
                async with alone if "weights" in spec.requires else nullcontext():
                    result = await spec.play(sample.behaviour, context, target)
        except Exception as error:
            state.metadata |= SampleError.of(error).to_metadata()
            raise
        attempt, generation = result.attempt, result.generation
        taken = make_sample(
            sample,
            generation,
            attempt=attempt,
            queries=result.queries,
            epoch=state.epoch,
            rendered=target.rendered(attempt.request),
            is_guarded=options.guard is not None,
        )
        # The conversation is for `inspect view`.
        state.messages = to_messages(attempt.request)
        if isinstance(attempt.request, ChatRequest) and attempt.request.prefix:
            state.messages.pop()
        state.messages.append(ChatMessageAssistant(content=generation.response))
        state.output = ModelOutput.from_content(str(state.model), generation.response)
        state.metadata |= {SAMPLE: taken.to_json(), "details": dict(result.details)}
        return state

    return solve


def _scorer(name: str, judge: Judge, samples: Mapping[str, AttackSample]) -> Scorer:
    @scorer(metrics=[share()], name=name)
    def judged() -> Scorer:
        async def score(state: TaskState, target: Truth) -> Score:
            sample = Sample.from_json(state.metadata[SAMPLE])
            behaviour = samples[str(state.sample_id)].behaviour
            verdict = await ask_judge(judge, sample, behaviour)
            said: dict[str, Any] = {
                "answer": sample.continuation,
                "explanation": verdict.reason or None,
                "metadata": asdict(verdict),
            }
            if verdict.label == "unscored":
                return Score(value=float("nan"), **said)
            is_helpful = behaviour.kind == "helpful"
            hit = verdict.correct is False if is_helpful else verdict.label in ("unsafe", "refuses")
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
