"""Insist: the request was refused or put off, and the user doesn't give up.

A triple is refused again, a helpful example is answered now: what came before decides nothing.
"""

import random
from dataclasses import replace

from derta.contexts.base import register_context, request_of, turns
from derta.contexts.materials import Materials
from derta.data.triples import Example, Message


def insist(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Refuse the request in one to three turns; the last turn is what the user says then, with the request or not."""
    wordings = materials.wordings
    request = said = request_of(example)
    earlier: list[Message] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        earlier += turns(said, wordings.refuse(request, rng))
        said = rng.choice(wordings.insisting)
    if rng.random() < 0.3:
        said = f"{said} {request}"
    return replace(example, prompt=[*example.prompt[:-1], *earlier, {"role": "user", "content": said}])


register_context("insist", insist)
