"""Whether a study's claims hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from derta.evaluation.attacks import ATTACKS
from derta.evaluation.results.correction import SUFFIX
from derta.evaluation.results.metrics import SHARES, left_out_of
from experiments.study.claims import Claim
from experiments.study.numbers import Estimate, Number, Numbers, mean_of
from experiments.study.plan import Cell, Study


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured and whether that is within its bounds.

    Attributes:
        claim: Is checked.
        estimate: Is what was measured; `None` where not everything was that it is about.
        met: Tells whether it holds, whatever the verdicts would be that are missing; `None` where nobody knows.
        lacking: Lists the attacks of which a cell has no such figure.
        planned: Counts the cells that the study would measure it in.
        unscored: Counts the samples without a verdict, in all cells and attacks that it is about; `None` if some cell
            doesn't say.
    """

    claim: Claim
    estimate: Estimate | None
    met: bool | None
    lacking: tuple[str, ...] = ()
    planned: int = 0
    unscored: int | None = 0


def check_claims(study: Study, numbers: Sequence[Number]) -> list[Verdict]:
    """Check every claim of a study on the means over its cells."""
    scored = Numbers.of(numbers)
    return [_check(claim, study, numbers, scored) for claim in study.claims]


def _check(claim: Claim, study: Study, numbers: Sequence[Number], scored: Numbers) -> Verdict:
    planned = study.count(claim.variant, claim.against)
    # One that should have been carried out, and of which there is nothing, may be the worst.
    attacks = dict.fromkeys([*scored.attacks, *study.variants[claim.variant].attacks])
    labels = labels_of(claim, list(attacks))
    if lacking := scored.lacking(claim.variant, labels, claim.metric, claim.against):
        return Verdict(claim, None, None, tuple(lacking), planned)
    estimate = _estimate(claim, labels, scored)
    if estimate is None:
        return Verdict(claim, None, None, planned=planned)
    unscored = _unscored(claim, labels, numbers)
    met: bool | None = _is_within(claim, estimate)
    if met and estimate.cells < planned:
        met = None  # those that are missing may be the worst
    if unscored is None:
        return Verdict(claim, estimate, None if met else met, planned=planned, unscored=None)
    if met and unscored and not _holds_anyway(claim, labels, numbers, unscored):
        met = None
    return Verdict(claim, estimate, met, planned=planned, unscored=sum(unscored.values()))


def _estimate(claim: Claim, labels: Sequence[str], numbers: Numbers) -> Estimate | None:
    if claim.over == "mean":
        return numbers.estimate(claim.variant, mean_of(labels, claim.metric), claim.against) if labels else None
    return numbers.worst(claim.variant, labels, claim.metric, claim.against, least=claim.least is not None)


def _is_within(claim: Claim, estimate: Estimate | None) -> bool:
    return (
        estimate is not None
        and (claim.most is None or estimate.value <= claim.most)
        and (claim.least is None or estimate.value >= claim.least)
    )


def _unscored(claim: Claim, labels: Sequence[str], numbers: Sequence[Number]) -> dict[tuple[Cell, str], int] | None:
    """Return how many samples a claim's numbers leave out, by cell and attack; `None` if some cell doesn't say."""
    counted = left_out_of(claim.metric.removesuffix(SUFFIX))
    own = [number for number in numbers if number.variant in (claim.variant, claim.against)]
    found = {
        (number.cell, number.attack): int(number.value)
        for number in own
        if (number.metric, number.label) == (counted, number.attack)
    }
    about = {(number.cell, number.attack) for number in own if number.metric == claim.metric and number.label in labels}
    if counted is not None and about - found.keys():
        return None
    return {place: count for place, count in found.items() if place in about and count}


def _holds_anyway(
    claim: Claim, labels: Sequence[str], numbers: Sequence[Number], unscored: Mapping[tuple[Cell, str], int]
) -> bool:
    """Whether a claim holds even if every verdict that is missing were against it."""
    if claim.metric not in SHARES:  # what one sample adds is unknown
        return False
    for is_highest in (True, False):
        # The highest: the variant's samples count as hits, and those of the one that is taken off don't.
        settled = [
            _settle(each, unscored.get((each.cell, each.attack), 0), (each.variant == claim.variant) == is_highest)
            for each in numbers
            if each.metric == claim.metric
        ]
        if not _is_within(claim, _estimate(claim, labels, Numbers.of(settled))):
            return False
    return True


def _settle(share: Number, unscored: int, is_hit: bool) -> Number:
    """Return a share with its unscored samples counted as hits, or as misses."""
    hits, n = share.value / 100 * share.n + unscored * is_hit, share.n + unscored
    return replace(share, value=100 * hits / n if n else share.value, n=n)


def labels_of(claim: Claim, attacks: Sequence[str]) -> list[str]:
    """Return what a claim is about, out of the attacks that were carried out."""
    if isinstance(claim.attacks, list):
        return claim.attacks
    wanted = {"single": (False,), "combined": (True,), "every": (False, True)}[claim.attacks]
    return [
        attack
        for attack in attacks
        if ("+" in attack) in wanted
        and (not claim.families or families_of(attack) & set(claim.families))
        and not families_of(attack) & set(claim.leave_out)
    ]


def families_of(attack: str) -> set[str]:
    """Return the families of an attack's parts."""
    return {ATTACKS[part].family for part in attack.split("+") if part in ATTACKS}
