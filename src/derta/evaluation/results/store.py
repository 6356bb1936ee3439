"""An evaluation's directory: which model it is of, what was asked, the samples taken, and the numbers.

evaluation.json   what was evaluated and how: a later run must agree
plan.json         what was asked: every sample of every task, before the first one was taken
logs/             Inspect's logs, a task each: what an interrupted run goes on from, and `inspect view` shows
responses.jsonl   one judged sample a line, from the logs
judge_quality.json  the errors of judges, where shares are corrected for them
results.json      the rows of numbers, with digests of the files that they were counted from

Whatever is read is checked: a release is decided on it. One directory holds one model's evaluation; where several
models were evaluated at once, the directory above them holds a `results.json` that names theirs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from derta.errors import InputError, first_line
from derta.evaluation.results.correction import count_corrected
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.metrics import MetricRow, ModelId
from derta.evaluation.results.plan_file import PLAN, PlanFile, load_plan
from derta.evaluation.results.quality_file import load_qualities, save_qualities
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.versioned import SCHEMA, read_versioned
from derta.files import file_digest, parse_json, read_json, write_json, write_text, written_whole
from derta.strict import validated
from derta.version import __version__

RESULTS, RESPONSES, SETTINGS, LOGS = "results.json", "responses.jsonl", "evaluation.json", "logs"
COUNTED_FROM = {"responses": RESPONSES, "plan": PLAN, "evaluation": SETTINGS}
"""The files whose digests stand in `results.json`."""
QUALITY = "judge_quality.json"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as it lies in its directory, checked.

    Attributes:
        directory: Where it lies.
        model: Of which model it is.
        settings: How it was made.
        plan: What was asked.
        samples: The judged responses.
        rows: The numbers, which are those of `samples`.
    """

    directory: Path
    model: ModelId
    settings: dict[str, Any]
    plan: PlanFile
    samples: Sequence[Sample]
    rows: Sequence[MetricRow]


def claim(directory: Path, settings: dict[str, Any], digests: Mapping[str, str]) -> None:
    """Make a directory the place of one evaluation, or check that it is.

    Args:
        directory: Holds this evaluation alone; made if it doesn't exist.
        settings: What makes samples comparable. A directory with other settings is refused.
        digests: A hash of what each task asks. Tasks may be added later, and none may change.

    Raises:
        InputError: The directory holds another evaluation, or can't be written to.
    """
    path = directory / SETTINGS
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = read_json(path) if path.exists() else {}
        if held:
            _check_same(directory, held, settings | {"schema": SCHEMA}, digests)
        elif found := [name for name in (RESULTS, RESPONSES, PLAN, LOGS) if (directory / name).exists()]:
            raise InputError(f"`out`: {directory}: holds another run's {found[0]}; choose another directory")
        known = {**held.get("tasks", {}), **digests}
        write_json(path, {"schema": SCHEMA, "derta_version": __version__, **settings, "tasks": known})
    except OSError as error:
        raise InputError(f"`out`: {directory}: can't be written to: {error.strerror or error}") from error


def _check_same(directory: Path, held: dict[str, Any], settings: dict[str, Any], digests: Mapping[str, str]) -> None:
    for key, value in settings.items():
        if key != "model" and held.get(key) != value:
            of_model = key in ("fingerprint", "files", "digest")
            what = f"results of another model ({held.get('model')})" if of_model else f"another {key}"
            raise InputError(f"`out`: {directory}: holds {what}; choose another directory")
    for name, digest in digests.items():
        if held.get("tasks", {}).get(name, digest) != digest:
            raise InputError(f"`out`: {directory}: holds {name} for other prompts; choose another directory")


def save_plan(directory: Path, document: dict[str, Any]) -> None:
    """Write down what is asked, before it is."""
    write_json(directory / PLAN, {"schema": SCHEMA, **document})


