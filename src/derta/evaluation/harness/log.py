"""Samples out of Inspect's logs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

from inspect_ai.log import EvalLog, EvalSample, read_eval_log

from derta.errors import InputError, first_line, machine_failure, was_interrupted
from derta.evaluation.judges import Verdict
from derta.evaluation.results.sample import Sample
from derta.evaluation.samples import AttackSample, make_sample
from derta.generation import ContextFullError, Generation

SAMPLE = "derta_sample"
"""Where a log keeps a response as derta counts it, its verdicts apart."""


@dataclass(frozen=True)
class SampleError:
    """Why a sample has no response. It stands in the sample's metadata, where Inspect keeps an error as text.

    Attributes:
        kind: `input` for what the user has to mend, `model` for all else that went wrong.
        message: The error's name and its first line.
    """

    kind: Literal["input", "model"]
    message: str

    @classmethod
    def of(cls, error: Exception) -> "SampleError":
        """Describe an error."""
        # What is asked first was measured before; later the model's own answers make a conversation too long.
        if isinstance(error, InputError) and not isinstance(error, ContextFullError):
            return cls("input", str(error))
        return cls("model", f"{type(error).__name__}: {first_line(error)}")

    def to_metadata(self) -> dict[str, Any]:
        """Return it as Inspect's metadata."""
        return {"error": asdict(self)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> "SampleError | None":
        """Read what [`SampleError.to_metadata`] wrote."""
        found = metadata.get("error")
        return cls(**found) if found else None


def check_logs(logs: Path) -> None:
    """Stop at a log that was damaged: Inspect would take what it finds in it for what was answered.

    Raises:
        InputError: One isn't what was written.
    """
    for log in sorted(logs.glob("*.eval")):
        try:
            with ZipFile(log) as archive:
                damaged = archive.testzip() is not None
        except MemoryError:
            raise
        except Exception:  # each decompressor has errors of its own
            damaged = True
        if damaged:
            raise InputError(
                f"`out`: {log}: is damaged; move it away and run the same command again: its samples are taken anew"
            )


@contextmanager
def going_on_from(logs: Path) -> Iterator[None]:
    """Say in a line that Inspect can't go on from what a folder holds.

    Raises:
        InputError: It can't.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or was_interrupted(error) or machine_failure(error):
            raise
        raise InputError(
            f"`out`: {logs}: Inspect can't go on from it: {first_line(error)}; move the folder away and run the same "
            "command again"
        ) from error


def check_ended(logs: Sequence[EvalLog], wanted: int) -> None:
    """Stop if Inspect was stopped: what it has taken is in its logs.

    Raises:
        InputError: A task failed as a whole.
        KeyboardInterrupt: It was interrupted.
    """
    for log in logs:
        if log.status == "error":
            reason = log.error.message if log.error else "no reason given"
            raise InputError(f"{log.eval.task}: Inspect ended with: {reason}; run the same command again to go on")
    # It swallows an interrupt, and returns no logs then.
    if len(logs) < wanted or any(log.status != "success" for log in logs):
        raise KeyboardInterrupt


def read_log(log: EvalLog, planned: Sequence[AttackSample]) -> Iterator[tuple[Sample, SampleError | None]]:
    """Read the judged samples of a task, one for each planned sample and epoch, in the order of `planned`."""
    places = {sample.key: place for place, sample in enumerate(planned)}
    judges = [scorer.name for scorer in log.eval.scorers or []]
    read = read_eval_log(log.location, exclude_fields={"events", "store"}).samples or []
    taken = [sample for sample in read if str(sample.id) in places]
    for logged in sorted(taken, key=lambda sample: (places[str(sample.id)], sample.epoch)):
        error = SampleError.from_metadata(logged.metadata)
        if error is None and logged.error:
            error = SampleError("model", logged.error.message)
        if SAMPLE in logged.metadata:
            sample = Sample.from_json(logged.metadata[SAMPLE])
        else:
            nothing = Generation("", "", tokens=0, finished=False)
            sample = make_sample(planned[places[str(logged.id)]], nothing, queries=0, epoch=logged.epoch)
            sample = replace(sample, broken=None)
        yield replace(sample, verdicts={judge: _verdict(logged, judge, error) for judge in judges}), error


def _verdict(logged: EvalSample, judge: str, error: SampleError | None) -> Verdict:
    scored = (logged.scores or {}).get(judge)
    if scored is None or not scored.metadata:
        return Verdict("unscored", reason=error.message if error else "no verdict in the log")
    return Verdict(**{field.name: scored.metadata[field.name] for field in fields(Verdict)})
