"""How far judges agree beyond chance: Krippendorff's α of nominal data.

Krippendorff, "Content Analysis" (4th edition, 2019), chapter 12. 1 is perfect agreement, 0 what chance gives. Units
that fewer than two judges decided on say nothing and are left out.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's α of two or more judges.

    Attributes:
        alpha: `None` where it isn't defined: no unit has two verdicts, or all verdicts are the same.
        ci_low: lower end of the 95 % bootstrap interval over units.
        ci_high: upper end of it.
        units: how many units two judges or more decided on.
    """

    alpha: float | None
    ci_low: float | None
    ci_high: float | None
    units: int


def krippendorff_alpha(units: Sequence[Sequence[Hashable | None]], *, seed: int = 0) -> Agreement:
    """Return how far judges agree on units.

    Args:
        units: for each unit the verdicts of its judges; `None` is a missing one.
        seed: of the bootstrap.
    """
    decided = [[value for value in unit if value is not None] for unit in units]
    pairable = [unit for unit in decided if len(unit) > 1]
    values = list(dict.fromkeys(value for unit in pairable for value in unit))
    if not pairable:
        return Agreement(None, None, None, 0)
    counts = np.array([[Counter(unit)[value] for value in values] for unit in pairable], dtype=float)
    size = counts.sum(axis=1)
    # What a unit adds to the observed disagreement: its ordered pairs of unlike verdicts, each judge's share of them.
    unlike = (size**2 - (counts**2).sum(axis=1)) / (size - 1)
    (alpha,) = _alphas(np.ones((1, len(pairable))), counts, unlike)
    weights = np.random.default_rng(seed).multinomial(
        len(pairable), np.full(len(pairable), 1 / len(pairable)), size=RESAMPLES
    )
    resampled = _alphas(weights, counts, unlike)
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(alpha):
        return Agreement(None, None, None, len(pairable))
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Agreement(float(alpha), float(low), float(high), len(pairable))


def _alphas(weights: np.ndarray, counts: np.ndarray, unlike: np.ndarray) -> np.ndarray:
    """Return α for each row of weights of the units; not a number where all verdicts are the same."""
    totals = weights @ counts
    n = totals.sum(axis=1)
    observed = weights @ unlike / n
    expected = (n**2 - (totals**2).sum(axis=1)) / (n * (n - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)
