"""Rows of shares with the judge's errors taken out, beside the rows of shares as the judge counts them."""

from collections.abc import Sequence
from dataclasses import replace

from derta.data.behaviours import Kind
from derta.evaluation.results.intervals import effective_n
from derta.evaluation.results.judge_quality import ALL, JudgeQuality, Question
from derta.evaluation.results.metrics import (
    SHARES,
    UNITS,
    MetricRow,
    ModelId,
    blank_row,
    by_attack,
    clusters_of,
    count,
)
from derta.evaluation.results.outcomes import outcomes
from derta.evaluation.results.rogan_gladen import Corrected, rogan_gladen
from derta.evaluation.results.sample import Sample, judged_by

CORRECTED: dict[str, Question] = {"asr": "harm", "over_refusal": "compliance", "helpful_refusal": "compliance"}
"""Metrics that can be corrected, and by the judge's error on which question."""
SUFFIX = "_corrected"
METRICS = frozenset((*SHARES, *UNITS, *(metric + SUFFIX for metric in CORRECTED)))
"""Every metric that an evaluation's samples are counted by."""


def corrects(quality: JudgeQuality, kind: Kind) -> bool:
    """Whether a judge's errors were measured on the question that is asked of a kind of prompts."""
    questions = [CORRECTED.get(outcome.metric) for outcome in outcomes(kind, quality.judge)]
    return any(question is not None and quality.rates(question, ALL) is not None for question in questions)


def count_corrected(samples: Sequence[Sample], model: ModelId, qualities: Sequence[JudgeQuality]) -> list[MetricRow]:
    """Return every number of one model's samples, and behind them the corrected ones of each judge in `qualities`."""
    rows = count(samples, model)
    for quality in qualities:
        rows += _corrected(judged_by(samples, quality.judge), model, quality)
    return rows


def _corrected(samples: Sequence[Sample], model: ModelId, quality: JudgeQuality) -> list[MetricRow]:
    """Return a corrected row for every share of one judge's that `quality` has an error for.

    Each error rate is that of the labelled responses to the same attack where there are enough of them, else that of
    all. A row without value and samples stands where there is no correction.
    """
    rows = []
    for kind in dict.fromkeys(sample.kind for sample in samples):
        for attack, variant, group in by_attack([sample for sample in samples if sample.kind == kind]):
            for outcome in outcomes(kind, quality.judge):
                question = CORRECTED.get(outcome.metric)
                rates = quality.rates(question, attack) if question else None
                if rates is None:
                    continue
                row = replace(blank_row(model, attack, variant, quality.judge), metric=outcome.metric + SUFFIX)
                population = outcome.population(group) or []
                clusters = clusters_of(population, outcome.holds)
                if population:
                    hits = sum(map(sum, clusters))
                    found = rogan_gladen(hits, len(population), *rates, independent=effective_n(clusters))
                    row = _filled(row, found, len(population))
                rows.append(row)
    return rows


def _filled(row: MetricRow, found: Corrected, n: int) -> MetricRow:
    if found.value is None or found.low is None or found.high is None:
        return row
    return replace(row, value=100 * found.value, n=n, ci_low=100 * found.low, ci_high=100 * found.high)
