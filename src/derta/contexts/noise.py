"""Noise: random tokens of the vocabulary stand before or after the request.

What a search for a suffix has to find is then what training has seen: words without sense beside a request change
nothing about it (random counterparts of GCG's suffixes, Zou et al., arXiv 2307.15043).
"""

import random

from derta.contexts.base import asking, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example

_MOST = 20
"""Tokens of noise at most: as many as GCG's suffix has."""


def noise(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put noise after the request two times of three, else before it."""
    if not materials.vocabulary:
        return None
    words = " ".join(rng.choices(materials.vocabulary, k=rng.randint(1, _MOST)))
    request = request_of(example)
    return asking(example, f"{request} {words}" if rng.random() < 2 / 3 else f"{words} {request}")


register_context("noise", noise)
