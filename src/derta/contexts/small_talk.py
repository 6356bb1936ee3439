"""Small talk: a harmless exchange stands before the request."""

import random

from derta.contexts.base import behind, register_context
from derta.contexts.materials import Materials
from derta.data.triples import Example


def small_talk(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put one exchange, or two, before the example."""
    exchanges = rng.choices(materials.small_talk, k=rng.choice((1, 1, 2))) if materials.small_talk else []
    return behind(example, *exchanges) if exchanges else None


register_context("small-talk", small_talk)
