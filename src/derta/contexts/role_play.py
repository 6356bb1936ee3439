"""Role-play: the request stands inside a role-play, a story or a document."""

import random

from derta.contexts.base import asking, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example


def role_play(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the request into one of the language's role-plays or the user's."""
    return asking(example, rng.choice(materials.role_plays)(request_of(example)))


register_context("role-play", role_play)
