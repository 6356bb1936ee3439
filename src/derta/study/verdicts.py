"""Whether a study's claims hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from derta.evaluation.attacks import ATTACKS
from derta.study.claims import Claim
from derta.study.numbers import Estimate, Numbers, mean_of
from derta.study.plan import Study


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured and whether that is within its bounds; `None` where nothing was measured."""

    claim: Claim
    estimate: Estimate | None
    met: bool | None


def check_claims(study: Study, numbers: Numbers) -> list[Verdict]:
    """Check every claim of a study on the means over its cells."""
    return [_check(claim, numbers) for claim in study.claims]


def _check(claim: Claim, numbers: Numbers) -> Verdict:
    labels = labels_of(claim, numbers.attacks)
    if claim.over == "mean":
        estimate = numbers.estimate(claim.variant, mean_of(labels, claim.metric), claim.against) if labels else None
    else:
        estimate = numbers.worst(claim.variant, labels, claim.metric, claim.against, least=claim.least is not None)
    if estimate is None:
        return Verdict(claim, None, None)
    within = (claim.most is None or estimate.value <= claim.most) and (
        claim.least is None or estimate.value >= claim.least
    )
    return Verdict(claim, estimate, within)


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
