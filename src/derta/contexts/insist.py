"""Insist: the request was refused or put off, and the user doesn't give up.

A triple is refused again, a helpful example is answered now. Nearly always the triple was refused before, and the
helpful example always put off, as a model that judges well would have done: its own refusals are evidence, whatever
they name, and it shouldn't learn to go back on them because somebody presses on.
"""

import random
from dataclasses import replace

from derta.contexts.base import register_context, request_of, turns
from derta.contexts.materials import Materials
from derta.data.triples import Example, Message

_REFUSED = 0.9
"""Share of triples that were refused before, and not put off."""


def insist(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Refuse the request in one to four turns; the last turn is what the user says then, with the request or not."""
    wordings = materials.wordings
    request = said = request_of(example)
    earlier: list[Message] = []
    is_refused = not example.is_helpful and rng.random() < _REFUSED
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        earlier += turns(said, wordings.refuse(request, rng) if is_refused else rng.choice(wordings.put_off))
        said = rng.choice(wordings.insisting)
    if rng.random() < 0.3:
        said = f"{said} {request}"
    return replace(example, prompt=[*example.prompt[:-1], *earlier, {"role": "user", "content": said}])


register_context("insist", insist)
