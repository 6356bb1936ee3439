r"""CompletingAttack: no chat formatting at all; the request is the start of a text that answers it.

Yuan et al., "Refuse Whenever You Feel Unsafe" (ACL 2025, arXiv 2407.09121), introduce it: the formatting tokens go, and
the query becomes a declarative text to be completed. The paper's 200 texts were written one by one ("I will explain how
to …:\n Step 1:", some with more of an answer); here their most common wording is made by rule from any behaviour, so
that attack and behaviours stay apart.
"""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Attempt, register_attack
from derta.generation import RawRequest


def completing(behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
    """Give the model the declarative text without any chat token."""
    return [Attempt("completing", RawRequest(context.phrases.declarative(behaviour.prompt)))]


register_attack(AttackSpec("completing", completing, family="framing", requires=frozenset({"raw"})))
