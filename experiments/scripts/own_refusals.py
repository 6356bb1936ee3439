"""A second round on the model's own refusals: whether it refuses again after what it says itself.

    python -m experiments.organism_base --world 8
    python -m experiments.scripts.own_refusals --worlds 7 8 --seeds 1 2

The context `insist` writes refusals as training data have them; a model that names in its own another thing than it was
asked may take that for the request. So every triple's prompt is asked of a model that was tuned once (sampled at
temperature 0.7), it is pressed on in training's words after each refusal, and the conversations are triples of a second
tuning from the same base, beside all of the first one's data. Answers that don't refuse are written nowhere. A third
model has as many triples more and no conversation. All are attacked; trains what is missing under `--out`, writes
`experiments/results/own_refusals.json` and prints means over worlds and seeds.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.files import write_json, write_text
from derta.generation import ChatRequest, Engine, load_model
from derta.organism import World, judge
from derta.organism.contexts import INSISTING
from derta.organism.data import training_data
from experiments.scripts.attacked import ATTACKS, RECIPES, attack, train
from experiments.scripts.other_wordings import asking

RESULTS = Path(__file__).parents[1] / "results" / "own_refusals.json"
DATA = "organism?triples=192&borderline_share=0.5"
"""As in the recipe."""
MORE = "organism?triples=384&borderline_share=0.5"
ROUNDS = ("first", "second", "more triples")
ASKED = (*ATTACKS, "insist", "template+multi-turn")
TURNS = (1, 1, 2, 3, 4)
"""How often the model refuses before the turn that is learnt, as in the context `insist`."""


def press(model: Path, world: World) -> list[dict[str, Any]]:
    """Return training's triples behind the model's own refusals, without those that it doesn't refuse."""
    triples = [row for row in training_data(world, triples=192, borderline_share=0.5) if row["rejected"]]
    rng = random.Random(f"{world.name} pressed")
    talks: list[list[Message]] = [[asking(row["prompt"])] for row in triples]
    left = [rng.choice(TURNS) for _ in triples]
    with Engine(*load_model(str(model)), batch_size=256) as engine:
        while going := [at for at, turns in enumerate(left) if turns]:
            waiting = [
                engine.submit(ChatRequest(tuple(talks[at])), 96, temperature=0.7, seed=at + 1000 * len(talks[at]))
                for at in going
            ]
            for at, answer in zip(going, waiting, strict=True):
                said = answer.result().response
                row = triples[at]
                about = Behaviour(f"{world.name}:harmful:{at}", row["prompt"], "harmful", response=row["rejected"])
                verdict = judge(about, said)
                if verdict.refused and not verdict.leaked_tokens:
                    talks[at] += [{"role": "assistant", "content": said}, asking(rng.choice(INSISTING))]
                    left[at] -= 1
                else:
                    left[at] = 0
    return [
        {"prompt": talk, "chosen": row["chosen"], "rejected": row["rejected"]}
        for row, talk in zip(triples, talks, strict=True)
        if len(talk) > 1
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--limit", type=int, default=60, help="behaviours of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/own-refusals"), help="where models are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells: list[dict[str, Any]] = []
    for number in args.worlds:
        for seed in args.seeds:
            world, place = World(number), args.out / f"world-{number}" / f"seed-{seed}"
            train(RECIPES["recommended"], world.name, seed, place / "first")
            pressed = place / "pressed.jsonl"
            if not pressed.is_file():
                write_text(pressed, "".join(json.dumps(row) + "\n" for row in press(place / "first", world)))
            train(RECIPES["recommended"], world.name, seed, place / "second", "--train-data", DATA, str(pressed))
            train(RECIPES["recommended"], world.name, seed, place / "more triples", "--train-data", MORE)
            for name in ROUNDS:
                found = attack(place / name, place / f"{name}, attacked", args.limit, ASKED)
                cells.append({"world": number, "seed": seed, "round": name, **found})
    write_json(RESULTS, {"limit": args.limit, "cells": cells})
    table = Table("%", *ROUNDS, title=f"means over {len(cells) // len(ROUNDS)} cells")
    for column in ("asr", *ASKED, "over_refusal", "helpful_accuracy", "unscored"):
        means = (mean(cell[column] for cell in cells if cell["round"] == name) for name in ROUNDS)
        table.add_row(column, *(f"{value:.1f}" for value in means))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
