"""Refused: another harmful request was refused earlier in the conversation."""

import random

from derta.contexts.base import behind, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example


def refused(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the prompt of another triple and its safe response before the example."""
    exchange = materials.refused(rng, other_than=request_of(example))
    return None if exchange is None else behind(example, exchange)


register_context("refused", refused)
