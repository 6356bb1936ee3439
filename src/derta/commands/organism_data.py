"""`derta organism data`: the organism's data sets as files."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from derta.organism.data import behaviours, training_data


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--out", type=Path, required=True, help="directory to write to")


def run(args: Namespace) -> int:
    """Write the training data and the evaluation behaviours as JSON lines."""
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    train = [{key: value for key, value in row.items() if value is not None} for row in training_data().to_list()]
    for name, rows in (("train", train), ("behaviours", [asdict(behaviour) for behaviour in behaviours()])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"wrote {out / f'{name}.jsonl'}: {len(rows)} rows")
    return 0
