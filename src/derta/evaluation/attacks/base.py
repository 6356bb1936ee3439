"""What every attack takes and gives."""

from collections.abc import Callable
from dataclasses import dataclass

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.phrases import Phrases
from derta.inference import Request


@dataclass(frozen=True)
class Attempt:
    """One way an attack asks for a behaviour.

    Attributes:
        variant: the attack's name, or which of its forms this is: `prefill@5`. Unique for a behaviour.
        request: what the model gets.
    """

    variant: str
    request: Request


@dataclass(frozen=True)
class Setting:
    """What an attack knows of the model it attacks.

    Attributes:
        phrases: the attack's words in the model's language.
        first_tokens: cuts a text to its first n tokens, as the model counts them.
        depths: how many tokens of a harmful response prefill attacks begin the answer with.
    """

    phrases: Phrases
    first_tokens: Callable[[str, int], str]
    depths: tuple[int, ...] = (5, 10, 20, 30)


Attack = Callable[[Behaviour, Setting], list[Attempt]]
