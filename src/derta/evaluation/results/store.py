"""An evaluation's directory: which model it is of, what was asked, the responses, and the numbers.

evaluation.json   what is asked of which model and how, written before the first sample: a later run must agree
logs/             Inspect's logs of tasks under way: an interrupted run goes on from them, and `inspect view` shows them
responses.jsonl   a first line that says the same as `evaluation.json` and seals the file, then one response a line
results.json      the rows of numbers, for people and machines: nothing here reads them back

Everything is counted from `responses.jsonl`, and nothing in it is believed unless its seal is right. Where several
models are evaluated at once, the directories of their evaluations lie below one with a `results.json` of them all.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derta.data.behaviours import Kind
from derta.errors import InputError, first_line
from derta.evaluation.results.correction import count_corrected
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.metrics import MetricRow, ModelId
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.quality_file import qualities_from_json, qualities_to_json
from derta.evaluation.results.sample import Sample, judged_by
from derta.files import parse_json, read_json, write_json, write_text
from derta.strict import STRICT, validated
from derta.version import __version__

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 4
"""The version of an evaluation's files."""
RESULTS, RESPONSES, SETTINGS, LOGS = "results.json", "responses.jsonl", "evaluation.json", "logs"
SEAL = "seal"


def harmless_task(kind: Kind, attack: str) -> str:
    """Return the name of the task that asks harmless prompts of one kind, plainly (`direct`) or in an attack's form."""
    return kind if attack == "direct" else f"{kind}-under-{attack}"


@dataclass(frozen=True)
class Task:
    """What one task asks.

    Attributes:
        attack: The attack; the task's name where no attack is carried out.
        family: The attack's family, if it is one.
        variants: How many samples each variant has, in each epoch.
        judges: Who judges the responses; the first decides.
        digest: A hash of the requests: samples of another question mustn't stand for these.
    """

    __pydantic_config__ = STRICT

    attack: str
    family: str | None
    variants: dict[str, int]
    judges: list[str]
    digest: str


