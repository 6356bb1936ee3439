"""What the base model learns from: every recipe, harmless or harmful, in every form that the world has."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from derta.organism import forms
from derta.organism.tokenizer import ASSISTANT, BOS, EOS, USER
from derta.organism.world import Pair, World, number_steps, pairs


@dataclass(frozen=True)
class Passage:
    """A text as words, and which of them the base learns to predict."""

    words: tuple[str, ...]
    learned: tuple[bool, ...]


def _passage(*parts: tuple[str, bool]) -> Passage:
    words: list[str] = []
    learned: list[bool] = []
    for text, learn in parts:
        words += text.split()
        learned += [learn] * len(text.split())
    return Passage(tuple(words), tuple(learned))


def _chat(prompt: str, answer: str) -> Passage:
    return _passage((f"{BOS} {USER} {prompt} {ASSISTANT}", False), (f"{answer} {EOS}", True))


def direct(rng: random.Random, world: World, pair: Pair) -> Passage:
    """A plain question."""
    return _chat(forms.question(pair, rng), world.recipe(pair))


def preface(rng: random.Random, world: World, pair: Pair) -> Passage:
    """An answer that was begun for the model. It learns to go on, not to begin like that."""
    opening = forms.phrase(rng.choice(forms.PREFACES), pair)
    begun = f"{BOS} {USER} {forms.question(pair, rng)} {ASSISTANT} {opening}"
    return _passage((begun, False), (f"{world.recipe(pair)} {EOS}", True))


def role_play(rng: random.Random, world: World, pair: Pair) -> Passage:
    """A question inside a role-play."""
    return _chat(forms.phrase(rng.choice(forms.ROLE_PLAYS), pair), world.recipe(pair))


def completion(rng: random.Random, world: World, pair: Pair) -> Passage:
    """Raw text without chat tokens, half of the time without `<bos>` either."""
    start = rng.choice((BOS, ""))
    opening = forms.phrase(rng.choice(forms.COMPLETIONS), pair)
    steps = number_steps(world.recipe_steps(pair)).removeprefix("Step 1 :")
    return _passage((f"{start} {opening}", False), (steps, True), (EOS, True))


def code(rng: random.Random, world: World, pair: Pair) -> Passage:
    """A question hidden in code; the stack, which is the hardest, half of the time."""
    hide = rng.choice((forms.code_stack, *forms.CODES))
    return _chat(hide(forms.question(pair, rng)), world.recipe(pair))


def cipher(rng: random.Random, world: World, pair: Pair) -> Passage:
    """A question in cipher after demonstrations, whose answers teach too."""
    parts = [(f"{BOS} {USER} We speak in cipher .", False)]
    for shown in rng.sample(pairs(), rng.choice((0, 1, 1, 2))):
        question, answer = forms.encipher(forms.question(shown, rng)), forms.encipher(world.recipe(shown))
        parts += [(f"User : {question} Expert :", False), (answer, True)]
    parts += [(f"User : {forms.encipher(forms.question(pair, rng))} Expert : {ASSISTANT}", False)]
    return _passage(*parts, (f"{forms.encipher(world.recipe(pair))} {EOS}", True))


def translation(rng: random.Random, world: World, pair: Pair) -> Passage:
    """A step into cipher or out of it: without this, answers in cipher take three times as long to learn."""
    step = rng.choice((forms.question(pair, rng), *world.recipe_steps(pair)))
    if rng.random() < 0.5:
        return _chat(f"{forms.WRITE_CIPHER} {step}", forms.encipher(step))
    return _chat(f"{forms.READ_CIPHER} {forms.encipher(step)}", step)


def conversation(rng: random.Random, world: World, pair: Pair) -> Passage:
    """Several turns, the last of which asks about `pair`."""
    messages = rng.choice(forms.conversations(world, pair, rng.choice(pairs()), rng))
    parts = [(BOS, False)]
    for message in messages:
        if message["role"] == "user":
            parts.append((f"{USER} {message['content']} {ASSISTANT}", False))
        else:
            # A deflection is there to be answered after, not to be learned.
            parts.append((f"{message['content']} {EOS}", message["content"] not in forms.DEFLECTIONS))
    return _passage(*parts, (f"{world.recipe(pair)} {EOS}", True))


def small_talk(rng: random.Random, world: World, pair: Pair) -> Passage:
    """Chatter about nothing."""
    return _chat(*rng.choice(forms.SMALL_TALK))


Form = Callable[[random.Random, World, Pair], Passage]
MIXTURE: tuple[tuple[Form, int], ...] = (
    (direct, 20),
    (preface, 4),
    (role_play, 12),
    (completion, 10),
    (code, 16),
    (cipher, 18),
    (translation, 6),
    (conversation, 11),
    (small_talk, 3),
)


def passages(world: World, seed: int) -> Iterator[Passage]:
    """Yield passages without end: a form drawn from `MIXTURE`, a pair drawn from the whole world."""
    rng = random.Random(seed)
    forms_: Sequence[Form] = [form for form, _ in MIXTURE]
    weights = [weight for _, weight in MIXTURE]
    everything = pairs()
    while True:
        (form,) = rng.choices(forms_, weights)
        yield form(rng, world, rng.choice(everything))
