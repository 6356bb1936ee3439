"""An evaluation's directory: which model it is of, the samples taken so far, and the results.

evaluation.json   what was evaluated and how: a later run must agree
responses.jsonl   one sample a line, in the order they were taken; appended to, never rewritten
results.json      the rows of numbers
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from transformers import PreTrainedModel

import derta
from derta.errors import InputError
from derta.evaluation.metrics import Row
from derta.evaluation.samples import Sample
from derta.files import write_json

SCHEMA = 1
RESULTS, RESPONSES, SETTINGS = "results.json", "responses.jsonl", "evaluation.json"


class Store:
    """The samples of one evaluation, kept on disk as they come."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        """Open a directory, made if it doesn't exist.

        Args:
            directory: of this evaluation alone.
            settings: what makes samples comparable. A directory with other settings is refused.

        Raises:
            InputError: the directory holds another evaluation, or can't be written to.
        """
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._agree(settings)
            self.samples = _read_samples(directory / RESPONSES)
            self._file = (directory / RESPONSES).open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out: {directory}: can't be written to: {error.strerror or error}") from error

    def _agree(self, settings: dict[str, Any]) -> None:
        path = self.directory / SETTINGS
        if not path.exists():
            for name in (RESULTS, RESPONSES):
                if (self.directory / name).exists():
                    raise InputError(f"--out: {self.directory}: holds another run's {name}; choose another directory")
            write_json(path, {"schema": SCHEMA, "derta_version": derta.__version__, **settings})
            return
        held = _read_json(path)
        for key, value in settings.items():
            if key != "model" and held.get(key) != value:
                what = f"results of another model ({held.get('model')})" if key == "fingerprint" else f"another {key}"
                raise InputError(f"--out: {self.directory}: holds {what}; choose another directory")

    def add(self, samples: Iterable[Sample]) -> None:
        """Append samples; they outlast an interruption from here on."""
        for sample in samples:
            self.samples[sample.key] = sample
            self._file.write(json.dumps(sample.to_json(), ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "Store":
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file of samples."""
        self._file.close()


def _read_samples(path: Path) -> dict[tuple[str, str], Sample]:
    """Read the samples taken so far; a last line that a kill tore is cut off, and taken again."""
    samples: dict[tuple[str, str], Sample] = {}
    if not path.exists():
        return samples
    whole = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            sample = Sample.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}:{number}: not a sample of this version ({error}); choose another --out"
            ) from error
        samples.setdefault(sample.key, sample)
        whole += len(line)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    return samples


def load_samples(directory: Path) -> list[Sample]:
    """Return the samples of a finished evaluation, in the order they were taken."""
    return [Sample.from_json(json.loads(line)) for line in (directory / RESPONSES).read_bytes().splitlines()]


def save_results(path: Path, rows: Sequence[Row], **more: Any) -> None:
    """Write rows to a `results.json`, whole or not at all."""
    document = {"schema": SCHEMA, "derta_version": derta.__version__, **more, "rows": [row.to_json() for row in rows]}
    write_json(path, document)


def load_results(path: Path) -> list[Row]:
    """Return the rows of a `results.json`.

    Raises:
        InputError: it isn't one.
    """
    document = _read_json(path)
    try:
        return [Row(**row) for row in document["rows"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a results file of this version: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return document


def fingerprint(model: PreTrainedModel) -> str:
    """Return a short hash of the weights: two checkpoints of one name differ in it.

    It samples every parameter rather than reading all of it, so that it is quick for large models.
    """
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            flat = weight.reshape(-1)
            few = flat[:: max(1, flat.numel() // 256)][:256].float().cpu().contiguous()
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(few.numpy().tobytes())
    return digest.hexdigest()[:16]
