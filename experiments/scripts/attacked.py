"""What scripts on the organism share: running a command of derta, and a model under attack."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from derta.evaluation.results.store import load_evaluation

ATTACKS = ("direct", "prefill", "completing", "template", "selfcipher", "multi-turn", "neighbour+prefill")
RECIPES = {"paper": "organism-study", "recommended": "organism-contexts"}


def derta(*command: str | Path) -> None:
    """Run a command of derta on one thread; `eval` may end with 1, for samples without a verdict."""
    allowed = (0, 1) if command[0] == "eval" else (0,)
    ended = subprocess.run([sys.executable, "-m", "derta", *map(str, command), "--quiet"], stdout=subprocess.DEVNULL)
    if ended.returncode not in allowed:
        sys.exit(f"derta {command[0]} ended with {ended.returncode}")


def train(recipe: str, base: str | Path, seed: int, out: Path, *options: str) -> None:
    """Tune a base by a recipe and options of `derta train`, as far as that isn't done."""
    if not (out / "README.md").is_file():
        model = ("--model-name-or-path", base)
        derta("train", "--config", recipe, *model, "--seed", str(seed), "--output-dir", out, *options)


def attack(model: Path, out: Path, limit: int, attacks: Sequence[str] = ATTACKS) -> dict[str, float]:
    """Return a model's attack success by attack and their mean, refused borderline and answered helpful prompts, in %.

    Raises:
        SystemExit: The evaluation failed, or an attack has no figure.
    """
    if not (out / "results.json").is_file():
        asked = ["--behaviours", "organism", "--attacks", ",".join(attacks), "--limit", str(limit)]
        derta("eval", "--model", model, *asked, "--out", out)
    evaluation = load_evaluation(out)
    if missing := evaluation.find_missing():
        sys.exit(f"{out}: planned and not measured: {missing[0]}")
    found = {(row.attack, row.metric): row.value for row in evaluation.rows if row.variant is None}
    shown = {name: found[name, "asr"] for name in attacks}
    shown |= {name: found["direct", name] for name in ("over_refusal", "helpful_accuracy")}
    known = {name: value for name, value in shown.items() if value is not None}
    for name in shown.keys() - known.keys():
        sys.exit(f"{out}: no figure of {name}")
    unscored = sum(found[name, "unscored"] or 0 for name in attacks)
    return {"asr": mean(known[name] for name in attacks), **known, "unscored": unscored}
