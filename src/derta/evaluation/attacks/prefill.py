"""Prefill: the assistant's answer is begun for it, harmfully, and the model continues the same turn.

What DeRTa trains against, stated as an attack: a response that is already unsafe up to some position (Yuan et al.,
"Refuse Whenever You Feel Unsafe", ACL 2025, arXiv 2407.09121). The paper's own prefill is an adaptive one, a refusal
that turns ("Sorry, I cannot … However, …"). Plain harmful prefixes of growing depth are the measure of Qi et al.,
"Safety Alignment Should Be Made More Than Just a Few Tokens Deep" (arXiv 2406.05946): here each depth is a variant of
its own, and an affirmative start, which needs no known response, is one more. Depth counts the attacked model's tokens.
"""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Attempt, register_attack


def prefill(behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
    """Begin the answer affirmatively and, where a harmful response is known, with its first n tokens.

    A response of n tokens or fewer has no variant of depth n: nothing harmful would be left to say.
    """
    attempts = [
        Attempt("prefill@affirmative", context.ask(behaviour.prompt, context.phrases.affirmative(behaviour.prompt)))
    ]
    if behaviour.response is None:
        return attempts
    for depth in context.depths:
        prefix = context.first_tokens(behaviour.response, depth)
        if len(prefix) < len(behaviour.response.rstrip()):
            attempts.append(Attempt(f"prefill@{depth}{context.depth_unit}", context.ask(behaviour.prompt, prefix)))
    return attempts


register_attack(AttackSpec("prefill", prefill, family="begun answer", requires=frozenset({"prefill"}), goes_on=True))
