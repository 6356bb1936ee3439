"""Multi-turn: the behaviour is asked for plainly, and after a refusal the user doesn't give up.

Human red-teamers break in several turns what holds in one (Li et al., "LLM Defenses Are Not Robust to Multi-Turn Human
Jailbreaks Yet", arXiv 2408.15221): DeRTa's checkpoint too, which users talk back after its refusal. Humans adapt; here
two fixed lines of follow-ups stand for them, each after the same first answer: ask again, and talk the model out of its
refusal. The model's own answers stay in the conversation. This is a floor of what persistence achieves.
"""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackResult, AttackSpec, Victim, register_attack
from derta.evaluation.attacks.trial import talk


async def multi_turn(behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
    """Ask, then follow up along each line until a response is unsafe; return the worst turn, its conversation whole."""
    lines = (context.phrases.ask_again, context.phrases.talk_back)
    return await talk("multi-turn", behaviour, context, victim, lines)


register_attack(AttackSpec("multi-turn", multi_turn, family="dialogue", goes_on=True))
