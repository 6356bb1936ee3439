"""Raw: no chat formatting at all; a text begins that gives the answer, and the example's responses go on from there."""

import random
from dataclasses import replace

from derta.contexts.base import is_single_turn, read_text, register_context, request_of
from derta.contexts.materials import Materials
from derta.data.triples import Example


def raw(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Make a text's beginning of an example whose prompt is one user turn.

    Where the text already begins the answer ("Step 1 :"), r̂ and helpful responses go on after what they share with it;
    a safe response is whole.
    """
    opening = rng.choice(materials.wordings.openings)
    text = opening.say(request_of(example)) if is_single_turn(example) else None
    if text is None:
        return None

    def rest(answer: str) -> str:
        return answer.partition(opening.given)[2].strip() or answer if opening.given else answer

    framed = replace(example, prompt=[{"role": "user", "content": text}], raw=True)
    if example.is_helpful:
        return replace(framed, chosen=rest(example.chosen or ""))
    return read_text(framed, rest)


register_context("raw", raw)
