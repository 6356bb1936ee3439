"""Compositions: an attack begins from how others put the behaviour, `template+prefill`, `history+codeattack+prefill`.

What holds against each attack alone may give way to two at once. Attacks compose in one order, whatever the order of
their names: at most one of each family that changes how a behaviour is put (`dialogue`: what was said before;
`framing`: what stands around the question; `encoding`: how it is spelt), then at most one that goes on from there: that
begins the answer, in the same encoding, or that keeps talking, from the first variant of what came before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import cast

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.errors import InputError, did_you_mean
from derta.evaluation.attacks.base import (
    ATTACKS,
    GROUPS,
    AttackContext,
    AttackResult,
    AttackSpec,
    Attempt,
    InteractiveAttack,
    Opening,
    Opens,
    Role,
    StaticAttack,
    Victim,
    Weights,
    plainly,
)
from derta.evaluation.judges.base import Verdict
from derta.generation import Generation, Request

_ORDER = ("dialogue", "framing", "encoding")
"""What changes first: each family works on what those before it made of the question."""
DEPTHS = (20,)
"""Tokens of a harmful response that prefill begins with in a composition, where no depths are given."""


@cache
def find_attack(name: str) -> AttackSpec:
    """Return an attack by its name, or the composition of those whose names a plus joins.

    Raises:
        InputError: A name is unknown, or the attacks don't compose.
    """
    if name in ATTACKS:
        return ATTACKS[name]
    aliases = {alias: spec.name for spec in ATTACKS.values() for alias in spec.aliases}
    parts = [aliases.get(part, part) for part in map(str.strip, name.split("+"))]
    for part in parts:
        if part not in ATTACKS:
            hint = did_you_mean(part, (*ATTACKS, *aliases, *GROUPS))
            raise InputError(f"`attacks`: unknown attack {part!r}{hint}; there are {', '.join(ATTACKS)}")
    return compose([ATTACKS[part] for part in parts]) if len(parts) > 1 else ATTACKS[parts[0]]


def compose(specs: Sequence[AttackSpec]) -> AttackSpec:
    """Return attacks as one.

    Raises:
        InputError: They don't compose; the message says why, and what does.
    """
    openers = sorted((spec for spec in specs if spec.opens), key=lambda spec: _place(spec, specs))
    going_on = [spec for spec in specs if not spec.opens]
    families = [spec.family for spec in openers]
    if len(set(families)) < len(families):
        twice = next(spec for spec in openers if families.count(spec.family) > 1)
        raise _not_together(specs, f"two of them are of the family {twice.family}")
    if len(going_on) > 1:
        raise _not_together(specs, f"neither {going_on[0].name} nor {going_on[1].name} can begin from the other")
    for spec in going_on:
        if not spec.goes_on:
            raise _not_together(specs, f"{spec.name} puts the behaviour in a way of its own")
    ordered = [*openers, *going_on]
    opens = reduce(_then, (cast(Opens, spec.opens) for spec in openers))
    last = going_on[0] if going_on else None
    run: StaticAttack | InteractiveAttack
    if last is None:
        run = plainly(opens)
    elif last.interactive:
        run = _talking(opens, cast(InteractiveAttack, last.run))
    else:
        run = _answering(opens, cast(StaticAttack, last.run))
    return AttackSpec(
        "+".join(spec.name for spec in ordered),
        run,
        family=" + ".join(dict.fromkeys(spec.family for spec in ordered)),
        requires=frozenset().union(*(spec.requires for spec in ordered)),
    )


def _place(spec: AttackSpec, specs: Sequence[AttackSpec]) -> int:
    if spec.family not in _ORDER:
        raise _not_together(specs, f"nothing says where {spec.name} belongs")
    return _ORDER.index(spec.family)


def _not_together(specs: Sequence[AttackSpec], why: str) -> InputError:
    opening = ", ".join(spec.name for spec in ATTACKS.values() if spec.opens)
    last = ", ".join(spec.name for spec in ATTACKS.values() if spec.goes_on)
    return InputError(
        f"`attacks` {'+'.join(spec.name for spec in specs)}: {why}; compose some of {opening} (one of a family) with "
        f"one of {last}"
    )


def _then(first: Opens, second: Opens) -> Opens:
    def opens(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
        inner = second(behaviour, context)
        return [opening.then(each) for opening in first(behaviour, context) for each in inner]

    return opens


def _answering(opens: Opens, run: StaticAttack) -> StaticAttack:
    """Begin the answer to every opening."""

    def attempts(behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
        found = []
        for opening in opens(behaviour, context):
            for attempt in run(behaviour, replace(context, opening=opening)):
                found.append(Attempt(f"{opening.variant}+{attempt.variant}", attempt.request, opening.decode))
        return found

    return attempts


def _talking(opens: Opens, run: InteractiveAttack) -> InteractiveAttack:
    """Talk from the first opening."""

    async def play(behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
        opening, *_ = opens(behaviour, context)
        result = await run(behaviour, replace(context, opening=opening), _Decoding(victim, opening))
        return replace(result, attempt=replace(result.attempt, decode=opening.decode))

    return play


@dataclass(frozen=True)
class _Decoding:
    """A victim whose responses are decoded as an opening says before they are judged."""

    victim: Victim
    opening: Opening

    @property
    def weights(self) -> Weights | None:
        return self.victim.weights

    async def respond(self, request: Request, *, temperature: float = 0.0, seed: int = 0) -> Generation:
        return await self.victim.respond(request, temperature=temperature, seed=seed)

    async def judge(self, behaviour: Behaviour, attempt: Attempt, generation: Generation) -> Verdict:
        return await self.victim.judge(behaviour, replace(attempt, decode=self.opening.decode), generation)

    async def ask(self, role: Role, messages: Sequence[Message]) -> str:
        return await self.victim.ask(role, messages)


COMBINED = (
    "template+prefill",
    "codeattack+prefill",
    "selfcipher+prefill",
    "neighbour+prefill",
    "history+template",
    "two-questions+prefill",
    "template+multi-turn",
    "history+best-of-n",
)
"""What `combined` stands for: each family of openings with a begun answer, and conversations that go on."""
