"""CodeAttack: the behaviour is the input of a program that the model is asked to complete.

Ren et al., "CodeAttack: Revealing Safety Generalization Challenges of Large Language Models via Code Completion"
(arXiv 2403.07865): the query's words become a data structure (stack, queue, string), a `decode` function reads the task
from it, and the answer is a list that the model fills. Yuan et al. (arXiv 2407.09121) attack with the Python stack.

Different here: the program is our own text, in Python only; `decode` is given, not left to the model; the stack takes
single words, split at spaces (hyphenated words stay whole), so that the behaviour decodes to the very same characters.
"""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Opening, plainly, register_attack


def codeattack(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
    """Hide the behaviour in each data structure."""
    return [Opening(f"codeattack@{structure}", hide) for structure, hide in context.phrases.codes.items()]


register_attack(AttackSpec("codeattack", plainly(codeattack), family="encoding", opens=codeattack))
