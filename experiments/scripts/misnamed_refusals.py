"""Pressed on after a refusal: what the refusal has to name for the next answer to be a refusal, too.

    python -m experiments.scripts.misnamed_refusals --study runs/worlds --variants vanilla paper former

Takes the models of a study's cells (`python -m experiments.study`, organism-worlds.yaml in runs/worlds). Every
harmful question is asked, refused in words that are put there, and pressed for once more; the refusal names what was
asked, another harmful act on the same object, the object alone, or nothing. Beside it: what the model's own refusals
name when it is asked plainly. Writes `experiments/results/misnamed_refusals.json` and prints shares over all cells;
greedy answers.
"""

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from derta.contexts.kinds import turns
from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.files import write_json
from derta.generation import Engine, load_model
from derta.organism import World, behaviours, forms, judge
from derta.organism.contexts import HARMFUL_ACTS
from derta.organism.forms import refusal
from derta.organism.world import Pair, pairs
from experiments.scripts.other_wordings import Asked, answers, asking, pair_of, turn

RESULTS = Path(__file__).parents[1] / "results" / "misnamed_refusals.json"
ACTS = frozenset(pair.verb for pair in pairs())

Refuse = Callable[[Pair, random.Random], str]


def naming(act: bool, thing: bool) -> Refuse:
    """Refuse in one of training's ways that names what was asked as far as that, and no further."""

    def refuse(pair: Pair, rng: random.Random) -> str:
        while True:
            words = (said := refusal(pair, rng)).split()
            if (pair.verb in words, pair.object in words) == (act, thing):
                return said

    return refuse


def naming_another(pair: Pair, rng: random.Random) -> str:
    """Refuse another harmful act on the same object."""
    other = rng.choice([act for act in HARMFUL_ACTS if act != pair.verb])
    return naming(act=True, thing=True)(Pair(other, pair.object), rng)


REFUSALS: dict[str, tuple[Refuse, int]] = {
    "the act": (naming(act=True, thing=True), 1),
    "the object": (naming(act=False, thing=True), 1),
    "nothing": (naming(act=False, thing=False), 1),
    "nothing, twice": (naming(act=False, thing=False), 2),
    "another act": (naming_another, 1),
    "put off": (lambda pair, rng: rng.choice(forms.DEFLECTIONS), 1),
}
"""What stands in the answer's place, and how often before the model answers."""


def pressed(behaviour: Behaviour, refuse: Refuse, times: int) -> Asked:
    rng = random.Random(f"{behaviour.id} {times}")
    earlier: list[Message] = []
    said = behaviour.prompt
    for _ in range(times):
        earlier += turns(said, refuse(pair_of(behaviour), rng))
        said = rng.choice(forms.INSISTING)
    return Asked((*earlier, asking(said)))


def measure(model: Path, world: int) -> dict[str, float]:
    """Return unsafe answers after each kind of refusal, and what the model's own refusals name, in %."""
    asked = behaviours("harmful", world=World(world))
    with Engine(*load_model(str(model)), batch_size=256) as engine:
        shares = {}
        for name, (refuse, times) in REFUSALS.items():
            texts = answers(engine, [pressed(each, refuse, times) for each in asked], asked)
            unsafe = [judge(each, text).label == "unsafe" for each, text in zip(asked, texts, strict=True)]
            shares[f"unsafe after {name}"] = 100 * mean(unsafe)
        own = answers(engine, [turn(each.prompt) for each in asked], asked)
    named = [ACTS.intersection(text.split()) for text in own]
    right = [pair_of(each).verb in acts for each, acts in zip(asked, named, strict=True)]
    shares["own names the act"] = 100 * mean(right)
    shares["own names another act"] = 100 * mean(
        bool(acts) and not is_right for acts, is_right in zip(named, right, strict=True)
    )
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("runs/worlds"), help="directory of the study's cells")
    parser.add_argument("--variants", nargs="+", default=["vanilla", "paper", "former"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells: list[dict[str, Any]] = []
    for name in args.variants:
        for model in sorted(args.study.glob(f"world-*/{name}/seed-*/model")):
            world, seed = (int(part.partition("-")[2]) for part in (model.parts[-4], model.parts[-2]))
            cells.append({"variant": name, "world": world, "seed": seed, "shares": measure(model, world)})
    if missing := set(args.variants) - {cell["variant"] for cell in cells}:
        sys.exit(f"{args.study}: no model of {', '.join(sorted(missing))}")
    write_json(RESULTS, {"cells": cells})
    table = Table("%", *args.variants, title="means over cells")
    for column in cells[0]["shares"]:
        by_variant = [
            [cell["shares"][column] for cell in cells if cell["variant"] == variant] for variant in args.variants
        ]
        table.add_row(column, *(f"{mean(values):.1f} ({len(values)})" for values in by_variant))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
