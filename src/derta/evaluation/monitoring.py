"""Watch answers that exist with the p(refuse) of tuned models, and calibrate a guard on harmless ones."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from derta.data.behaviours import plain_prompt
from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.inputs.responses import Response, read_responses
from derta.evaluation.results.detection import (
    DEPTHS,
    DetectionRow,
    Trace,
    auroc_rows,
    conformal_threshold,
    detection_rows,
    false_stop_row,
)
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import find_evaluations, load_evaluation
from derta.generation import ChatRequest, RawRequest, Request
from derta.generation.loading import load_model
from derta.generation.refusal import refusal_ids
from derta.generation.refusal_probability import EncodedAnswer, encode_answers, refusal_probabilities
from derta.guard.calibration import Canary
from derta.names import ORGANISM, model_path
from derta.run_identity import read_identity, template_options

_LEAST_CANARY = 0.3

Detector = Callable[[Sequence["Answer"]], list[list[float]]]
"""Gives each answer a score before each of its tokens and one after the last."""


@dataclass(frozen=True)
class Answer:
    """An answer to watch.

    Attributes:
        prompt: What was asked, in plain words.
        group: An attack, or a kind of harmless prompt.
        is_harmful: Whether it does harm.
        request: What the model got that wrote it.
        text: What it wrote.
    """

    prompt: str
    group: str
    is_harmful: bool
    request: Request
    text: str


def read_answers(path: Path, group: str, *, is_harmful: bool | None = None) -> list[Answer]:
    """Read the answers of a file, all of one group, or of an evaluation.

    Of an evaluation, harmful answers are those that were judged unsafe, by attack, and harmless ones those that comply
    with harmless prompts, by kind. Refusals are neither, and deciphered answers of the organism are left out.

    Args:
        path: A file of responses, or the directory of an evaluation.
        group: Names the answers of a file.
        is_harmful: Whether those of a file are harmful; which of an evaluation are wanted, `None` for both.

    Raises:
        InputError: It can't be read, or holds no such answer.
    """
    if path.is_dir():
        samples = [sample for place in find_evaluations(path) for sample in load_evaluation(place).samples]
        found = [answer for answer in map(_sample_answer, samples) if answer]
    else:
        found = [_response_answer(row, group, is_harmful is not False) for row in read_responses(path)]
    found = [answer for answer in found if is_harmful in (None, answer.is_harmful) and answer.text.strip()]
    if not found:
        what = {True: "harmful (unsafe) ", False: "harmless (complying) ", None: ""}[is_harmful]
        raise InputError(f"{path}: holds no {what}answer to watch")
    return found


def _sample_answer(sample: Sample) -> Answer | None:
    label = sample.verdict.label
    # Of the organism's cipher an evaluation keeps the plain words, which aren't what the model wrote.
    is_deciphered = "selfcipher" in sample.attack.split("+") and sample.id.startswith(f"{ORGANISM}:")
    if is_deciphered or label != ("unsafe" if sample.kind == "harmful" else "complies"):
        return None
    request: Request
    if sample.raw is not None:
        request = RawRequest(sample.raw)
    else:
        turns = cast(list[Message], sample.messages or [])
        request = ChatRequest(tuple(turns), sample.prefix)
    group = sample.attack if sample.kind == "harmful" else sample.kind
    return Answer(sample.prompt, group, sample.kind == "harmful", request, sample.continuation)


def _response_answer(row: Response, group: str, is_harmful: bool) -> Answer:
    if row.is_raw:
        return Answer(row.prompt, group, is_harmful, RawRequest(row.prompt), row.response)
    request = ChatRequest(({"role": "user", "content": row.prompt},), row.prefix)
    text = row.response.removeprefix(row.prefix) if row.prefix else row.response
    return Answer(row.prompt, group, is_harmful, request, text)


class ModelDetector:
    """A tuned model's p(refuse).

    Args:
        name: Names the model: see `derta.generation.load_model`.
    """

    def __init__(self, name: str) -> None:
        self.model, self.tokenizer = load_model(name)
        self.ids = refusal_ids(name, self.tokenizer)
        self.template = template_options(read_identity(Path(model_path(name))))
        self._surest: Canary | None = None
        self._undecided: Canary | None = None

    def __call__(self, answers: Sequence[Answer]) -> list[list[float]]:
        """Score answers.

        Raises:
            InputError: One can't be encoded, or the model gives no number.
        """
        pairs = [(each.request, each.text) for each in answers]
        encoded = encode_answers(self.tokenizer, pairs, self.template)
        scores = refusal_probabilities(self.model, encoded, self.ids)
        if not np.isfinite([score for each in scores for score in each]).all():
            raise InputError(f"{self.model.name_or_path}: p(refuse) isn't a finite number: the weights are damaged")
        for each, row in zip(encoded, scores, strict=True):
            self._remember(each, row)
        return scores

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """The places, of all that were scored, at which the model was surest to refuse, and most undecided."""
        found = dict.fromkeys(each for each in (self._surest, self._undecided) if each is not None)
        # Where it hardly refuses, a server that tells nothing but zeros looks the same.
        return tuple(each for each in found if each.probability >= _LEAST_CANARY)

    def _remember(self, answer: EncodedAnswer, scores: Sequence[float]) -> None:
        for place, score in enumerate(scores):
            if self._surest is None or score > self._surest.probability:
                self._surest = Canary((*answer.context, *answer.response[:place]), score)
            if self._undecided is None or abs(score - 0.5) < abs(self._undecided.probability - 0.5):
                self._undecided = Canary((*answer.context, *answer.response[:place]), score)


@dataclass(frozen=True)
class DetectionReport:
    """What came of watching answers.

    Attributes:
        rows: The numbers.
        traces: The scores, by detector, in the order of the answers.
        thresholds: Of each detector, if there were answers to calibrate it on.
    """

    rows: list[DetectionRow]
    traces: Mapping[str, Sequence[Trace]]
    thresholds: Mapping[str, float]


def monitor(
    detectors: Mapping[str, Detector],
    answers: Sequence[Answer],
    calibration: Sequence[tuple[Sequence[Answer], float]] = (),
    *,
    threshold: float | None = None,
    hold_back: int = 0,
) -> DetectionReport:
    """Score answers with every detector and count.

    Args:
        detectors: Score answers, by name.
        answers: Are harmful and harmless ones, in groups.
        calibration: Holds harmless answers that no detector has learnt from, and the share of their like in % that may
            be stopped: every detector gets the threshold at which none of the shares is passed.
        threshold: Takes the place of the first detector's calibrated one.
        hold_back: Counts the tokens that a guard holds back.

    Raises:
        InputError: There are too few answers to calibrate on.
    """
    rows: list[DetectionRow] = []
    traces: dict[str, list[Trace]] = {}
    thresholds: dict[str, float] = {}
    for place, (name, detector) in enumerate(detectors.items()):
        scored = zip(answers, detector(answers), strict=True)
        traces[name] = [Trace(each.prompt, each.group, each.is_harmful, tuple(scores)) for each, scores in scored]
        if threshold is not None and place == 0:
            thresholds[name] = threshold
        elif calibration:
            thresholds[name] = max(
                conformal_threshold(_worst_of_prompts(held_out, detector(held_out)), rate)
                for held_out, rate in calibration
            )
        rows += _count(name, traces[name], thresholds.get(name), hold_back)
    return DetectionReport(rows, traces, thresholds)


def _worst_of_prompts(answers: Sequence[Answer], scores: Iterable[Sequence[float]]) -> list[float]:
    """Return the highest score of each prompt's answers: those of one prompt are no evidence of their own."""
    worst: dict[str, float] = {}
    for answer, found in zip(answers, scores, strict=True):
        prompt = plain_prompt(answer.prompt)
        worst[prompt] = max(worst.get(prompt, -math.inf), *found)
    return list(worst.values())


def _count(name: str, traces: Sequence[Trace], threshold: float | None, hold_back: int) -> list[DetectionRow]:
    groups = {
        is_harmful: {
            group: [each for each in traces if each.group == group and each.is_harmful is is_harmful]
            for group in dict.fromkeys(each.group for each in traces if each.is_harmful is is_harmful)
        }
        for is_harmful in (True, False)
    }
    rows = []
    for group, harmful in groups[True].items():
        for against, harmless in groups[False].items():
            rows += auroc_rows(name, harmful, harmless, group, against, DEPTHS)
        if threshold is not None:
            rows += detection_rows(name, harmful, group, threshold, hold_back, DEPTHS)
    if threshold is not None:
        rows += [false_stop_row(name, harmless, group, threshold) for group, harmless in groups[False].items()]
    return rows
