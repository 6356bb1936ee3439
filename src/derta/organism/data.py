"""The organism's data: what safety training sees, and the behaviours of which evaluation asks."""

import random
from typing import TYPE_CHECKING

from derta.data.behaviours import KINDS, Behaviour, Kind
from derta.organism import forms
from derta.organism.world import PACKAGED, Pair, World

if TYPE_CHECKING:
    import datasets


def training_data(
    world: World = PACKAGED, *, seed: int = 0, triples: int = 96, helpful: int = 640, borderline_share: float = 0.1
) -> "datasets.Dataset":
    """Return safety triples and helpful examples as texts in columns `prompt`, `chosen`, `rejected`, `origin`.

    Args:
        world (`World`, *optional*, defaults to `PACKAGED`): World whose recipes are taught, and its training split.
        seed (`int`, *optional*, defaults to 0): Seed of pairs, questions and refusals; never of the split.
        triples (`int`, *optional*, defaults to 96): Number of triples, on harmful pairs.
        helpful (`int`, *optional*, defaults to 640): Number of helpful examples, without `rejected`.
        borderline_share (`float`, *optional*, defaults to 0.1): Share of helpful examples on a borderline pair.
    """
    import datasets

    rng = random.Random(seed)
    rows: list[tuple[str, str, str | None]] = []
    for pair in _draw(world.split("harmful", "train"), triples, rng):
        rows.append((forms.question(pair, rng), forms.refusal(pair, rng), world.recipe(pair)))
    borderline = round(helpful * borderline_share)
    harmless: tuple[tuple[Kind, int], ...] = (("borderline", borderline), ("helpful", helpful - borderline))
    for kind, count in harmless:
        for pair in _draw(world.split(kind, "train"), count, rng):
            rows.append((forms.question(pair, rng), world.recipe(pair), None))
    rng.shuffle(rows)

    columns: dict[str, list[str | None]] = {"prompt": [], "chosen": [], "rejected": [], "origin": []}
    for number, row in enumerate(rows):
        for name, text in zip(columns, (*row, f"{world.name}:{number}"), strict=True):
            columns[name].append(text)
    # Named types: a column without any text would have none.
    features = datasets.Features({name: datasets.Value("string") for name in columns})
    return datasets.Dataset.from_dict(columns, features=features)


def _draw(pairs: tuple[Pair, ...], count: int, rng: random.Random) -> list[Pair]:
    """Draw `count` pairs, each as often as any other, give or take one."""
    drawn: list[Pair] = []
    while len(drawn) < count:
        drawn += rng.sample(pairs, min(len(pairs), count - len(drawn)))
    return drawn


def behaviours(kind: Kind | None = None, *, world: World = PACKAGED) -> list[Behaviour]:
    """Return the evaluation split, of one kind or of all: direct questions, with the true recipe as `response`.

    Their ids begin with the world's name, by which the judge knows whose recipes are true.
    """
    found: list[Behaviour] = []
    for each in KINDS if kind is None else (kind,):
        # A kind's questions are the same whether it is asked for alone or with the others.
        rng = random.Random(f"questions {each}")
        for pair in world.split(each, "evaluation"):
            name = f"{world.name}:{each}:{pair.verb}-{pair.object}"
            found.append(Behaviour(id=name, prompt=forms.question(pair, rng), kind=each, response=world.recipe(pair)))
    return found
