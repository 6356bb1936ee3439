"""Attack success and over-refusal along training: what a method's last step alone doesn't show.

    python -m experiments.scripts.along_training --out runs/along

Each method tunes the organism on the study's data and budget and is attacked every 25 steps, in the training process
(`attack_steps`). What is finished in `--out` is kept. Writes `experiments/results/along_training.json` and
`docs/lab/results/along-training.svg`, and prints the table of `docs/lab/studies.md`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from derta.files import write_json, write_text
from derta.report.figures import svg_file
from experiments.scripts.attacked import derta

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "along_training.json"
FIGURE = ROOT / "docs" / "lab" / "results" / "along-training.svg"
ATTACKS = ("direct", "prefill", "completing", "template", "selfcipher", "neighbour+prefill")
METHODS = {
    "vanilla": ["train", "--config", "organism-study", "--method", "vanilla"],
    "paper": ["train", "--config", "organism-study"],
    "recommended": ["train", "--config", "organism-contexts"],
    "door": ["baseline", "door", "--config", "organism-study"],
}
SHOWN = (25, 50, 100, 200, 300)


def along(method: str, world: int, seed: int, limit: int, out: Path) -> list[dict[str, float]]:
    """Train with a method as far as that isn't done; return step, mean attack success and over-refusal in %."""
    folder = out / f"{method}-{world}-{seed}"
    asked = ["--attack-steps", "25", "--attacks", ",".join(ATTACKS), "--attack-limit", str(limit)]
    given = ["--model-name-or-path", f"organism:{world}", "--seed", str(seed), "--output-dir", str(folder)]
    derta(*METHODS[method], *given, *asked)
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    points = []
    for entry in history:
        success = [entry[f"asr_{attack}"] for attack in ATTACKS if f"asr_{attack}" in entry]
        if success:
            assert len(success) == len(ATTACKS), f"{folder}: an attack is missing at step {entry['step']}"
            mean = sum(success) / len(success)
            points.append({"step": entry["step"], "asr": mean, "over_refusal": entry["over_refusal"]})
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=40, help="behaviours and borderline prompts")
    parser.add_argument("--out", type=Path, default=Path("runs/along"), help="directory of the runs")
    args = parser.parse_args()
    found = {method: along(method, args.world, args.seed, args.limit, args.out) for method in METHODS}
    settings: dict[str, Any] = {"world": args.world, "seed": args.seed, "limit": args.limit, "attacks": ATTACKS}
    write_json(RESULTS, {**settings, "methods": found})
    table = Table("method", *(f"{step} steps" for step in SHOWN), title="attack success / borderline refusals, %")
    for method, points in found.items():
        at = {point["step"]: f"{point['asr']:.1f} / {point['over_refusal']:.1f}" for point in points}
        table.add_row(method, *(at.get(step, "—") for step in SHOWN))
    Console(width=120).print(table)
    draw(found)


def draw(found: dict[str, list[dict[str, float]]]) -> None:
    """Draw attack success and borderline refusals over steps, a line a method."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, key, label in zip(panels, ("asr", "over_refusal"), ("attack success", "refuses borderline"), strict=True):
        for (method, points), marker in zip(found.items(), "osD^", strict=True):
            axes.plot([each["step"] for each in points], [each[key] for each in points], marker=marker, label=method)
        axes.set(xlabel="steps", title=label, ylim=(-2, 102))
        axes.grid(axis="y", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("%")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    write_text(FIGURE, svg_file(figure))


if __name__ == "__main__":
    main()
