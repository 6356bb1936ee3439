"""Judge responses that exist already: those of a file, or those of an evaluation once more."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from derta.data.behaviours import Behaviour, Kind
from derta.errors import InputError
from derta.evaluation.inputs.questions import answer_judge
from derta.evaluation.inputs.responses import Response
from derta.evaluation.judges import Judge, Verdict, decide
from derta.evaluation.judges.broken import find_broken, settle
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.outcomes import ANSWERS, PAIR_JUDGE
from derta.evaluation.results.plan_file import PLAN, PlannedSample, PlannedTask, prompt_digest
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import Evaluation, save_evaluation
from derta.files import read_json


async def judge_responses(
    responses: Sequence[Response], judge: Judge, *, judge_name: str, attack: str, kind: Kind = "harmful"
) -> list[Sample]:
    """Judge responses to one attack, side by side; a judge that fails on one gives `unscored`."""

    async def sample(number: int, each: Response) -> Sample:
        behaviour = Behaviour(str(number), each.prompt, kind, each.answer)
        unjudged = Sample(
            id=behaviour.id,
            kind=kind,
            attack=attack,
            variant=attack,
            prompt=each.prompt,
            raw=each.prompt if each.is_raw else None,
            prefix=each.prefix,
            continuation=each.response,
            judge=judge_name,
            verdict=Verdict("unscored"),
            tokens=len(each.response.split()),
            broken=find_broken(each.response),
        )
        if each.jailbroken is not None:
            verdict = Verdict("unsafe" if each.jailbroken else "safe", reason="PAIR's summary")
            return replace(unjudged, judge=PAIR_JUDGE, verdict=verdict, broken=None)
        return await _judged(unjudged, judge, judge_name, behaviour)

    return list(await asyncio.gather(*(sample(number, each) for number, each in enumerate(responses, 1))))


async def grade_responses(responses: Sequence[Response], task: str) -> list[Sample]:
    """Compare answers with the right ones; `correct` says what they are, and an answer without one is unscored."""
    return await judge_responses(responses, answer_judge(task), judge_name=ANSWERS, attack=task, kind="helpful")


async def judge_again(
    evaluation: Evaluation, judge: Judge, judge_name: str, qualities: Sequence[JudgeQuality] = ()
) -> list[MetricRow]:
    """Let another judge decide on an evaluation's responses; write its verdicts beside the others, return all rows.

    Answers of tasks such as GSM8K are right or wrong: no judge of safety is asked about them.

    Raises:
        InputError: The judge has decided on this evaluation already.
    """
    judges = evaluation.plan.judges
    if judge_name in judges:
        raise InputError(f"`judge`: {evaluation.directory} has verdicts by {judge_name} already")
    first = next((name for name in judges if name != ANSWERS), None)
    taken = [sample for sample in evaluation.samples if sample.judge == first]
    if not taken:
        raise InputError(f"{evaluation.directory}: holds no response that {judge_name} could judge")
    judged = await asyncio.gather(
        *(_judged(each, judge, judge_name, Behaviour(each.id, each.prompt, each.kind)) for each in taken)
    )
    document = read_json(evaluation.directory / PLAN)
    for task in document["tasks"].values():
        task["judges"] += [judge_name] if task["judges"] != [ANSWERS] else []
    samples = [*evaluation.samples, *judged]
    return save_evaluation(evaluation.directory, samples, evaluation.model, document, qualities)


async def _judged(sample: Sample, judge: Judge, judge_name: str, behaviour: Behaviour) -> Sample:
    verdict = await decide(judge, behaviour, sample.prefix + sample.continuation, sample.prefix)
    return replace(sample, judge=judge_name, verdict=settle(verdict, sample.broken, sample.kind))


def planned(samples: Sequence[Sample], digest: str) -> PlannedTask:
    """Return the plan that responses of a file amount to.

    Args:
        samples: All of one attack or task.
        digest: A hash of the file.
    """
    first = samples[0].judge
    return PlannedTask.of(
        [PlannedSample(e.kind, e.id, e.variant, prompt_digest(e.prompt)) for e in samples if e.judge == first],
        attack=samples[0].attack,
        judges=list(dict.fromkeys(sample.judge for sample in samples)),
        digest=digest,
    )
