"""Judge responses that exist already: those of a file, or those of an evaluation once more."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from derta.data.behaviours import Behaviour, Kind
from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.attacks import Attempt
from derta.evaluation.inputs.questions import answer_judge
from derta.evaluation.inputs.responses import Response
from derta.evaluation.judges import Judge, Verdict
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.outcomes import ANSWERS, PAIR_JUDGE
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import Evaluation, save_evaluation
from derta.evaluation.samples import AttackSample, judge_sample, make_sample
from derta.generation import ChatRequest, Generation, RawRequest, Request


async def judge_responses(
    responses: Sequence[Response], judge: Judge, *, judge_name: str, attack: str, kind: Kind = "harmful"
) -> list[Sample]:
    """Judge responses to one attack, side by side; a judge that fails on one gives `unscored`."""

    async def judged(number: int, each: Response) -> Sample:
        behaviour = Behaviour(str(number), each.prompt, kind, each.answer)
        request: Request = ChatRequest((Message(role="user", content=each.prompt),), each.prefix)
        if each.is_raw:
            request = RawRequest(each.prompt)
        # How many tokens a response has, only its model's tokenizer knows.
        answer = Generation(each.prefix, each.response, tokens=len(each.response.split()), finished=True)
        sample = make_sample(AttackSample(behaviour, attack, Attempt(attack, request)), answer)
        if each.jailbroken is not None:
            # A summary quotes no response where there was no success, and says itself whether there was one.
            verdict = Verdict("unsafe" if each.jailbroken else "safe", reason="PAIR's summary")
            return replace(sample, verdicts={PAIR_JUDGE: verdict}, broken=None)
        return await judge_sample(sample, {judge_name: judge}, behaviour)

    return list(await asyncio.gather(*(judged(number, each) for number, each in enumerate(responses, 1))))


async def grade_responses(responses: Sequence[Response], task: str) -> list[Sample]:
    """Compare answers with the right ones; `correct` says what they are, and an answer without one is unscored."""
    return await judge_responses(responses, answer_judge(task), judge_name=ANSWERS, attack=task, kind="helpful")


async def judge_again(
    evaluation: Evaluation, judge: Judge, judge_name: str, qualities: Sequence[JudgeQuality] = ()
) -> Evaluation:
    """Let another judge decide on an evaluation's responses, and write its verdicts beside the others.

    Answers of tasks such as GSM8K are right or wrong: no judge of safety is asked about them.

    Raises:
        InputError: The judge has decided on this evaluation already, or there is nothing for it to decide on.
    """
    if judge_name in evaluation.judges:
        raise InputError(f"`judge`: {evaluation.directory} has verdicts by {judge_name} already")
    if all(ANSWERS in sample.verdicts for sample in evaluation.samples):
        raise InputError(f"{evaluation.directory}: holds no response that {judge_name} could judge")

    async def judged(sample: Sample) -> Sample:
        if ANSWERS in sample.verdicts:
            return sample
        return await judge_sample(sample, {judge_name: judge}, Behaviour(sample.id, sample.prompt, sample.kind))

    tasks = {
        name: task if ANSWERS in task.judges else replace(task, judges=[*task.judges, judge_name])
        for name, task in evaluation.tasks.items()
    }
    samples = list(await asyncio.gather(*map(judged, evaluation.samples)))
    kept = {each.judge: each for each in (*evaluation.qualities, *qualities)}
    again = replace(evaluation, tasks=tasks, samples=samples, qualities=tuple(kept.values()))
    save_evaluation(again)
    return again
