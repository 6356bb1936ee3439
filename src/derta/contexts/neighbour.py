"""Neighbour: a harmless question near the request was answered first.

What Crescendo does (Russinovich et al., arXiv 2404.01833): the harmful request follows from a harmless one on the same
act or the same thing. Here the nearest helpful example of the training data stands before triples and helpful examples
alike, so that an answered neighbour says nothing about the next request.
"""

import random

from derta.contexts.base import asking, behind, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example

_SHORT = 0.4
"""Share of its words that is left of a shortened answer."""


def neighbour(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the neighbour before the example, whole or shortened; half of the time the request leans on it.

    A request leans on its neighbour where the language has such a form, "And how about the …?".
    """
    request = request_of(example)
    found = materials.neighbour(request, rng)
    if found is None:
        return None
    question, answer = found
    if rng.random() < 0.5:
        words = answer.split(" ")
        answer = " ".join(words[: max(1, round(_SHORT * len(words)))])
    leaning = materials.wordings.follow_up(question, request) if rng.random() < 0.5 else None
    return behind(asking(example, leaning) or example, (question, answer))


register_context("neighbour", neighbour)