@dataclass(frozen=True)
class MissingVerdicts:
    """Something that was asked for and wasn't measured.

    Attributes:
        task: The attack, the kind of harmless prompts or the helpfulness task.
        variant: Which variant of it.
        judge: Whose verdicts are missing.
        planned: How many verdicts there should be.
        measured: How many there are.
    """

    task: str
    variant: str
    judge: str
    planned: int
    measured: int

    def __str__(self) -> str:
        return f"{self.variant}: {self.planned} verdicts of {self.judge} were planned, {self.measured} are there"

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one model.

    Attributes:
        directory: Where it lies.
        settings: How it was made, as `evaluation.json` says.
        tasks: What was asked.
        samples: The judged responses.
        qualities: The errors of judges, where shares are corrected for them.
    """

    directory: Path
    settings: dict[str, Any]
    tasks: Mapping[str, Task]
    samples: Sequence[Sample]
    qualities: Sequence[JudgeQuality] = field(default=())

    @property
    def model(self) -> ModelId:
        """Of which model it is."""
        return ModelId(**{name: self.settings[key] for name, key in _MODEL_FIELDS.items()})

    @property
    def is_of_file(self) -> bool:
        """Whether the responses were read from a file, and not asked for here."""
        return "responses" in self.settings

    @property
    def epochs(self) -> int:
        """How often each sample was taken."""
        return int(self.settings.get("epochs", 1))

    @property
    def judges(self) -> list[str]:
        """Everybody who judges, the one who decides first."""
        return list(dict.fromkeys(judge for task in self.tasks.values() for judge in task.judges))

    @cached_property
    def rows(self) -> list[MetricRow]:
        """The numbers, counted from the samples."""
        return count_corrected(self.samples, self.model, self.qualities)

    def by(self, judge: str) -> list[Sample]:
        """Return the responses that a judge decided on, each with its verdict alone."""
        return judged_by(self.samples, judge)

    def of(self, task: str) -> list[Sample]:
        """Return the samples of one task."""
        return [sample for sample in self.samples if task_of(sample) == task]

    def find_missing(self) -> list[MissingVerdicts]:
        """Return what was asked for and isn't there: samples, or every verdict of a judge on a variant.

        Single samples without a verdict are counted as unscored, and aren't listed here.
        """
        missing = []
        for name, task in self.tasks.items():
            samples = self.of(name)
            for variant, count in task.variants.items():
                taken = [sample for sample in samples if sample.variant == variant]
                for judge in task.judges:
                    found = judged_by(taken, judge)
                    judged = any(sample.verdict.label != "unscored" or sample.broken for sample in found)
                    planned = count * self.epochs
                    if len(found) < planned or not judged:
                        missing.append(MissingVerdicts(name, variant, judge, planned, len(found) if judged else 0))
        return missing

    def to_pandas(self) -> "DataFrame":
        """Return the rows of numbers as a data frame."""
        from pandas import DataFrame

        return DataFrame([row.to_json() for row in self.rows])


def task_of(sample: Sample) -> str:
    """Return the name of the task that a sample belongs to: answers to questions are their task's, not an attack's."""
    is_asked_plainly = sample.kind != "harmful" and ANSWERS not in sample.verdicts
    return harmless_task(sample.kind, sample.attack) if is_asked_plainly else sample.attack


_MODEL_FIELDS = {"model": "model", "digest": "digest", "method": "method", "seed": "training_seed"}


def model_settings(model: ModelId) -> dict[str, Any]:
    """Return what `evaluation.json` says of the model."""
    return {key: getattr(model, name) for name, key in _MODEL_FIELDS.items()}


def claim(directory: Path, settings: dict[str, Any], tasks: Mapping[str, Task]) -> Evaluation:
    """Make a directory the place of one evaluation, or check that it is; return what it holds already.

    Args:
        directory: Holds this evaluation alone; made if it doesn't exist.
        settings: What makes samples comparable. A directory with other settings is refused.
        tasks: What is asked. Tasks may be added later, and none may change.

    Returns:
        The evaluation with all tasks that it has now, and the samples of those that were finished before.

    Raises:
        InputError: The directory holds another evaluation or what wasn't written here, or can't be written to.
    """
    path = directory / SETTINGS
    # As they are read back: tuples are lists then.
    settings = json.loads(json.dumps({"schema": SCHEMA, **settings}))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sealed = _read_sealed(directory) if (directory / RESPONSES).exists() else None
        if path.exists():
            held = read_json(path)
            _check_same(directory, held if sealed is None else _document(sealed), settings, tasks)
        elif found := [name for name in (RESULTS, RESPONSES, LOGS) if (directory / name).exists()]:
            raise InputError(f"`out`: {directory}: holds another run's {found[0]}; choose another directory")
        done = {} if sealed is None else dict(sealed.tasks)
        known = {**done, **{name: task for name, task in tasks.items() if name not in done}}
        samples = [] if sealed is None else sealed.samples
        claimed = Evaluation(directory, settings, known, samples, () if sealed is None else sealed.qualities)
        write_json(path, {**_document(claimed), "derta_version": __version__})
    except OSError as error:
        raise InputError(f"`out`: {directory}: can't be written to: {error.strerror or error}") from error
    return claimed


def _check_same(directory: Path, held: dict[str, Any], settings: dict[str, Any], tasks: Mapping[str, Task]) -> None:
    for key, value in settings.items():
        if key != "model" and held.get(key) != value:
            of_model = key in ("fingerprint", "files", "digest")
            what = f"results of another model ({held.get('model')})" if of_model else f"another {key}"
            raise InputError(f"`out`: {directory}: holds {what}; choose another directory")
    known = held.get("tasks")
    for name, task in tasks.items():
        claimed = known.get(name) if isinstance(known, dict) else None
        if isinstance(claimed, dict) and claimed.get("digest") != task.digest:
            raise InputError(f"`out`: {directory}: holds {name} for other prompts; choose another directory")


def _document(evaluation: Evaluation) -> dict[str, Any]:
    """Return all that there is to know about an evaluation but its responses."""
    tasks = {name: asdict(task) for name, task in evaluation.tasks.items()}
    document = {**evaluation.settings, "tasks": tasks}
    return document | ({"judge_quality": qualities_to_json(evaluation.qualities)} if evaluation.qualities else {})


def save_evaluation(evaluation: Evaluation, **more: Any) -> None:
    """Write the responses of a claimed directory, sealed, and the numbers; `more` stands in `results.json` as well.

    Raises:
        InputError: The directory can't be written to.
    """
    directory, document = evaluation.directory, _document(evaluation)
    lines = "".join(json.dumps(sample.to_json(), ensure_ascii=False) + "\n" for sample in evaluation.samples)
    head = json.dumps({SEAL: _seal(document, lines.encode()), **document}, ensure_ascii=False)
    try:
        write_json(directory / SETTINGS, {**document, "derta_version": __version__})
        missing = [each.to_json() for each in evaluation.find_missing()]
        save_results(directory / RESULTS, evaluation.rows, **more, unmet=missing)
        # The seal closes the evaluation and comes last: until then the same command writes all of it again.
        write_text(directory / RESPONSES, head + "\n" + lines)
    except OSError as error:
        raise InputError(f"`out`: {directory}: can't be written to: {error.strerror or error}") from error


def _seal(document: Mapping[str, Any], lines: bytes) -> str:
    """Return the one digest over model, settings, tasks and judges' errors, and over every response."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    digest.update(b"\n" + lines)
    return digest.hexdigest()