def save_evaluation(
    directory: Path,
    samples: Sequence[Sample],
    model: ModelId,
    document: dict[str, Any],
    qualities: Sequence[JudgeQuality] = (),
    **more: Any,
) -> list[MetricRow]:
    """Write the plan, the samples and the numbers of a claimed directory, all of them or none; return the rows.

    Args:
        directory: Is the evaluation's, with its `evaluation.json`.
        samples: Are all that were taken.
        model: Is what was evaluated.
        document: Is the plan, as `save_plan` takes it.
        qualities: Are errors of judges, in place of older ones of the same judges.
        more: Stands in `results.json` as well.

    Raises:
        InputError: The directory can't be written to.
    """
    kept = {each.judge: each for each in [*_qualities(directory), *qualities]}
    rows = count_corrected(samples, model, list(kept.values()))
    # Numbers and what they were counted from belong together: if one can't be written, the old ones stay.
    with written_whole(directory) as draft:
        save_plan(draft, document)
        lines = (json.dumps(sample.to_json(), ensure_ascii=False) + "\n" for sample in samples)
        write_text(draft / RESPONSES, "".join(lines))
        counted = {name: draft / file for name, file in COUNTED_FROM.items()}
        counted["evaluation"] = directory / SETTINGS
        if kept:
            counted["judge_quality"] = draft / QUALITY
            save_qualities(draft / QUALITY, list(kept.values()))
        digests = {name: file_digest(path) for name, path in counted.items()}
        save_results(draft / RESULTS, rows, **more, counted_from=digests)
    return rows


def _qualities(directory: Path) -> list[JudgeQuality]:
    return load_qualities(directory / QUALITY) if (directory / QUALITY).exists() else []


def save_results(path: Path, rows: Sequence[MetricRow], **more: Any) -> None:
    """Write rows to a `results.json`, whole or not at all."""
    document = {"schema": SCHEMA, "derta_version": __version__, **more, "rows": [row.to_json() for row in rows]}
    write_json(path, document)


def load_results(path: Path) -> list[MetricRow]:
    """Return the rows of a `results.json`, each checked for itself.

    Raises:
        InputError: It isn't one of this version, or a number in it is impossible.
    """
    return _rows(read_versioned(path), path)


def _rows(document: dict[str, Any], path: Path) -> list[MetricRow]:
    rows = document.get("rows")
    if not isinstance(rows, list):
        raise InputError(f"{path}: rows: must be a list")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(MetricRow.from_json(row))
        except ValueError as error:
            raise InputError(f"{path}: row {number}: {first_line(error)}; evaluate again") from None
    return found


def load_samples(directory: Path) -> list[Sample]:
    """Return the samples of a finished evaluation.

    Raises:
        InputError: There are none, a line isn't a sample of this version, or one stands twice.
    """
    path = directory / RESPONSES
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    samples: dict[tuple[Any, ...], Sample] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            sample = Sample.from_json(parse_json(line.decode("utf-8"), f"{path}:{number}"))
        except (InputError, UnicodeDecodeError):
            raise InputError(f"{path}:{number}: not a sample of this version: not JSON") from None
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a sample of this version: {first_line(error)}") from error
        if sample.key in samples:
            raise InputError(f"{path}:{number}: {sample.id!r} under {sample.variant} stands twice; evaluate again")
        samples[sample.key] = sample
    return list(samples.values())


