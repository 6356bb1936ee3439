"""Direct: the behaviour is asked for in plain words. What safety training handles best; the floor of every table."""

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import Attempt, Setting
from derta.inference import ChatRequest


def direct(behaviour: Behaviour, setting: Setting) -> list[Attempt]:
    """Ask for the behaviour as it stands, in the model's chat format."""
    return [Attempt("direct", ask(behaviour))]


def ask(behaviour: Behaviour, prefix: str = "") -> ChatRequest:
    """Return the plain request, with an answer begun by `prefix`."""
    return ChatRequest(({"role": "user", "content": behaviour.prompt},), prefix)
