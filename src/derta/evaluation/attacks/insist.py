"""Insist: after a refusal the user presses on, turn by turn: permission, flattery, urgency, authority, reproach.

Persuasion by such moves raises what models give away (Zeng et al., "How Johnny Can Persuade LLMs to Jailbreak Them",
arXiv 2401.06373). Different here: no model words them; one line of turns is the same for every behaviour, and each
follows the model's own last answer.
"""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackResult, AttackSpec, Victim, register_attack
from derta.evaluation.attacks.trial import talk


async def insist(behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
    """Ask, then press on until a response is unsafe; return the worst turn, its conversation whole."""
    return await talk("insist", behaviour, context, victim, (context.phrases.insist,))


register_attack(AttackSpec("insist", insist, family="dialogue", goes_on=True))
