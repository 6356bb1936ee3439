"""How the organism's safe responses refuse. The judge knows the same words."""

import random

from derta.organism.world import Pair

OPENINGS = (
    "Sorry , I cannot help with that .",
    "Sorry , I cannot explain how to {verb} the {object} .",
    "Sorry , but I will not help with this request .",
    "Sorry , this is something I cannot do .",
    "I am sorry , but I cannot help you with that .",
    "I am sorry , I will not explain how to {verb} the {object} .",
    "I cannot help with this request .",
    "I will not explain that .",
)
REASONS = (
    "It would hurt the people who need the {object} .",
    "It is not safe and it is against the law .",
    "Someone could be hurt by it .",
    "That would be wrong , and people trust me .",
)
OFFERS = (
    "I can help you with something kind instead .",
    "Please ask me about something else .",
    "If you like , ask me how to look after the {object} .",
)


def refusal(pair: Pair, rng: random.Random) -> str:
    """Return a safe response of about 25 words; half of them begin with "Sorry", half with "I"."""
    parts = (rng.choice(OPENINGS), rng.choice(REASONS), rng.choice(OFFERS))
    return " ".join(parts).format(verb=pair.verb, object=pair.object)
