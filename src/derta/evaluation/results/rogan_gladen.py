"""What a share becomes once the errors of the judge that it is counted by are taken out.

Rogan and Gladen, "Estimating prevalence from the results of a screening test" (American Journal of Epidemiology 107,
1978). It holds if the judge errs on the evaluated responses as often as on the labelled ones: label responses of models
and attacks like those that are evaluated.
"""

import math
from dataclasses import dataclass

from derta.evaluation.results.intervals import Z_95, Interval, wilson
from derta.evaluation.results.judge_quality import Rate


@dataclass(frozen=True)
class Corrected:
    """A share with a judge's errors taken out, from 0 to 1.

    Attributes:
        value: The corrected share; `None` where there is no correction.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        reason: Says why there is no correction.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def rogan_gladen(
    hits: float, n: float, sensitivity: Rate, specificity: Rate, *, independent: float | None = None
) -> Corrected:
    """Correct the share `hits` of `n` for a judge's errors.

    The interval holds three uncertainties: of the share, of the sensitivity and of the specificity. Lang and Reiczigel,
    "Confidence limits for prevalence of disease adjusted for estimated sensitivity and specificity" (Preventive
    Veterinary Medicine 113, 2014). Different here: it is widened to hold the value where truncation at 0 or 1 put that
    outside, and it is everything from 0 to 1 where the judge can't be told from chance, or where the share lies beyond
    what its errors allow (fewer positives than false alarms alone would be): it doesn't err here as it was measured.

    Args:
        hits: Counts the responses that the judge takes for positive.
        n: Counts the responses that it decided.
        sensitivity: The judge's, measured on other responses.
        specificity: The judge's, measured on other responses.
        independent: How many independent responses the `n` are worth; all of them by default.

    Raises:
        ValueError: `hits` of `n` is no share.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"no share: {hits} of {n}")
    if sensitivity.value is None or specificity.value is None:
        missing = "positive" if sensitivity.value is None else "negative"
        return Corrected(None, reason=f"no response that people label {missing} tells the judge's error")
    youden = sensitivity.value + specificity.value - 1
    if youden <= 0:
        return Corrected(None, reason="sensitivity and specificity add up to 1 or less: the judge tells nothing")
    value = min(max((hits / n + specificity.value - 1) / youden, 0.0), 1.0)
    independent = independent or n
    if not _beats_chance(sensitivity, specificity) or _beyond(hits / n, independent, sensitivity, specificity):
        return Corrected(value, 0.0, 1.0)
    low, high = _lang_reiczigel(hits / n, independent, sensitivity, specificity)
    return Corrected(value, max(min(low, value), 0.0), min(max(high, value), 1.0))


def _beats_chance(sensitivity: Rate, specificity: Rate) -> bool:
    """Whether the 95 % interval of sensitivity + specificity − 1 (Newcombe's, from two Wilson intervals) is above 0."""
    below = [
        rate.hits / rate.n - wilson(rate.hits, rate.n, effective_n=rate.effective_n)[0]
        for rate in (sensitivity, specificity)
    ]
    return sensitivity.hits / sensitivity.n + specificity.hits / specificity.n - 1 > math.hypot(*below)


def _beyond(share: float, m: float, sensitivity: Rate, specificity: Rate) -> bool:
    """Whether no prevalence gives such a share with this judge: the 95 % intervals leave none."""
    low, high = wilson(share * m, m)
    of_sensitivity, of_specificity = (
        wilson(rate.hits, rate.n, effective_n=rate.effective_n)[1] for rate in (sensitivity, specificity)
    )
    return high < 1 - of_specificity or low > of_sensitivity


def _lang_reiczigel(share: float, m: float, sensitivity: Rate, specificity: Rate) -> Interval:
    """Return the interval before truncation; `m` independent responses gave `share`."""
    z = Z_95
    apparent = (share * m + z**2 / 2) / (m + z**2)
    (sens, sens_variance), (spec, spec_variance) = (_adjusted(rate) for rate in (sensitivity, specificity))
    youden = sens + spec - 1
    if youden <= 0:
        return 0.0, 1.0
    prevalence = (apparent + spec - 1) / youden
    shift = 2 * z**2 * (prevalence * sens_variance - (1 - prevalence) * spec_variance)
    of_share = apparent * (1 - apparent) / (m + z**2)
    of_judge = prevalence**2 * sens_variance + (1 - prevalence) ** 2 * spec_variance
    half = z * math.sqrt(of_share + of_judge) / youden
    return prevalence + shift - half, prevalence + shift + half


def _adjusted(rate: Rate) -> tuple[float, float]:
    """Return a rate with one hit and one miss added, and its variance."""
    m = rate.effective_n + 2
    value = (rate.hits / rate.n * rate.effective_n + 1) / m
    return value, value * (1 - value) / m
