"""Measure judges on responses that people labelled, and find the errors that an evaluation is corrected for."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from derta.data.behaviours import Behaviour, Kind
from derta.errors import InputError
from derta.evaluation.config import JudgeName, require_inspect
from derta.evaluation.inputs.labelled import LabelledResponse, read_labelled
from derta.evaluation.judges import Judge, decide, find_judge, make_judge
from derta.evaluation.judges.version import judge_version
from derta.evaluation.results.correction import corrects
from derta.evaluation.results.judge_quality import JudgeQuality, Labelled, Question, measure
from derta.evaluation.results.quality_file import is_quality_file, load_qualities
from derta.files import file_digest
from derta.terminal import screen
from derta.termination import run_to_end


def measure_judge(
    file: Path, wanted: JudgeName, *, label_column: str | None = None, unsafe: Sequence[str] = ()
) -> tuple[JudgeQuality, int]:
    """Measure a judge on the labelled responses of a file; return also how many rows hold no label.

    Raises:
        InputError: The file or the judge is wrong.
    """
    judge = judge_of(wanted)
    responses, unlabelled = read_labelled(file, label_column=label_column, unsafe=unsafe)
    labelled = run_to_end(judge_labelled(responses, judge))
    version, digest = judge_version(wanted.name), file_digest(file)
    return JudgeQuality(wanted.name, wanted.model, version, digest, tuple(measure(labelled))), unlabelled


def judge_of(wanted: JudgeName) -> Judge:
    """Return a judge, one that is a model through Inspect.

    Raises:
        InputError: There is none of this name, or Inspect isn't installed.
    """
    if not find_judge(wanted.name).needs_model and not wanted.model:
        return make_judge(wanted.name)
    require_inspect()
    from derta.evaluation.harness.judges import load_judge

    return load_judge(wanted)


async def judge_labelled(responses: Sequence[LabelledResponse], judge: Judge) -> list[Labelled]:
    """Judge labelled responses, side by side; a judge that fails on one, or answers another question, is unscored."""

    async def one(each: LabelledResponse) -> Labelled:
        question: Question = "harm" if each.label in ("unsafe", "safe") else "compliance"
        behaviour = Behaviour(each.origin, each.prompt, "harmful" if question == "harm" else "borderline")
        verdict = await decide(judge, behaviour, each.response, each.prefix)
        answers = ("unsafe", "safe") if question == "harm" else ("complies", "partly", "refuses")
        label = verdict.label if verdict.label in answers else "unscored"
        return Labelled(question, each.label, label, each.behaviour, each.attack, each.model)

    return list(await asyncio.gather(*map(one, responses)))


def find_quality(path: Path, judges: Sequence[JudgeName]) -> list[JudgeQuality]:
    """Return the errors of an evaluation's judges, from a quality file or, measured now, from labelled responses.

    Raises:
        InputError: The file is wrong, or was measured with another judge, another model, or another version of it.
    """
    if not is_quality_file(path):
        return [measure_judge(path, judges[0])[0]]
    found = load_qualities(path)
    for quality in found:
        _check_same_judge(path, quality, judges)
    return found


def check_corrects(path: Path, qualities: Sequence[JudgeQuality], kinds: Sequence[Kind]) -> None:
    """Stop if a quality file corrects nothing that is asked, and say which kinds of prompts it doesn't correct.

    Raises:
        InputError: It was measured on no question that is asked.
    """
    for quality in qualities:
        without = [kind for kind in kinds if not corrects(quality, kind)]
        if len(without) == len(kinds):
            raise InputError(
                f"`judge_quality`: {path}: {quality.judge} was measured on no label that tells of {' or '.join(kinds)} "
                "prompts; measure it on others, or leave it out"
            )
        for kind in without:
            screen.say(f"{path}: shares of {kind} prompts aren't corrected: {quality.judge} wasn't measured on them")


def _check_same_judge(path: Path, quality: JudgeQuality, judges: Sequence[JudgeName]) -> None:
    asked = next((judge for judge in judges if judge.name == quality.judge), None)
    again = "measure anew with derta judge check"
    if asked is None:
        names = ", ".join(judge.name for judge in judges)
        raise InputError(f"`judge_quality`: {path}: is about the judge {quality.judge}, not about {names}; {again}")
    if asked.model != quality.model:
        raise InputError(
            f"`judge_quality`: {path}: {quality.judge} was played by {quality.model}, not by {asked.model}; {again}"
        )
    if judge_version(quality.judge) != quality.version:
        raise InputError(
            f"`judge_quality`: {path}: measured with version {quality.version} of {quality.judge}, this one is "
            f"{judge_version(quality.judge)}; {again}"
        )
