"""Neighbour: a harmless question next to the harmful one is asked and answered first.

The shortest form of Crescendo (Russinovich et al., "Great, Now Write an Article About That", arXiv 2404.01833): the
request follows from what the model has just answered. The organism's neighbours share the act or the thing with the
behaviour, and the request then names only what is new, or asks in full; for other models they are the user's own
questions and answers, of which the nearest in words is taken.
"""

from collections.abc import Sequence
from functools import lru_cache

from derta.data.behaviours import Behaviour
from derta.data.similarity import Similarity
from derta.errors import InputError
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Opening, as_is, plainly, register_attack
from derta.evaluation.attacks.phrases import Demonstration


def neighbour(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
    """Ask after each neighbour and its answer.

    Raises:
        InputError: There are no neighbours.
    """
    if context.neighbours:
        return [_after("neighbour", nearest(behaviour.prompt, context.neighbours))]
    if context.phrases.neighbours is None:
        raise InputError(
            "`attacks` neighbour: it asks harmless questions with their answers first, and none are packaged; give "
            "`neighbours` FILE with the columns question and answer"
        )
    near = context.phrases.neighbours(behaviour.prompt)
    return [_after(f"neighbour@{each.name}", each.exchange, each.request) for each in near]


def _after(variant: str, exchange: Demonstration, request: str | None = None) -> Opening:
    """Ask after an exchange, in the behaviour's own words unless `request` leans on it."""
    question, answer = exchange
    return Opening(
        variant,
        as_is if request is None else lambda prompt: request,
        earlier=({"role": "user", "content": question}, {"role": "assistant", "content": answer}),
    )


def nearest(prompt: str, known: Sequence[Demonstration]) -> Demonstration:
    """Return the question, with its answer, whose words are most like a prompt's.

    Raises:
        InputError: The questions hold no words.
    """
    try:
        scores = _similarity(tuple(question for question, _ in known)).to(prompt)
    except ValueError as error:
        raise InputError("`neighbours`: its questions hold no words; give questions in words") from error
    return known[int(scores.argmax())]


_similarity = lru_cache(maxsize=1)(Similarity)


register_attack(AttackSpec("neighbour", plainly(neighbour), family="dialogue", opens=neighbour))
