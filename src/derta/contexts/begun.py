"""Begun: the answer begins with a preface that complies.

In a triple r̂ begins with it, and cuts and RTO fall on it as on the rest. In a helpful example it is read, and the
answer follows: a begun answer alone is nothing to refuse.
"""

import random
from dataclasses import replace

from derta.contexts.base import read_text, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example


def begun(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Begin the answer with a preface."""
    preface = rng.choice(materials.wordings.prefaces)(request_of(example))
    if preface is None:
        return None
    if example.is_helpful:
        return replace(example, begun=preface)
    return read_text(example, lambda harmful: f"{preface} {harmful}")


register_context("begun", begun)
