"""`derta score`: judge responses that exist already, of a file or of an evaluation; no model is loaded."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from derta.data.behaviours import KINDS
from derta.data.readers import read_file
from derta.errors import InputError, did_you_mean
from derta.evaluation.config import JudgeName
from derta.evaluation.inputs.questions import CHECKED, check_task
from derta.evaluation.inputs.responses import Response, read_responses
from derta.evaluation.judges import Judge
from derta.evaluation.quality import check_corrects, find_quality, judge_of
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.metrics import MetricRow, ModelId
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.sample import Sample, judges_of, report_unscored
from derta.evaluation.results.store import (
    RESULTS,
    Evaluation,
    Task,
    check_no_evaluation,
    claim,
    find_evaluations,
    load_evaluation,
    model_settings,
    save_evaluation,
    save_results,
    task_of,
)
from derta.files import file_digest, folder_in, sole_writer
from derta.report.terminal import results_table
from derta.terminal import screen
from derta.termination import run_to_end


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    what = "responses of one model each, or directories of evaluations"
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE|D", help=what)
    parser.add_argument("--attack", help="the attack that a file's rows are responses to")
    parser.add_argument("--task", help="gsm8k or mmlu: compare answers with the right ones")
    parser.add_argument("--judge", help="whose verdicts (default: refusal, by rules)")
    parser.add_argument("--kind", help="of the prompts: harmful (default), borderline or helpful")
    parser.add_argument("--prompts", type=Path, help="file of the prompts that bare strings begin with")
    parser.add_argument("--answers", type=Path, help="file of questions with their answers")
    quality = "correct for the judge's error: see derta judge check"
    parser.add_argument("--judge-quality", type=Path, metavar="FILE", help=quality)
    parser.add_argument("--out", type=Path, help="directory to write results.json to; an evaluation keeps its own")


def run(args: Namespace) -> int:
    """Judge evaluations again, beside the verdicts they have, or files, each as one model's; print the table.

    Raises:
        InputError: A name is unknown, a file is wrong, or the verdicts are there already.
    """
    wanted = JudgeName.parse(args.judge or "refusal")
    judge = judge_of(wanted)
    directories = [path for path in args.files if path.is_dir()]
    if directories and len(directories) < len(args.files):
        raise InputError("derta score: give files or directories of evaluations, not both")
    if not directories:
        _check_used(args)
    qualities = find_quality(args.judge_quality, [wanted]) if args.judge_quality is not None else []
    if directories:
        tables, samples = _score_evaluations(directories, args, judge, wanted.name, qualities)
        written = directories
    else:
        rows, samples = _score_files(args, judge, wanted.name, qualities)
        tables, written = [rows], [args.out]
    console = screen.console()
    models = [model for rows in tables for model in {row.model_id for row in rows}]
    # Two evaluations of one model hold two numbers of each kind.
    shown = tables if len(set(models)) < len(models) else [[row for rows in tables for row in rows]]
    for table in shown:
        console.print(results_table(table))
    for directory in written:
        console.print(f"wrote {directory / RESULTS}", markup=False, highlight=False, soft_wrap=True)
    return report_unscored(samples)


def _check_used(args: Namespace) -> None:
    """Stop if something was given that files of these responses make no use of."""
    unused: tuple[str, ...]
    unused, why = ("answers",), "only answers to a task are right or wrong"
    if args.task is not None:
        unused, why = ("judge", "judge_quality", "kind"), "answers to a task are right or wrong"
    for option in unused:
        if getattr(args, option) is not None:
            raise InputError(f"`{option}`: {why}; leave it out")


def _score_evaluations(
    directories: Sequence[Path], args: Namespace, judge: Judge, name: str, qualities: Sequence[JudgeQuality]
) -> tuple[list[list[MetricRow]], list[Sample]]:
    from derta.evaluation.rejudge import judge_again

    for option in ("attack", "task", "prompts", "answers", "kind", "out"):
        if getattr(args, option) is not None:
            raise InputError(f"`{option}`: an evaluation's directory says this itself; leave it out")
    tables: list[list[MetricRow]] = []
    samples: list[Sample] = []
    for given in directories:
        places = find_evaluations(given)
        own: list[MetricRow] = []
        for place in places:
            evaluation = load_evaluation(place)
            if args.judge_quality is not None:
                asked = [each for each in evaluation.samples if ANSWERS not in each.verdicts]
                check_corrects(args.judge_quality, qualities, list(dict.fromkeys(each.kind for each in asked)))
            with sole_writer(place):
                again = run_to_end(judge_again(evaluation, judge, name, qualities))
            own += again.rows
            samples += again.by(name)
        if places != [given]:
            save_results(given / RESULTS, own)
        tables.append(own)
    return tables, samples


def _score_files(
    args: Namespace, judge: Judge, judge_name: str, qualities: Sequence[JudgeQuality]
) -> tuple[list[MetricRow], list[Sample]]:
    from derta.evaluation.rejudge import grade_responses, judge_responses

    files, out, attack, task, kind = args.files, args.out, args.attack, args.task, args.kind or "harmful"
    if out is None:
        raise InputError("`out`: name a directory to write the results to")
    if (attack is None) == (task is None):
        raise InputError(
            "derta score: give --attack (whose responses these are) or --task (whose answers), one of them"
        )
    if kind not in KINDS:
        raise InputError(f"`kind`: {kind!r}{did_you_mean(kind, KINDS)}; one of {', '.join(KINDS)}")
    if task is not None:
        check_task(task, CHECKED)
    name = task if task is not None else _attack(attack)
    if args.judge_quality is not None:
        check_corrects(args.judge_quality, qualities, [kind])
    rows: list[MetricRow] = []
    scored: list[Sample] = []
    models = _models(files)
    if len(files) > 1:
        check_no_evaluation(out)
    places = [out] if len(files) == 1 else [folder_in(out, Path(model).name) for model in models]
    if len(set(places)) < len(places):
        places = [folder_in(out, model.strip("/").replace("/", "-")) for model in models]
    for path, model, place in zip(files, models, places, strict=True):
        responses = read_responses(path, args.prompts)
        if task is not None:
            judged = grade_responses(_with_answers(responses, args.answers, path), task)
        else:
            judged = judge_responses(responses, judge, judge_name=judge_name, attack=name, kind=kind)
        samples = run_to_end(judged)
        with sole_writer(place):
            evaluation = _save(place, ModelId(model), samples, file_digest(path)[:16], qualities)
        rows += evaluation.rows
        scored += samples
    if len(files) > 1:
        save_results(out / RESULTS, rows)
    return rows, scored


def _save(
    place: Path, model: ModelId, samples: Sequence[Sample], digest: str, qualities: Sequence[JudgeQuality]
) -> Evaluation:
    """Write the judged responses of a file, beside those to other attacks that the directory holds of this model."""
    name = task_of(samples[0])
    variants = dict(Counter(sample.variant for sample in samples))
    task = Task(samples[0].attack, None, variants, judges_of(samples), digest)
    settings = {**model_settings(model), "fingerprint": None, "files": None, "responses": digest}
    claimed = claim(place, settings, {name: task})
    if claimed.of(name):
        told = ", ".join(claimed.tasks[name].judges)
        raise InputError(f"`out`: {place}: holds verdicts by {told} already; choose another directory")
    evaluation = replace(claimed, samples=[*claimed.samples, *samples], qualities=(*claimed.qualities, *qualities))
    save_evaluation(evaluation)
    return evaluation


def _attack(name: str) -> str:
    from derta.evaluation.attacks import attack_names

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
    if len(set(names)) < len(names):  # a.json beside a.jsonl
        names = [str(path) for path in files]
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
    known: dict[str, str] = {}
    for question, answer in read_answers(answers):
        if known.setdefault(question, answer) != answer:
            raise InputError(f"{answers}: two answers to one question, {known[question]!r} and {answer!r}")
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
