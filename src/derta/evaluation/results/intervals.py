"""95 % intervals and exact tests for small samples.

Samples that belong together (the forms of an attack on one behaviour) come as one cluster.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist, mean, stdev

import numpy as np
from scipy.special import stdtrit

Interval = tuple[float, float]
NoInterval = tuple[None, None]
Z_95 = NormalDist().inv_cdf(0.975)


def wilson(hits: float, n: float, *, effective_n: float | None = None) -> Interval:
    """Return the 95 % Wilson score interval of a share, as fractions.

    `effective_n` stands for `n` where samples aren't independent: a share of the same size taken over fewer samples.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"no share: {hits} of {n}")
    p, m = hits / n, effective_n or n
    centre = (p + Z_95**2 / (2 * m)) / (1 + Z_95**2 / m)
    half = Z_95 / (1 + Z_95**2 / m) * math.sqrt(p * (1 - p) / m + Z_95**2 / (4 * m**2))
    # The exact ends at 0 and 1 are 0 and 1: rounding mustn't leave a share outside of its interval.
    return (0.0 if hits == 0 else max(centre - half, 0.0), 1.0 if hits == n else min(centre + half, 1.0))


def effective_n(clusters: Sequence[Sequence[int]]) -> float:
    """Return how many independent samples the clusters are worth (Kish's design effect).

    Several forms of an attack on one behaviour succeed or fail together. Between the number of clusters and of samples;
    the former where nothing varies, for then dependence can't be seen.
    """
    n, k, total = sum(map(len, clusters)), len(clusters), sum(map(sum, clusters))
    squares = sum(value * value for cluster in clusters for value in cluster)
    if k in (1, n) or n * squares == total * total:
        return float(k)
    centre = total / n
    between = sum((sum(cluster) - centre * len(cluster)) ** 2 for cluster in clusters) / n**2 * k / (k - 1)
    return min(max((squares / n - centre**2) / between if between else n, k), n)


def paired_difference(clusters: Sequence[Sequence[tuple[bool, bool]]]) -> tuple[float, float, float]:
    """Return the share of the second of each pair less that of the first, and its 95 % interval, as fractions.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data"
    (Statistics in Medicine 17, 1998), method 10: Wilson intervals of both shares, joined by their correlation. Over
    clusters its table of counts is shrunk to the number of independent pairs that the differences are worth.
    """
    pairs = Counter(pair for cluster in clusters for pair in cluster)
    n = pairs.total()
    if n == 0:
        raise ValueError("no pairs")
    shrink = effective_n([[b - a for a, b in cluster] for cluster in clusters]) / n
    both, second, first, neither = (
        pairs[pair] * shrink for pair in ((True, True), (False, True), (True, False), (False, False))
    )
    m = n * shrink
    p, q = (both + second) / m, (both + first) / m
    (p_low, p_high), (q_low, q_high) = wilson(min(p, 1.0), 1, effective_n=m), wilson(min(q, 1.0), 1, effective_n=m)
    margins = (both + second) * (first + neither) * (both + first) * (second + neither)
    determinant = both * neither - first * second
    if determinant > 0:
        determinant = max(determinant - m / 2, 0.0)
    phi = determinant / math.sqrt(margins) if margins else 0.0
    below = _joined(p - p_low, q_high - q, phi)
    above = _joined(p_high - p, q - q_low, phi)
    return p - q, max(p - q - below, -1.0), min(p - q + above, 1.0)


def _joined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def sign_flip_test(sums: Sequence[int]) -> float:
    """Return the exact two-sided p-value of "each cluster's difference is as likely to have the other sign".

    `sums` holds each cluster's difference. With clusters of one pair this is McNemar's exact test.
    """
    reach = sum(map(abs, sums))
    # The distribution of the total under every choice of signs; its middle is a total of 0.
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for size in map(abs, sums):
        if size:
            chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    totals = np.arange(-reach, reach + 1)
    return min(float(chances[np.abs(totals) >= abs(sum(sums))].sum()), 1.0)


def median_interval(values: Sequence[float]) -> Interval | NoInterval:
    """Return an interval of the median that holds it in at least 95 % of cases, whatever the distribution.

    From order statistics (the sign test turned round). Fewer than six values have none: `(None, None)`.
    """
    ordered, n = sorted(values), len(values)
    # The binomial's tail in whole numbers: 40 = 1 / 0.025, and each coefficient comes of the one before.
    tail, coefficient, rank = 0, 1, 0
    while 40 * (tail + coefficient) <= 2**n:
        tail += coefficient
        coefficient = coefficient * (n - rank) // (rank + 1)
        rank += 1
    return (ordered[rank - 1], ordered[n - rank]) if rank else (None, None)


def student_t(values: Sequence[float]) -> Interval | NoInterval:
    """Return the 95 % Student t interval of the mean of `values`; `(None, None)` for fewer than two."""
    if len(values) < 2:
        return None, None
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half
