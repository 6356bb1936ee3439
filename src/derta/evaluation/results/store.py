"""An evaluation's directory: which model it is of, the samples taken so far, and the results.

evaluation.json   what was evaluated and how: a later run must agree
logs/             Inspect's logs, a task each: what an interrupted run goes on from, and `inspect view` shows
responses.jsonl   one judged sample a line, from the logs
results.json      the rows of numbers
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

import derta
from derta.errors import InputError, first_line
from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.sample import Sample
from derta.files import write_json, write_text

SCHEMA = 2
RESULTS, RESPONSES, SETTINGS, LOGS = "results.json", "responses.jsonl", "evaluation.json", "logs"


def claim(directory: Path, settings: dict[str, Any], tasks: dict[str, str]) -> None:
    """Make a directory the place of one evaluation, or check that it is.

    Args:
        directory: of this evaluation alone; made if it doesn't exist.
        settings: what makes samples comparable. A directory with other settings is refused.
        tasks: a hash of each task's samples. Tasks may be added later, and none may change.

    Raises:
        InputError: the directory holds another evaluation, or can't be written to.
    """
    path = directory / SETTINGS
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = _read_json(path) if path.exists() else {}
        if held:
            _agree(directory, held, settings | {"schema": SCHEMA}, tasks)
        elif found := [name for name in (RESULTS, RESPONSES, LOGS) if (directory / name).exists()]:
            raise InputError(f"--out: {directory}: holds another run's {found[0]}; choose another directory")
        known = held.get("tasks", {}) | tasks
        write_json(path, {"schema": SCHEMA, "derta_version": derta.__version__, **settings, "tasks": known})
    except OSError as error:
        raise InputError(f"--out: {directory}: can't be written to: {error.strerror or error}") from error


def _agree(directory: Path, held: dict[str, Any], settings: dict[str, Any], tasks: dict[str, str]) -> None:
    for key, value in settings.items():
        if key != "model" and held.get(key) != value:
            what = f"results of another model ({held.get('model')})" if key == "fingerprint" else f"another {key}"
            raise InputError(f"--out: {directory}: holds {what}; choose another directory")
    for name, digest in tasks.items():
        if held.get("tasks", {}).get(name, digest) != digest:
            raise InputError(f"--out: {directory}: holds {name} for other prompts; choose another directory")


def save_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSON lines, whole or not at all."""
    write_text(path, "".join(json.dumps(sample.to_json(), ensure_ascii=False) + "\n" for sample in samples))


def load_samples(directory: Path) -> list[Sample]:
    """Return the samples of a finished evaluation.

    Raises:
        InputError: there are none, or a line isn't a sample of this version.
    """
    path = directory / RESPONSES
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            samples.append(Sample.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: not a sample of this version: {first_line(error)}") from error
    return samples


def save_results(path: Path, rows: Sequence[MetricRow], **more: Any) -> None:
    """Write rows to a `results.json`, whole or not at all."""
    document = {"schema": SCHEMA, "derta_version": derta.__version__, **more, "rows": [row.to_json() for row in rows]}
    write_json(path, document)


def load_results(path: Path) -> list[MetricRow]:
    """Return the rows of a `results.json`.

    Raises:
        InputError: it isn't one.
    """
    document = _read_json(path)
    try:
        return [MetricRow(**row) for row in document["rows"]]
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