def load_evaluation(directory: Path) -> Evaluation:
    """Read an evaluation and check that its files say the same.

    Raises:
        InputError: It isn't a finished evaluation of this version, a file was changed or is of another run, or a number
            isn't what the responses amount to.
    """
    settings = read_versioned(directory / SETTINGS)
    plan, samples, document = load_plan(directory), load_samples(directory), read_versioned(directory / RESULTS)
    rows = _rows(document, directory / RESULTS)
    fields = {name: settings.get(key) for name, key in _MODEL_FIELDS.items()}
    try:
        model = validated(ModelId, fields)
    except ValueError as error:
        raise InputError(f"{directory / SETTINGS}: {first_line(error)}") from None
    digests = document.get("counted_from")
    files = dict(COUNTED_FROM)
    if (directory / QUALITY).exists() or (isinstance(digests, dict) and "judge_quality" in digests):
        files["judge_quality"] = QUALITY
    for name, counted in files.items():
        if not isinstance(digests, dict) or digests.get(name) != file_digest(directory / counted):
            raise InputError(
                f"{directory / counted}: isn't the file that {RESULTS} was counted from; run the evaluation again"
            )
    _check_claimed(directory, plan, settings)
    plan.check_asked(samples, directory / RESPONSES)
    counted_rows = count_corrected(samples, model, _qualities(directory))
    _check_counted(directory / RESULTS, rows, counted_rows)
    return Evaluation(directory, model, settings, plan, samples, counted_rows)


_MODEL_FIELDS = {"model": "model", "digest": "digest", "method": "method", "seed": "training_seed"}


def model_settings(model: ModelId) -> dict[str, Any]:
    """Return what `evaluation.json` says of the model."""
    return {key: getattr(model, name) for name, key in _MODEL_FIELDS.items()}


def check_no_evaluation(directory: Path) -> None:
    """Stop if a directory is one evaluation's own: results of several would take the place of its numbers.

    Raises:
        InputError: It is.
    """
    if (directory / SETTINGS).exists():
        raise InputError(f"`out`: {directory}: holds one model's evaluation; choose another directory for several")


def find_evaluations(directory: Path) -> list[Path]:
    """Return the directories of the evaluations in a directory: itself, or those that its `results.json` names.

    Raises:
        InputError: It holds none.
    """
    if (directory / SETTINGS).exists():
        return [directory]
    named = read_versioned(directory / RESULTS).get("evaluations")
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise InputError(f"{directory}: holds no evaluation: there is no {SETTINGS}")
    named_places = {(directory / name).resolve() for name in named}
    held = {path.parent.resolve() for path in directory.rglob(SETTINGS)}
    if named_places != held or len(named) != len(held):
        raise InputError(f"{directory / RESULTS}: names other evaluations than lie in {directory}; name each by itself")
    return [directory / name for name in named]


def _check_claimed(directory: Path, plan: PlanFile, settings: dict[str, Any]) -> None:
    """Stop at a plan of other questions than the directory was claimed for.

    A task that was claimed and isn't planned any more is for the gate to refuse: each run plans what it was asked for.
    """
    claimed = settings.get("tasks")
    for name, task in plan.tasks.items():
        if not isinstance(claimed, dict) or claimed.get(name) != task.digest:
            raise InputError(f"{directory / PLAN}: {name}: other prompts than {SETTINGS} says; evaluate again")
    if settings.get("epochs", plan.epochs) != plan.epochs:
        raise InputError(f"{directory / PLAN}: other epochs than {SETTINGS} says; evaluate again")


def _check_counted(path: Path, rows: Sequence[MetricRow], counted: Sequence[MetricRow]) -> None:
    """Stop at the first row that isn't what the responses amount to."""
    for row, true in zip(rows, counted, strict=False):
        if not _same(row, true):
            raise InputError(f"{path}: {row.metric} of {row.label} contradicts {RESPONSES}; run the evaluation again")
    if len(rows) != len(counted):
        raise InputError(f"{path}: {len(rows)} rows, and {RESPONSES} gives {len(counted)}; run the evaluation again")


def _same(row: MetricRow, counted: MetricRow) -> bool:
    """Whether two rows say the same; another machine's arithmetic may differ in the last digits."""
    close = {
        name: theirs
        for name in ("value", "ci_low", "ci_high")
        if (ours := getattr(row, name)) is not None
        and (theirs := getattr(counted, name)) is not None
        and math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
    }
    return replace(row, **close) == counted