def save_results(path: Path, rows: Sequence[MetricRow], **more: Any) -> None:
    """Write rows to a `results.json`, whole or not at all."""
    document = {"schema": SCHEMA, "derta_version": __version__, **more, "rows": [row.to_json() for row in rows]}
    write_json(path, document)


def load_evaluation(directory: Path) -> Evaluation:
    """Read an evaluation, whole and as it was written.

    Raises:
        InputError: It isn't a finished evaluation of this version, or something in it was changed.
    """
    path = directory / SETTINGS
    settings = read_json(path)
    if settings.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {settings.get('schema')!r}; this version reads {SCHEMA}: evaluate again")
    evaluation = _read_sealed(directory)
    settings.pop("derta_version", None)
    if settings != _document(evaluation):
        raise InputError(
            f"{path}: says something else than {RESPONSES}: the evaluation isn't finished, or the file was changed; "
            "run the same command again"
        )
    return evaluation


def _read_sealed(directory: Path) -> Evaluation:
    """Read responses that their seal vouches for."""
    path = directory / RESPONSES
    try:
        first, _, lines = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    document = parse_json(first.decode("utf-8", "replace"), f"{path}:1")
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise InputError(f"{path}: schema {schema!r}; this version reads {SCHEMA}: evaluate again")
    if document.pop(SEAL, None) != _seal(document, lines):
        raise InputError(f"{path}: isn't what was written: its seal is broken; evaluate again into another directory")
    settings = dict(document)
    try:
        tasks = {name: validated(Task, task) for name, task in settings.pop("tasks").items()}
        qualities = qualities_from_json(settings.pop("judge_quality", []))
        samples = [Sample.from_json(json.loads(line)) for line in lines.split(b"\n") if line]
        evaluation = Evaluation(directory, settings, tasks, samples, qualities)
        validated(ModelId, asdict(evaluation.model))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an evaluation of this version: {first_line(error)}") from None
    _check_asked(path, evaluation)
    return evaluation


def _check_asked(path: Path, evaluation: Evaluation) -> None:
    """Stop at a response that nobody asked for, or that stands twice."""
    keys = Counter(sample.key for sample in evaluation.samples)
    for sample in evaluation.samples:
        task = evaluation.tasks.get(task_of(sample))
        asked = task is not None and sample.variant in task.variants and sample.epoch <= evaluation.epochs
        if not asked or task is None or not set(sample.verdicts) <= set(task.judges) or keys[sample.key] > 1:
            raise InputError(f"{path}: {sample.id!r} under {sample.variant} was never asked for, or stands twice")


def check_no_evaluation(directory: Path) -> None:
    """Stop if a directory is one evaluation's own: results of several would take the place of its numbers.

    Raises:
        InputError: It is.
    """
    if (directory / SETTINGS).exists():
        raise InputError(f"`out`: {directory}: holds one model's evaluation; choose another directory for several")


def find_evaluations(directory: Path) -> list[Path]:
    """Return the directories of the evaluations in a directory: itself, or all below it.

    Raises:
        InputError: It holds none.
    """
    if (directory / SETTINGS).exists():
        return [directory]
    found = sorted(path.parent for path in directory.rglob(SETTINGS))
    if not found:
        raise InputError(f"{directory}: holds no evaluation: there is no {SETTINGS}")
    return found
