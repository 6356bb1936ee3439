"""The file that holds what is known of a judge's errors: written by `derta judge check`, read by evaluations."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from derta.errors import InputError, first_line
from derta.evaluation.results.agreement import Agreement
from derta.evaluation.results.judge_quality import Accuracy, JudgeQuality, Question, Rate
from derta.files import read_json, write_json
from derta.strict import validated
from derta.version import __version__

SCHEMA = 1
_RATES = ("sensitivity", "specificity", "agreement", "decided_sensitivity", "decided_specificity")


def save_qualities(path: Path, qualities: Sequence[JudgeQuality]) -> None:
    """Write a quality file, whole or not at all.

    Raises:
        InputError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        judges = qualities_to_json(qualities)
        write_json(path, {"judge_quality": SCHEMA, "derta_version": __version__, "judges": judges})
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error


def qualities_to_json(qualities: Sequence[JudgeQuality]) -> list[dict[str, Any]]:
    """Return what is known of each judge as JSON."""
    return [
        {
            "judge": each.judge,
            "model": each.model,
            "version": each.version,
            "labels": each.labels,
            "accuracies": [_to_json(accuracy) for accuracy in each.accuracies],
        }
        for each in qualities
    ]


def qualities_from_json(judges: Sequence[dict[str, Any]]) -> list[JudgeQuality]:
    """Read what [`qualities_to_json`] wrote.

    Raises:
        ValueError: It is something else, or its numbers contradict each other; so do `KeyError` and `TypeError`.
    """
    return [_quality(each) for each in judges]


def _to_json(accuracy: Accuracy) -> dict[str, Any]:
    rates = {name: getattr(accuracy, name).to_json() for name in _RATES}
    return asdict(accuracy) | rates


def is_quality_file(path: Path) -> bool:
    """Whether a file is a quality file, rather than labelled responses."""
    if path.suffix.lower() != ".json":
        return False
    try:
        return "judge_quality" in read_json(path)
    except InputError:
        return False


def load_qualities(path: Path) -> list[JudgeQuality]:
    """Return what a quality file says of each judge.

    Raises:
        InputError: It isn't one of this version, or its numbers contradict each other.
    """
    document = read_json(path)
    try:
        if document["judge_quality"] != SCHEMA:
            raise ValueError(f"its schema is {document['judge_quality']!r}, this version reads {SCHEMA}")
        found = qualities_from_json(document["judges"])
        if not found or len({each.judge for each in found}) < len(found):
            raise ValueError("it must hold each judge once")
    except KeyError as error:
        raise InputError(f"{path}: no field {error}; measure anew with derta judge check") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a quality file of this version: {first_line(error)}; measure anew with derta judge check"
        ) from error
    return found


def _quality(fields: dict[str, Any]) -> JudgeQuality:
    judge, model, version, labels = (fields[name] for name in ("judge", "model", "version", "labels"))
    if not all(isinstance(text, str) for text in (judge, version, labels)) or not isinstance(model, str | None):
        raise ValueError("judge, model, version and labels must be text")
    accuracies = tuple(_from_json(each) for each in fields["accuracies"])
    keys = [(each.question, each.attack) for each in accuracies]
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"{judge}: it must hold each question and attack once")
    return JudgeQuality(judge, model, version, labels, accuracies)


def _from_json(fields: dict[str, Any]) -> Accuracy:
    question: Question = fields["question"]
    attack, n, unscored = fields["attack"], fields["n"], fields["unscored"]
    rates = {name: _rate(fields[name], name) for name in _RATES}
    alpha = validated(Agreement, fields["alpha"])
    sensitivity, specificity, agreement, decided_sensitivity, decided_specificity = rates.values()
    if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in (n, unscored)):
        raise ValueError(f"n {n!r} and unscored {unscored!r} must be whole numbers")
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
