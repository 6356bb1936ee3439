"""Judge responses that exist already: no model is loaded."""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from derta.data.behaviours import Behaviour, Kind
from derta.data.readers import read_file
from derta.errors import InputError, did_you_mean
from derta.evaluation.attacks import attack_names
from derta.evaluation.config import JudgeName, require_inspect
from derta.evaluation.inputs.questions import CHECKED, answer_judge, check_task
from derta.evaluation.inputs.responses import Response, read_responses
from derta.evaluation.judges import Judge, Verdict, decide, find_judge, make_judge
from derta.evaluation.results.metrics import MetricRow, score
from derta.evaluation.results.sample import Sample, report_unscored
from derta.evaluation.results.store import RESPONSES, RESULTS, SETTINGS, save_results
from derta.files import write_text
from derta.report.terminal import results_table

KINDS: tuple[Kind, ...] = get_args(Kind)
PAIR_JUDGE = "pair"
"""The judge of PAIR's summaries: PAIR's own, whose verdict they state."""


async def judge_responses(
    responses: Sequence[Response], judge: Judge, *, judge_name: str, attack: str, kind: Kind = "harmful"
) -> list[Sample]:
    """Judge responses to one attack, side by side; a judge that fails on one gives `unscored`."""
    behaviours = [Behaviour(str(number), each.prompt, kind, each.answer) for number, each in enumerate(responses, 1)]

    async def sample(behaviour: Behaviour, each: Response) -> Sample:
        if each.jailbroken is not None:
            verdict = Verdict("unsafe" if each.jailbroken else "safe", reason="PAIR's summary")
            return _sample(behaviour, attack, each, PAIR_JUDGE, verdict)
        verdict = await decide(judge, behaviour, each.prefix + each.response, each.prefix)
        return _sample(behaviour, attack, each, judge_name, verdict)

    return list(await asyncio.gather(*map(sample, behaviours, responses)))


async def grade_responses(responses: Sequence[Response], task: str) -> list[Sample]:
    """Compare answers with the right ones; `correct` says what they are, and an answer without one is unscored."""
    return await judge_responses(responses, answer_judge(task), judge_name=task, attack=task, kind="helpful")


def _sample(behaviour: Behaviour, attack: str, response: Response, judge: str, verdict: Verdict) -> Sample:
    return Sample(
        id=behaviour.id,
        kind=behaviour.kind,
        attack=attack,
        variant=attack,
        prompt=behaviour.prompt,
        raw=response.prompt if response.is_raw else None,
        prefix=response.prefix,
        continuation=response.response,
        judge=judge,
        verdict=verdict,
        tokens=len(response.response.split()),
    )


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="responses of one model each")
    parser.add_argument("--attack", help="the attack that they are responses to")
    parser.add_argument("--task", help="gsm8k or mmlu: compare answers with the right ones")
    parser.add_argument("--judge", default="refusal", help="whose verdicts (default: refusal, by rules)")
    parser.add_argument("--kind", default="harmful", help="of the prompts: harmful, borderline or helpful")
    parser.add_argument("--prompts", type=Path, help="file of the prompts that bare strings begin with")
    parser.add_argument("--answers", type=Path, help="file of questions with their answers")
    parser.add_argument("--out", type=Path, required=True, help="directory to write results.json to")


def run(args: Namespace) -> int:
    """Judge each file as one model's, write `results.json` and `responses.jsonl`, print the table.

    Raises:
        InputError: a name is unknown, a file is wrong, or the directory holds an evaluation.
    """
    files, out, attack, task, kind = args.files, args.out, args.attack, args.task, args.kind
    if (attack is None) == (task is None):
        raise InputError(
            "derta score: give --attack (whose responses these are) or --task (whose answers), one of them"
        )
    if kind not in KINDS:
        raise InputError(f"--kind: {kind!r}{did_you_mean(kind, KINDS)}; one of {', '.join(KINDS)}")
    if task is not None:
        check_task(task, CHECKED)
    if (out / SETTINGS).exists():
        raise InputError(f"--out: {out}: holds an evaluation; choose another directory")
    name = _attack(attack) if attack is not None else None
    wanted = JudgeName.parse(args.judge)
    needs_model = find_judge(wanted.name).needs_model or wanted.model
    decider = _model_judge(wanted) if needs_model else make_judge(wanted.name)
    rows: list[MetricRow] = []
    lines: list[str] = []
    scored: list[Sample] = []
    for path, model in zip(files, _models(files), strict=True):
        responses = read_responses(path, args.prompts)
        if name is None:
            judged = grade_responses(_with_answers(responses, args.answers, path), cast(str, task))
        else:
            judged = judge_responses(responses, decider, judge_name=wanted.name, attack=name, kind=kind)
        samples = asyncio.run(judged)
        scored += samples
        rows += score(samples, model=model, judge=samples[0].judge)
        lines += [json.dumps({"model": model, **sample.to_json()}, ensure_ascii=False) for sample in samples]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / RESPONSES, "\n".join(lines) + "\n")
        save_results(out / RESULTS, rows)
    except OSError as error:
        raise InputError(f"--out: {out}: can't be written to: {error.strerror or error}") from error
    console = Console()
    console.print(results_table(rows))
    console.print(f"wrote {out / RESULTS}", markup=False, highlight=False, soft_wrap=True)
    return report_unscored(scored)


def _model_judge(wanted: JudgeName) -> Judge:
    require_inspect()
    from derta.evaluation.harness.judges import load_judge

    return load_judge(wanted)


def _attack(name: str) -> str:
    found = attack_names(name)
    if len(found) != 1:
        raise InputError("--attack: name one: all files are of one attack")
    return found[0]


def _models(files: Sequence[Path]) -> list[str]:
    """Name models by their files; by folder too where a name repeats."""
    stems = [path.stem for path in files]
    names = [
        stem if stems.count(stem) == 1 else str(path.with_suffix("")) for path, stem in zip(files, stems, strict=True)
    ]
    if len(set(names)) < len(names):
        raise InputError(f"derta score: {next(path for path in files if files.count(path) > 1)} is named twice")
    return names


def _with_answers(responses: Sequence[Response], answers: Path | None, path: Path) -> list[Response]:
    """Take right answers from a file of questions where it is given; else each row must hold its own."""
    if answers is None:
        for each in responses:
            if each.answer is None:
                raise InputError(
                    f"{each.origin}: no column 'answer'; give a file of questions and answers with --answers"
                )
        return list(responses)
    known = dict(read_answers(answers))
    missing = next((each for each in responses if _key(each.prompt) not in known), None)
    if missing is not None:
        raise InputError(f"{missing.origin}: its question isn't in {answers}; is it the file that {path.name} answers?")
    return [replace(each, answer=known[_key(each.prompt)]) for each in responses]


def read_answers(path: Path) -> list[tuple[str, str]]:
    """Return the questions of a file, white space taken out (decoding changes it), with their answers.

    Raises:
        InputError: a row has no `question` or no `answer`.
    """
    found = []
    for row in read_file(path):
        for column in ("question", "answer"):
            if column not in row.values:
                have = ", ".join(map(str, row.values)) or "none"
                raise InputError(f"{row.origin}: no column {column!r}; the columns are: {have}")
        found.append((_key(str(row.values["question"])), str(row.values["answer"])))
    return found


def _key(question: str) -> str:
    return "".join(question.split())
