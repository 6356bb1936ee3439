"""Samples out of Inspect's logs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

from inspect_ai.log import EvalLog, EvalSample, read_eval_log

from derta.errors import InputError, first_line, machine_failure, was_interrupted
from derta.evaluation.judges import Verdict
from derta.evaluation.plan import AttackSample
from derta.evaluation.results.sample import Sample
from derta.generation import ContextFullError


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
    """Read the judged samples of a task, one for each planned sample, epoch and judge, in the order of `planned`."""
    places = {sample.key: place for place, sample in enumerate(planned)}
    judges = [scorer.name for scorer in log.eval.scorers or []]
    read = read_eval_log(log.location, exclude_fields={"events", "store"}).samples or []
    taken = [sample for sample in read if str(sample.id) in places]
    for sample in sorted(taken, key=lambda sample: (places[str(sample.id)], sample.epoch)):
        error = SampleError.from_metadata(sample.metadata)
        if error is None and sample.error:
            error = SampleError("model", sample.error.message)
        for judge in judges:
            yield _sample(sample, planned[places[str(sample.id)]], judge, error), error


def _sample(taken: EvalSample, planned: AttackSample, judge: str, error: SampleError | None) -> Sample:
    metadata = taken.metadata
    scored = (taken.scores or {}).get(judge)
    if scored is not None and scored.metadata:
        verdict = Verdict(**{field.name: scored.metadata[field.name] for field in fields(Verdict)})
    else:
        verdict = Verdict("unscored", reason=error.message if error else "no verdict in the log")
    response, prefix = metadata.get("response", ""), metadata.get("prefix", "")
    return Sample(
        id=planned.behaviour.id,
        kind=planned.behaviour.kind,
        attack=planned.attack,
        variant=planned.variant,
        prompt=planned.behaviour.prompt,
        messages=metadata.get("messages"),
        raw=metadata.get("raw"),
        prefix=prefix,
        continuation=response[len(prefix) :],
        tokens=metadata.get("tokens", 0),
        finished=metadata.get("finished", False),
        queries=metadata.get("queries", 0),
        epoch=taken.epoch,
        broken=metadata.get("broken"),
        guard=metadata.get("guard"),
        stopped_at=metadata.get("stopped_at"),
        judge=judge,
        verdict=verdict,
    )
