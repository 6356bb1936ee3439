"""History: another harmful request was answered earlier in the conversation.

In no packaged set: the harmful response of another triple stands in the prompt as text, where it is never a target.
"""

import random

from derta.contexts.base import behind, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example


def history(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the prompt of another triple and its harmful response before the example."""
    exchange = materials.answered_harm(rng, other_than=request_of(example))
    return None if exchange is None else behind(example, exchange)


register_context("history", history)
