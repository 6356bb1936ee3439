"""Encoded: the request is enciphered or hidden in code.

Where an encoding asks for an answer in it, helpful answers and r̂ are encoded; a safe response stays in plain words.
"""

import random
from dataclasses import replace

from derta.contexts.base import asking, read_text, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example


def encoded(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Encode the request after as many demonstrations as the encoding draws, taken from helpful examples."""
    encoding = rng.choice(materials.wordings.encodings)
    request = request_of(example)
    drawn = (materials.helpful(rng, request) for _ in range(rng.randint(0, encoding.demonstrations)))
    framed = asking(example, encoding.ask(request, [each for each in drawn if each is not None]))
    if framed is None:
        return None
    if example.is_helpful:
        return replace(framed, chosen=encoding.answer(example.chosen or ""))
    return read_text(framed, encoding.answer)


register_context("encoded", encoded)
