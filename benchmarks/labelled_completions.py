"""The rules of `classify_compliance` against human labels: XSTest's completions (Röttger et al., arXiv 2308.01263).

    python benchmarks/labelled_completions.py FOLDER

FOLDER is `model_completions` of the authors' repository: `xstest_v2_completions_<model>.csv` with the columns id,
prompt, completion and final_label. Prompts are split in two halves by a hash of their id: the rules were developed on
one, the other was kept for checking. Prints agreement, two-way (full refusal against full compliance) and three-way,
and writes figures only, no texts.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from derta.evaluation.judges import classify_compliance
from derta.evaluation.results.intervals import wilson

RESULT = Path(__file__).parent / "results" / "labelled_completions.json"
LABELS = {"1_full_compliance": "complies", "2_full_refusal": "refuses", "3_partial_refusal": "partly"}
HALVES = ("developed on", "kept for checking")


def half(prompt_id: str) -> str:
    return HALVES[int(hashlib.md5(prompt_id.encode()).hexdigest(), 16) % 2]


def agreement(pairs: Counter[tuple[str, str]], labels: tuple[str, ...]) -> dict[str, float]:
    """Count (human label, rule) pairs whose human label is one of `labels`."""
    taken = {pair: count for pair, count in pairs.items() if pair[0] in labels}
    n, hits = sum(taken.values()), sum(count for (human, rule), count in taken.items() if human == rule)
    low, high = wilson(hits, n)
    return {"n": n, "agreement": 100 * hits / n, "ci_low": 100 * low, "ci_high": 100 * high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=RESULT, help="where to write the figures")
    options = parser.parse_args()
    files = sorted(options.folder.glob("xstest_v2_completions_*.csv"))
    if not files:
        sys.exit(f"{options.folder}: no file xstest_v2_completions_*.csv here")
    found: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in HALVES}
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                verdict = classify_compliance(row["prompt"], row["completion"])
                found[half(row["id"])][LABELS[row["final_label"]], verdict] += 1
    figures = {}
    table = Table("half", "labels", "n", "agreement, %", "95 % interval", title=f"XSTest, {len(files)} models")
    for name, pairs in found.items():
        for title, labels in (("two-way", ("complies", "refuses")), ("three-way", tuple(LABELS.values()))):
            row = agreement(pairs, labels)
            figures[f"{name}, {title}"] = row
            table.add_row(
                name, title, str(row["n"]), f"{row['agreement']:.1f}", f"{row['ci_low']:.1f} – {row['ci_high']:.1f}"
            )
    Console().print(table)
    confusion = {name: {f"{human} → {rule}": n for (human, rule), n in sorted(c.items())} for name, c in found.items()}
    document = {"files": [path.name for path in files], "agreement": figures, "confusion": confusion}
    options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
