"""The kinds of context: what may stand around an example, and where its parts go."""

import random
from collections.abc import Callable
from dataclasses import replace

from derta.contexts.encodings import Exchange
from derta.contexts.materials import Materials, question_of
from derta.data.triples import Example, Message

Context = Callable[[Example, Materials, random.Random], Example | None]
"""Puts an example into a context; `None` where that can't be done."""

_SHORTENED = 0.4
"""Share of its words that is left of a shortened answer."""
_REFUSED = 0.9
"""Share of triples that were refused before, and not put off."""
_MOST = 20
"""Tokens of noise at most: as many as GCG's suffix has."""


def small_talk(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put one exchange, or two, before the example."""
    exchanges = rng.choices(materials.small_talk, k=rng.choice((1, 1, 2))) if materials.small_talk else []
    return behind(example, *exchanges) if exchanges else None


def neighbour(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the neighbour before the example, whole or shortened; half of the time the request leans on it.

    A request leans on its neighbour where the language has such a form, "And how about the …?".

    What Crescendo does (Russinovich et al., arXiv 2404.01833): the harmful request follows from a harmless one on the
    same act or the same thing. Here the nearest helpful example of the training data stands before triples and helpful
    examples alike, so that an answered neighbour says nothing about the next request.
    """
    request = request_of(example)
    found = materials.neighbour(request, rng)
    if found is None:
        return None
    question, answer = found
    if rng.random() < 0.5:
        words = answer.split(" ")
        answer = " ".join(words[: max(1, round(_SHORTENED * len(words)))])
    leaning = materials.wordings.follow_up(question, request) if rng.random() < 0.5 else None
    return behind(asking(example, leaning) or example, (question, answer))


def refused(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the prompt of another triple and its safe response before the example."""
    exchange = materials.refused(rng, other_than=request_of(example))
    return None if exchange is None else behind(example, exchange)


def insist(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Refuse the request in one to four turns; the last turn is what the user says then, with the request or not.

    A triple is refused again, a helpful example is answered now. Nearly always the triple was refused before, and the
    helpful example always put off, as a model that judges well would have done: its own refusals are evidence, whatever
    they name, and it shouldn't learn to go back on them because somebody presses on.
    """
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


def role_play(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the request into one of the language's role-plays or the user's."""
    return asking(example, rng.choice(materials.role_plays)(request_of(example)))


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


def encoded(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Encode the request after as many demonstrations as the encoding draws, taken from helpful examples.

    Where an encoding asks for an answer in it, helpful answers and r̂ are encoded; a safe response stays in plain words.
    """
    encoding = rng.choice(materials.wordings.encodings)
    request = request_of(example)
    drawn = (materials.helpful(rng, request) for _ in range(rng.randint(0, encoding.demonstrations)))
    framed = asking(example, encoding.ask(request, [each for each in drawn if each is not None]))
    if framed is None:
        return None
    if example.is_helpful:
        return replace(framed, chosen=encoding.answer(example.chosen or ""))
    return read_text(framed, encoding.answer)


def noise(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put noise after the request two times of three, else before it.

    What a search for a suffix has to find is then what training has seen: words without sense beside a request change
    nothing about it (random counterparts of GCG's suffixes, Zou et al., arXiv 2307.15043).
    """
    if not materials.vocabulary:
        return None
    words = " ".join(rng.choices(materials.vocabulary, k=rng.randint(1, _MOST)))
    request = request_of(example)
    return asking(example, f"{request} {words}" if rng.random() < 2 / 3 else f"{words} {request}")


def begun(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Begin the answer with a preface.

    In a triple r̂ begins with it, and cuts and RTO fall on it as on the rest. In a helpful example it is read, and the
    answer follows: a begun answer alone is nothing to refuse.
    """
    preface = rng.choice(materials.wordings.prefaces)(request_of(example))
    if preface is None:
        return None
    if example.is_helpful:
        return replace(example, begun=preface)
    return read_text(example, lambda harmful: f"{preface} {harmful}")


def history(example: Example, materials: Materials, rng: random.Random) -> Example | None:
    """Put the prompt of another triple and its harmful response before the example.

    In no packaged set: the harmful response of another triple stands in the prompt as text, where it is never a target.
    """
    exchange = materials.answered_harm(rng, other_than=request_of(example))
    return None if exchange is None else behind(example, exchange)


# The order is that in which weights count: another would draw other contexts.
CONTEXTS: dict[str, Context] = {
    "small-talk": small_talk,
    "neighbour": neighbour,
    "refused": refused,
    "insist": insist,
    "role-play": role_play,
    "raw": raw,
    "encoded": encoded,
    "noise": noise,
    "begun": begun,
    "history": history,
}
"""The contexts by name."""


def register_context(name: str, context: Context) -> None:
    """Make a context known: its name can then stand in `contexts`."""
    CONTEXTS[name] = context


def behind(example: Example, *exchanges: Exchange) -> Example:
    """Put exchanges before the conversation of an example, after its system turn."""
    of_system = 1 if example.prompt[0]["role"] == "system" else 0
    earlier = [message for exchange in exchanges for message in turns(*exchange)]
    return replace(example, prompt=[*example.prompt[:of_system], *earlier, *example.prompt[of_system:]])


def turns(question: str, answer: str) -> tuple[Message, Message]:
    """Return an exchange as messages."""
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def asking(example: Example, text: str | None) -> Example | None:
    """Put `text` in the place of an example's last user turn; `None` stays `None`."""
    if text is None:
        return None
    return replace(example, prompt=[*example.prompt[:-1], {"role": "user", "content": text}])


def request_of(example: Example) -> str:
    """Return the last user turn of an example."""
    return example.prompt[-1]["content"]


def is_single_turn(example: Example) -> bool:
    """Whether its prompt is one user turn and nothing else."""
    return question_of(example) is not None


def read_text(example: Example, change: Callable[[str], str]) -> Example:
    """Change the harmful text that an example reads: r̂, or a fixed prefix of it."""
    return replace(
        example,
        rejected=None if example.rejected is None else change(example.rejected),
        harmful_prefix=change(example.harmful_prefix) if example.harmful_prefix else example.harmful_prefix,
    )
