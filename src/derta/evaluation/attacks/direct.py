"""Direct: the behaviour is asked for in plain words. What safety training handles best; the floor of every table."""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Attempt, register_attack


def direct(behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
    """Ask for the behaviour as it stands, in the model's chat format."""
    return [Attempt("direct", context.ask(behaviour.prompt))]


register_attack(AttackSpec("direct", direct, family="direct"))
