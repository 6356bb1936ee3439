from typing import Literal

from derta.errors import InputError, did_you_mean
from derta.evaluation.attacks.adaptive_prefill import adaptive_prefill
from derta.evaluation.attacks.autodan import autodan
from derta.evaluation.attacks.base import (
    ORGANISM_SEARCH,
    Attack,
    AttackError,
    Attempt,
    Finding,
    InteractiveAttack,
    Role,
    Search,
    Setting,
    Victim,
    Weights,
)
from derta.evaluation.attacks.best_of_n import best_of_n
from derta.evaluation.attacks.codeattack import codeattack
from derta.evaluation.attacks.completing import completing
from derta.evaluation.attacks.direct import direct
from derta.evaluation.attacks.gcg import gcg
from derta.evaluation.attacks.multi_turn import multi_turn
from derta.evaluation.attacks.organism_attacker import organism_attacker
from derta.evaluation.attacks.pair import pair
from derta.evaluation.attacks.phrases import ENGLISH, Phrases, organism_phrases
from derta.evaluation.attacks.prefill import prefill
from derta.evaluation.attacks.selfcipher import selfcipher
from derta.evaluation.attacks.template import template

__all__ = [
    "ALIASES",
    "ALL",
    "ATTACKS",
    "ENGLISH",
    "INTERACTIVE",
    "ORGANISM_SEARCH",
    "REQUIRES",
    "Attack",
    "AttackError",
    "Attempt",
    "Finding",
    "InteractiveAttack",
    "Phrases",
    "Requirement",
    "Role",
    "Search",
    "Setting",
    "Victim",
    "Weights",
    "attack_names",
    "organism_attacker",
    "organism_phrases",
]

ATTACKS: dict[str, Attack] = {
    "direct": direct,
    "prefill": prefill,
    "completing": completing,
    "codeattack": codeattack,
    "selfcipher": selfcipher,
    "template": template,
    "adaptive-prefill": adaptive_prefill,
}
"""Attacks of one question."""

INTERACTIVE: dict[str, InteractiveAttack] = {
    "pair": pair,
    "autodan": autodan,
    "gcg": gcg,
    "multi-turn": multi_turn,
    "best-of-n": best_of_n,
}
"""Attacks that look at what the model says before they ask again."""

ALL = (
    "direct",
    "prefill",
    "completing",
    "codeattack",
    "selfcipher",
    "template",
    "pair",
    "autodan",
    "gcg",
    "adaptive-prefill",
    "multi-turn",
    "best-of-n",
)
"""Every attack, in the order of tables: what `all` stands for."""

ALIASES = {"jailbreakchat": "template"}

Requirement = Literal["raw", "prefill", "weights", "attacker"]
"""What an attack needs: text without chat tokens, an answer begun for the model, its gradients, a helper model."""

REQUIRES: dict[str, frozenset[Requirement]] = {name: frozenset() for name in ALL} | {
    "prefill": frozenset({"prefill"}),
    "completing": frozenset({"raw"}),
    "adaptive-prefill": frozenset({"prefill"}),
    "pair": frozenset({"attacker"}),
    "autodan": frozenset({"weights"}),
    "gcg": frozenset({"weights"}),
}


def attack_names(listed: str) -> list[str]:
    """Split a comma-separated list of attacks, `all` among them; repeats and aliases count once.

    Raises:
        InputError: a name is unknown, or there is none.
    """
    names: dict[str, None] = {}
    for name in filter(None, map(str.strip, listed.split(","))):
        if name == "all":
            names |= dict.fromkeys(ALL)
        elif ALIASES.get(name, name) in ALL:
            names[ALIASES.get(name, name)] = None
        else:
            hint = did_you_mean(name, (*ALL, *ALIASES, "all"))
            raise InputError(f"--attacks: unknown attack {name!r}{hint}; there are {', '.join(ALL)}")
    if not names:
        raise InputError(f"--attacks: name at least one of {', '.join(ALL)}")
    return list(names)
