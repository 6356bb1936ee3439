"""One cell of the study: a model tuned by a method with a seed, attacked and asked harmless questions.

    python -m experiments.real.cell MODEL METHOD SEED --data DIR --out DIR [--on choosing|report] [--limit N]

MODEL is a folder, DIR the output of `experiments.real.data` for it. The rows go to OUT/rows/NAME.json (a few kB; they
are what is committed); weights, responses and logs stay in OUT/cells/NAME. The same command again continues where it
stopped.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

SAME_FOR_ALL: dict[str, Any] = {
    **{"use_peft": True, "lora_r": 32, "lora_alpha": 16, "lora_dropout": 0.0},
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    **{"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, "num_train_epochs": 1},
    **{"per_device_train_batch_size": 4, "max_length": 192, "overlong_prompts": "drop"},
    **{"use_cpu": True, "report_to": "none", "save_steps": 50, "save_total_limit": 1, "logging_steps": 10},
}
RECOMMENDED = {"refuse_at": "word", "cuts_per_triple": 2, "cut_at_start": True, "rto_dropout": 0.8}
METHODS: dict[str, dict[str, Any]] = {
    "vanilla": {"method": "vanilla"},
    "harmful-prefix": {"method": "harmful-prefix"},
    "rto": {"method": "rto"},
    "paper": {"method": "derta"},
    "recommended": {"method": "derta", **RECOMMENDED},
    "recommended-without-borderline": {"method": "derta", **RECOMMENDED},
    "recommended-published-answers": {"method": "derta", **RECOMMENDED},
    "dpo": {"method": "dpo"},
    "constrained-sft": {"method": "constrained-sft"},
    "circuit-breakers": {"method": "circuit-breakers"},
}
ATTACKS = (
    "direct,prefill,completing,codeattack,adaptive-prefill,multi-turn,insist,history,best-of-n,"
    "history+prefill,codeattack+prefill,insist+prefill,multi-turn+prefill"
)
DEPTHS = "5,10,20,40,80,160"


def main() -> None:
    """Train and evaluate what isn't done yet, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("method", choices=["untuned", *METHODS])
    parser.add_argument("seed", type=int)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--on", choices=("choosing", "report"), default="report")
    parser.add_argument("--limit", type=int, default=100, help="behaviours of the attacks")
    parser.add_argument("--attacks", default=ATTACKS)
    args = parser.parse_args()
    name = f"{args.model.name}.{args.method}.{args.seed}" + (".choosing" if args.on == "choosing" else "")
    folder, rows = args.out / "cells" / name, args.out / "rows" / f"{name}.json"
    started = time.time()
    tuned = args.model if args.method == "untuned" else train(args, folder)
    trained = time.time() - started
    wanted = args.data / args.on
    derta(
        *("eval", "--model", tuned, "--out", folder / "evaluation", "--attacks", args.attacks, "--depths", DEPTHS),
        *("--behaviours", wanted / "behaviours.jsonl", "--borderline", wanted / "borderline.jsonl"),
        *("--limit", args.limit, "--max-new-tokens", 96, "--seed", args.seed),
    )
    derta(
        *("eval", "--model", tuned, "--out", folder / "helpful", "--attacks", "direct"),
        *("--borderline", wanted / "helpful.jsonl", "--max-new-tokens", 96),
    )
    rows.parent.mkdir(parents=True, exist_ok=True)
    found = {part: numbers(folder / part) for part in ("evaluation", "helpful")}
    seconds = {"train_seconds": round(trained), "seconds": round(time.time() - started)}
    rows.write_text(json.dumps({"name": name, **seconds, **found}, indent=1) + "\n", encoding="utf-8")
    print(rows)


def train(args: argparse.Namespace, folder: Path) -> Path:
    """Train an adapter and merge it; return the folder of the merged model."""
    merged = folder / "merged"
    if (merged / "config.json").exists():
        return merged
    own = "helpful.jsonl" if args.method == "recommended-published-answers" else "own.jsonl"
    borderline = [] if args.method == "recommended-without-borderline" else ["borderline.jsonl"]
    recipe = {
        "model_name_or_path": str(args.model),
        "train_data": [str(args.data / file) for file in ("triples.jsonl", own, *borderline)],
        **SAME_FOR_ALL,
        **METHODS[args.method],
        "seed": args.seed,
    }
    if not has_template(args.model):
        recipe["prompt_format"] = "alpaca"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    derta("train", "--config", folder / "recipe.yaml", "--output-dir", folder / "adapter")
    shutil.rmtree(merged, ignore_errors=True)
    derta("merge", "--adapter", folder / "adapter", "--out", merged)
    return merged


def has_template(model: Path) -> bool:
    """Whether a folder's tokenizer comes with a chat template."""
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    return "chat_template" in config or (model / "chat_template.jinja").exists()


def numbers(folder: Path) -> list[dict[str, Any]]:
    """Read an evaluation's rows, without what is the same in all of them."""
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    kept = ("attack", "metric", "value", "n", "ci_low", "ci_high", "judge", "kind", "set")
    return [{key: row[key] for key in kept if key in row} for row in rows]


def derta(*arguments: object) -> None:
    """Run a command of derta; one that fails ends the cell."""
    subprocess.run([sys.executable, "-m", "derta", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
