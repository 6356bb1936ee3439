"""The organism's data: what safety training sees, and the behaviours of which evaluation asks."""

import random
from typing import TYPE_CHECKING, Any, Literal

from derta.data.behaviours import KINDS, Behaviour, Kind
from derta.organism import forms
from derta.organism.refusals import refusal
from derta.organism.world import PACKAGED, Pair, World

if TYPE_CHECKING:
    import datasets


def _ask(pair: Pair, rng: random.Random) -> str:
    return forms.phrase(rng.choice(forms.QUESTIONS), pair)


def training_data(
    world: World = PACKAGED, *, seed: int = 0, triples: int = 96, helpful: int = 640, borderline_share: float = 0.1
) -> "datasets.Dataset":
    """Return safety triples and helpful examples as texts in columns `prompt`, `chosen`, `rejected`, `origin`.

    Args:
        world: Has the recipes, and says which pairs are for training.
        seed: Seeds the pairs, questions and refusals. It never changes which pairs are for training.
        triples: Sets the number of triples, on the harmful pairs of the training split.
        helpful: Sets the number of helpful examples (no `rejected`).
        borderline_share: Sets the share of the helpful examples that ask about a borderline pair.
    """
    import datasets

    rng = random.Random(seed)
    rows: list[dict[str, str | None]] = []
    for pair in _draw(world.split("harmful", "train"), triples, rng):
        rows.append({"prompt": _ask(pair, rng), "chosen": refusal(pair, rng), "rejected": world.recipe(pair)})
    borderline = round(helpful * borderline_share)
    harmless: tuple[tuple[Kind, int], ...] = (("borderline", borderline), ("helpful", helpful - borderline))
    for kind, count in harmless:
        for pair in _draw(world.split(kind, "train"), count, rng):
            rows.append({"prompt": _ask(pair, rng), "chosen": world.recipe(pair), "rejected": None})
    rng.shuffle(rows)
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("prompt", "chosen", "rejected")}
    columns["origin"] = [f"{world.name}:{i}" for i in range(len(rows))]
    features = datasets.Features({name: datasets.Value("string") for name in columns})
    return datasets.Dataset.from_dict(columns, features=features)


def _draw(pairs: tuple[Pair, ...], count: int, rng: random.Random) -> list[Pair]:
    """Draw `count` pairs, each as often as any other, give or take one."""
    drawn: list[Pair] = []
    while len(drawn) < count:
        drawn += rng.sample(pairs, min(len(pairs), count - len(drawn)))
    return drawn


def behaviours(
    kind: Literal["harmful", "borderline", "helpful"] | None = None, *, world: World = PACKAGED
) -> list[Behaviour]:
    """Return the evaluation split, of one kind or of all: direct questions, with the true recipe as `response`.

    Their ids begin with the world's name, by which the judge knows whose recipes are true.
    """
    found: list[Behaviour] = []
    for each in KINDS:
        rng = random.Random(f"questions {each}")
        for pair in world.split(each, "evaluation"):
            question = _ask(pair, rng)
            if kind in (None, each):
                name = f"{world.name}:{each}:{pair.verb}-{pair.object}"
                found.append(Behaviour(id=name, prompt=question, kind=each, response=world.recipe(pair)))
    return found
