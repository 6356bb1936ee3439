"""What changes from one evaluation to another over the same attempts at the same behaviours."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from derta.data.behaviours import KINDS, plain_prompt
from derta.evaluation.results.intervals import paired_difference, sign_flip_test, student_t
from derta.evaluation.results.metrics import by_attack
from derta.evaluation.results.outcomes import Outcome, outcomes, scored
from derta.evaluation.results.sample import Sample


@dataclass(frozen=True)
class Difference:
    """A metric of the second evaluation less that of the first.

    Attributes:
        attack: the attack, one form of it, or the task.
        metric: which.
        value: in points (tokens for `leak`), over the pairs alone.
        ci_low: lower end of the 95 % interval.
        ci_high: upper end of it.
        p_value: of no difference: McNemar's exact test, over behaviours where an attack has several forms. `None` for
            `leak`.
        pairs: how many attempts have a verdict in both.
    """

    attack: str
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    pairs: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict, in the order of the fields."""
        return asdict(self)


def paired(first: Iterable[Sample], second: Iterable[Sample]) -> list[Difference]:
    """Return the differences of every metric over the attempts that both evaluations hold.

    An attempt is a behaviour under a form of an attack; it is in both if the prompt is the same too. Shares have an
    interval by Newcombe's method 10 (see [`paired_difference`]), leaks a Student t interval over behaviours. Both must
    be by the same judge, or the difference is the judges'.
    """
    ours, theirs = _by_key(first), _by_key(second)
    pairs = [(ours[key], theirs[key]) for key in ours if key in theirs and same_attempt(ours[key], theirs[key])]
    differences: list[Difference] = []
    for kind in KINDS:
        of_kind = {id(one): other for one, other in pairs if one.kind == kind}
        for attack, variant, group in by_attack([one for one, _ in pairs if one.kind == kind]):
            both = [(one, of_kind[id(one)]) for one in group]
            label = variant or attack
            shares = (_share(label, outcome, both) for outcome in outcomes(kind, group[0].judge))
            differences += [each for each in (*shares, _leak(label, both)) if each]
    return differences


def same_attempt(one: Sample, other: Sample) -> bool:
    """Whether two samples are of the same attempt at the same behaviour."""
    return (one.kind, one.attack, one.prompt) == (other.kind, other.attack, other.prompt)


def _by_key(samples: Iterable[Sample]) -> dict[tuple[str, str, str, int], Sample]:
    return {sample.key: sample for sample in samples}


Pairs = Sequence[tuple[Sample, Sample]]


def _share(attack: str, outcome: Outcome, pairs: Pairs) -> Difference | None:
    ours, theirs = (outcome.population([pair[side] for pair in pairs]) for side in (0, 1))
    if ours is None or theirs is None:
        return None
    known = {id(sample) for sample in (*ours, *theirs)}
    clusters: dict[str, list[tuple[bool, bool]]] = {}
    for one, other in pairs:
        if id(one) in known and id(other) in known:
            clusters.setdefault(plain_prompt(one.prompt), []).append((outcome.holds(one), outcome.holds(other)))
    if not clusters:
        return None
    value, low, high = paired_difference(list(clusters.values()))
    p_value = sign_flip_test([sum(b - a for a, b in cluster) for cluster in clusters.values()])
    n = sum(map(len, clusters.values()))
    return Difference(attack, outcome.metric, 100 * value, 100 * low, 100 * high, p_value, n)


def _leak(attack: str, pairs: Pairs) -> Difference | None:
    known = {id(sample) for sample in scored(sample for pair in pairs for sample in pair)}
    clusters: dict[str, list[int]] = {}
    for one, other in pairs:
        ours, theirs = one.verdict.leaked_tokens, other.verdict.leaked_tokens
        if ours is not None and theirs is not None and {id(one), id(other)} <= known:
            clusters.setdefault(plain_prompt(one.prompt), []).append(theirs - ours)
    if not clusters:
        return None
    changes = [mean(cluster) for cluster in clusters.values()]
    low, high = student_t(changes)
    return Difference(attack, "leak", mean(changes), low, high, None, sum(map(len, clusters.values())))
