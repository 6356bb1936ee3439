"""The file that holds what is known of a judge's errors: written by `derta judge check`, read by evaluations."""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import derta
from derta.errors import InputError, first_line
from derta.evaluation.results.agreement import Agreement
from derta.evaluation.results.judge_quality import Accuracy, JudgeQuality, Question, Rate
from derta.files import write_json

SCHEMA = 1
_RATES = ("sensitivity", "specificity", "agreement", "decided_sensitivity", "decided_specificity")


def digest_of_file(path: Path) -> str:
    """Return a hash of a file's bytes.

    Raises:
        InputError: The file can't be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def save_quality(path: Path, quality: JudgeQuality) -> None:
    """Write a quality file, whole or not at all.

    Raises:
        InputError: It can't be written.
    """
    document = {
        "judge_quality": SCHEMA,
        "derta_version": derta.__version__,
        "judge": quality.judge,
        "model": quality.model,
        "version": quality.version,
        "labels": quality.labels,
        "accuracies": [_to_json(each) for each in quality.accuracies],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error


def _to_json(accuracy: Accuracy) -> dict[str, Any]:
    rates = {name: getattr(accuracy, name).to_json() for name in _RATES}
    return asdict(accuracy) | rates


def is_quality_file(path: Path) -> bool:
    """Whether a file is a quality file, rather than labelled responses."""
    if path.suffix.lower() != ".json":
        return False
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "judge_quality" in document


def load_quality(path: Path) -> JudgeQuality:
    """Read a quality file.

    Raises:
        InputError: It isn't one of this version, or its numbers contradict each other.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["judge_quality"] != SCHEMA:
            raise ValueError(f"its schema is {document['judge_quality']!r}, this version reads {SCHEMA}")
        texts = [document[name] for name in ("judge", "version", "labels")]
        model = document["model"]
        if not all(isinstance(text, str) for text in texts) or not isinstance(model, str | None):
            raise ValueError("judge, model, version and labels must be text")
        accuracies = tuple(_from_json(each) for each in document["accuracies"])
        keys = [(each.question, each.attack) for each in accuracies]
        if not keys or len(set(keys)) < len(keys):
            raise ValueError("it must hold each question and attack once")
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a quality file of this version ({first_line(error)}); measure anew with derta judge check"
        ) from error
    return JudgeQuality(texts[0], model, texts[1], texts[2], accuracies)


def _from_json(fields: dict[str, Any]) -> Accuracy:
    question: Question = fields["question"]
    attack, n, unscored = fields["attack"], fields["n"], fields["unscored"]
    rates = {name: _rate(fields[name], name) for name in _RATES}
    alpha = Agreement(**fields["alpha"])
    sensitivity, specificity, agreement, decided_sensitivity, decided_specificity = rates.values()
    if question not in get_args(Question) or not isinstance(attack, str):
        raise ValueError(f"unknown question {question!r} or attack {attack!r}")
    adds_up = (
        agreement.n == n == sensitivity.n + specificity.n
        and decided_sensitivity.n + decided_specificity.n == n - unscored
        and (decided_sensitivity.hits, decided_specificity.hits) == (sensitivity.hits, specificity.hits)
        and agreement.hits <= sensitivity.hits + specificity.hits
    )
    if not adds_up:
        raise ValueError(f"the counts of {question}, {attack} contradict each other")
    return Accuracy(question, attack, n, unscored, alpha=alpha, **rates)


def _rate(fields: dict[str, Any], name: str) -> Rate:
    hits, n, independent = fields["hits"], fields["n"], fields["effective_n"]
    whole = all(isinstance(count, int) and not isinstance(count, bool) for count in (hits, n))
    if not whole or not 0 <= hits <= n or not isinstance(independent, int | float) or isinstance(independent, bool):
        raise ValueError(f"{name}: {hits!r} of {n!r} is no share")
    if not (0 < independent <= n if n else independent == 0):
        raise ValueError(f"{name}: effective_n must be above 0 and no more than n")
    rate = Rate(hits, n, independent)
    for key, known in rate.to_json().items():
        stated = fields[key]
        if stated != known and not (known is not None and math.isclose(stated, known, abs_tol=1e-9)):
            raise ValueError(f"{name}: {key} is {stated!r}, and its counts say {known!r}")
    return rate
