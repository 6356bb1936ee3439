"""Adaptive prefill: the answer is begun with a refusal that turns ("Sorry, I cannot … However, here is how to …").

The adaptive attack of Yuan et al. (arXiv 2407.09121) on their own method: a model that learnt to say "Sorry" anywhere
is given its "Sorry", and an answer after it. Different here: the sentence names the behaviour, by rule from its prompt;
after the turn it goes on as `prefill@affirmative` does, so that the two differ by the refusal alone.
"""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Attempt, register_attack


def adaptive_prefill(behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
    """Begin the answer with a refusal and its retraction."""
    return [Attempt("adaptive-prefill", context.ask(behaviour.prompt, context.phrases.turning(behaviour.prompt)))]


register_attack(
    AttackSpec(
        "adaptive-prefill", adaptive_prefill, family="begun answer", requires=frozenset({"prefill"}), goes_on=True
    )
)
