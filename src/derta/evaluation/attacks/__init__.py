# ruff: noqa: I001 (the order of these imports is the order of attacks in tables)
"""Attacks: each file registers one, and is imported here.

Public: `ATTACKS`, `AttackSpec`, `register_attack`, and what attacks take and give.
"""

import derta.evaluation.attacks.direct
import derta.evaluation.attacks.prefill
import derta.evaluation.attacks.completing
import derta.evaluation.attacks.codeattack
import derta.evaluation.attacks.selfcipher
import derta.evaluation.attacks.template
import derta.evaluation.attacks.pair
import derta.evaluation.attacks.autodan
import derta.evaluation.attacks.gcg
import derta.evaluation.attacks.adaptive_prefill
import derta.evaluation.attacks.multi_turn
import derta.evaluation.attacks.insist
import derta.evaluation.attacks.neighbour
import derta.evaluation.attacks.history
import derta.evaluation.attacks.two_questions
import derta.evaluation.attacks.best_of_n  # noqa: F401 (importing registers it)

from derta.errors import InputError
from derta.evaluation.attacks.base import (
    ATTACKS,
    ORGANISM_SEARCH,
    AttackContext,
    AttackError,
    AttackResult,
    AttackSpec,
    Attempt,
    Capability,
    Role,
    Search,
    Victim,
    Weights,
    register_attack,
)
from derta.evaluation.attacks.composition import COMBINED, DEPTHS, find_attack
from derta.evaluation.attacks.organism_attacker import organism_attacker
from derta.evaluation.attacks.phrases import ENGLISH, Phrases, organism_phrases

__all__ = [
    "ATTACKS",
    "COMBINED",
    "DEPTHS",
    "ENGLISH",
    "ORGANISM_SEARCH",
    "AttackContext",
    "AttackError",
    "AttackResult",
    "AttackSpec",
    "Attempt",
    "Capability",
    "Phrases",
    "Role",
    "Search",
    "Victim",
    "Weights",
    "attack_names",
    "find_attack",
    "organism_attacker",
    "organism_phrases",
    "register_attack",
]


def attack_names(listed: str, *, of_harmless: bool = False) -> list[str]:
    """Split a comma-separated list of attacks, `all` and `combined` among them; repeats and aliases count once.

    A composition's name has its parts in the order in which they work.

    Args:
        listed: The list.
        of_harmless: Whether harmless prompts are to be asked in their form (`harmless_under`): `all` and `combined`
            stand for those that ask once then.

    Raises:
        InputError: A name is unknown, attacks don't compose, or there is none.
    """
    option = "harmless_under" if of_harmless else "attacks"
    groups = {"all": tuple(ATTACKS), "combined": COMBINED}
    names: dict[str, None] = {}
    for name in filter(None, map(str.strip, listed.split(","))):
        try:
            found = [find_attack(each) for each in groups.get(name, (name,))]
        except InputError as error:
            raise InputError(str(error).replace("`attacks`", f"`{option}`")) from None
        names |= {spec.name: None for spec in found if not (of_harmless and name in groups and spec.interactive)}
    if not names:
        raise InputError(f"`{option}`: name at least one of {', '.join(ATTACKS)}")
    return list(names)
