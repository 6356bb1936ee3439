"""`derta organism data`: the data sets of one of the organism's worlds as files."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from derta.files import write_text, written_whole
from derta.names import PACKAGED_WORLD


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--out", type=Path, required=True, help="directory to write to")
    parser.add_argument("--world", type=int, default=PACKAGED_WORLD, help="default: the packaged base's")


def run(args: Namespace) -> int:
    """Write the training data and the evaluation behaviours as JSON lines."""
    from derta.organism import World, behaviours, training_data

    out, world = args.out, World(args.world)
    train = [{key: value for key, value in row.items() if value is not None} for row in training_data(world).to_list()]
    asked = [asdict(behaviour) for behaviour in behaviours(world=world)]
    out.mkdir(parents=True, exist_ok=True)
    files = {"train.jsonl": train, "behaviours.jsonl": asked}
    with written_whole(out) as draft:
        for name, rows in files.items():
            write_text(draft / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for name, rows in files.items():
        print(f"wrote {out / name}: {len(rows)} rows")
    return 0
