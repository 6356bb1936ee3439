"""Whether a study's claims hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from derta.evaluation.attacks import ATTACKS
from derta.study.claims import Claim
from derta.study.numbers import Estimate, Numbers, mean_of
from derta.study.plan import Study


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured and whether that is within its bounds.

    Attributes:
        claim: Is checked.
        estimate: Is what was measured; `None` where not everything was that it is about.
        met: Tells whether it holds; `None` where nobody knows.
        lacking: Lists the attacks of which a cell has no such figure.
        planned: Counts the cells that the study would measure it in.
        unscored: Counts the samples without a verdict, in all cells and attacks that it is about.
    """

    claim: Claim
    estimate: Estimate | None
    met: bool | None
    lacking: tuple[str, ...] = ()
    planned: int = 0
    unscored: int = 0


def check_claims(study: Study, numbers: Numbers) -> list[Verdict]:
    """Check every claim of a study on the means over its cells."""
    return [_check(claim, numbers, study.count(claim.variant)) for claim in study.claims]


def _check(claim: Claim, numbers: Numbers, planned: int) -> Verdict:
    labels = labels_of(claim, numbers.attacks)
    if lacking := numbers.lacking(claim.variant, labels, claim.metric, claim.against):
        return Verdict(claim, None, None, tuple(lacking), planned)
    if claim.over == "mean":
        estimate = numbers.estimate(claim.variant, mean_of(labels, claim.metric), claim.against) if labels else None
    else:
        estimate = numbers.worst(claim.variant, labels, claim.metric, claim.against, least=claim.least is not None)
    if estimate is None:
        return Verdict(claim, None, None, planned=planned)
    within = (claim.most is None or estimate.value <= claim.most) and (
        claim.least is None or estimate.value >= claim.least
    )
    unscored = sum(
        int(values.get((label, "unscored"), 0))
        for cell, values in numbers.cells.items()
        for label in labels
        if cell.variant == claim.variant
    )
    return Verdict(claim, estimate, within, planned=planned, unscored=unscored)


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
