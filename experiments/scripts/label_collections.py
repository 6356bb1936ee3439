"""The rules against people's labels, collection by collection.

    python -m experiments.scripts.label_collections FOLDER

FOLDER holds collections' files in their authors' own formats, however nested; each is recognised by its columns. What
came from where (GitHub, unless said otherwise):

- XSTest: `model_completions/*.csv` of paul-rottger/xstest. Full compliance, full refusal, partial refusal.
- ChatGPT refusals: `data/quora_insincere_hand_labeled.json`, `data/political_figures.json` and `data/nyp.json` of
  maxwellreuter/chatgpt-refusals (two collections: the Quora questions, and the figures with the headlines). Redirected
  and counselled are refusals, contradicted and disclaimed partial; unknown and incoherent ones are left out.
- GPTFuzz: `datasets/responses_labeled/*.csv` of sherdencooper/GPTFuzz, with `question_list.csv` beside them. Refused
  wholly or in part (0) or complied wholly or in part (1): labels of compliance and of harm at once.
- PKU-SafeRLHF and JAILJUDGE: `data/Safe-RLHFmini.csv` and `data/JAILJUDGEmini.csv` of ThuCCSLab/JailbreakEval. Harm.
- JailbreakBench: `judge-comparison.csv` (Hugging Face JailbreakBench/JBB-Behaviors). Majority of three. Harm.
- Three labels (Cai et al., arXiv 2404.06407): `raw-data/manual_data.csv` of purseclab/jailbreak-evaluation.
  "Informative" (not a mere rejection or repetition) is compliance, "safeguard violation" is harm.
- WildGuardTest (Hugging Face allenai/wildguardmix): refusal and harm, each a majority of three.
- Anything with the columns prompt, response, label: `complies`, `refuses`, `partly` or `unsafe`, `safe`.

Each collection is either `developed on` (its texts and errors may be read while rules are written) or `checked once`
(nobody reads its texts; rules run on it when they are finished), never both; `DEVELOPED_ON` was fixed before any text
was read. Rows that stand in two files count once. Prints agreement with Wilson intervals: two-way over rows that
people called full refusal or full compliance, three-way over all; sensitivity and specificity of refusal; the same for
harm. "Partly" is neither refusal nor compliance: in the two-way figure it is wrong. Writes figures only, no texts.
"""

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as parquet
from rich.console import Console
from rich.table import Table

from derta.data.behaviours import Behaviour
from derta.evaluation.judges import classify_compliance
from derta.evaluation.judges.rules.judge import refusal
from derta.evaluation.results.intervals import wilson

RESULT = Path(__file__).parents[1] / "results" / "label_collections.json"
DEVELOPED_ON = frozenset({"XSTest", "ChatGPT refusals: Quora", "GPTFuzz", "PKU-SafeRLHF"})

Compliance = Literal["complies", "refuses", "partly"]
Harm = Literal["unsafe", "safe"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Labelled:
    """A response and what people said of it."""

    prompt: str
    response: str
    compliance: Compliance | None = None
    harm: Harm | None = None


@dataclass(frozen=True)
class Format:
    """How one author's file is read: by which columns it is known, and what a row says."""

    columns: frozenset[str]
    name: Callable[[Path, Row], str]
    read: Callable[[Row, Path], Labelled | None]


XSTEST: dict[str, Compliance] = {"1": "complies", "2": "refuses", "3": "partly"}
TONES: dict[str, Compliance] = {
    "complied": "complies",
    "rejected": "refuses",
    "redirected": "refuses",
    "counseling": "refuses",
    "contradicted": "partly",
    "disclaimed": "partly",
}


def harm(label: object) -> Harm:
    return "unsafe" if str(label) in {"1", "1.0", "True", "harmful", "unsafe"} else "safe"


def compliance(label: object) -> Compliance:
    return "complies" if str(label) in {"1", "True", "compliance"} else "refuses"


@cache
def questions_beside(path: Path) -> dict[str, str]:
    with path.with_name("question_list.csv").open(encoding="utf-8", newline="") as file:
        return {each["index"]: each["text"] for each in csv.DictReader(file)}


def read_gptfuzz(row: Row, path: Path) -> Labelled:
    question = questions_beside(path)[row["question"]]
    return Labelled(question, row["Response"], compliance(row["label"]), harm(row["label"]))


def read_wildguard(row: Row, _: Path) -> Labelled:
    refused, harmful = row["response_refusal_label"], row["response_harm_label"]
    return Labelled(
        row["prompt"],
        row["response"] or "",
        None if not refused else compliance(refused),
        None if not harmful else harm(harmful),
    )


def read_plain(row: Row, _: Path) -> Labelled:
    label = row["label"]
    if label in ("complies", "refuses", "partly"):
        return Labelled(row["prompt"], row["response"], compliance=label)
    if label in ("unsafe", "safe"):
        return Labelled(row["prompt"], row["response"], harm=label)
    raise ValueError(f"label {label!r} is none of complies, refuses, partly, unsafe, safe")


FORMATS = (
    Format(
        frozenset({"prompt", "completion", "final_label"}),
        lambda path, row: "XSTest",
        lambda row, path: Labelled(row["prompt"], row["completion"], XSTEST[row["final_label"][0]]),
    ),
    Format(
        frozenset({"prompt", "response", "tone"}),
        lambda path, row: f"ChatGPT refusals: {'Quora' if 'is_insincere' in row else 'figures'}",
        lambda row, path: (
            Labelled(row["prompt"], row["response"], TONES[row["tone"]]) if row["tone"] in TONES else None
        ),
    ),
    Format(frozenset({"question", "Response", "label"}), lambda path, row: "GPTFuzz", read_gptfuzz),
    Format(
        frozenset({"question", "answer", "label"}),
        lambda path, row: {"Safe-RLHFmini": "PKU-SafeRLHF", "JAILJUDGEmini": "JAILJUDGE"}.get(path.stem, path.stem),
        lambda row, path: Labelled(row["question"], row["answer"], harm=harm(row["label"])),
    ),
    Format(
        frozenset({"goal", "target_response", "human_majority"}),
        lambda path, row: "JailbreakBench",
        lambda row, path: Labelled(row["goal"], row["target_response"], harm=harm(row["human_majority"])),
    ),
    Format(
        frozenset({"intent", "response", "manual_informativeness_label"}),
        lambda path, row: "Three labels",
        lambda row, path: Labelled(
            row["intent"],
            row["response"],
            compliance(row["manual_informativeness_label"]),
            harm(row["manual_safeguard_violation_label"]),
        ),
    ),
    Format(
        frozenset({"prompt", "response", "response_refusal_label"}), lambda path, row: "WildGuardTest", read_wildguard
    ),
    Format(frozenset({"prompt", "response", "label"}), lambda path, row: path.stem, read_plain),
)


def rows_of(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        csv.field_size_limit(2**31 - 1)
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        found: list[Row] = parquet.read_table(path).to_pylist()
        return found
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    whole = json.loads(text)
    return [row for row in whole if isinstance(row, dict)] if isinstance(whole, list) else []


def read_folder(folder: Path) -> dict[str, list[Labelled]]:
    """Read every file whose columns are known; the others are named and left."""
    collections: dict[str, list[Labelled]] = defaultdict(list)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in {".csv", ".json", ".jsonl", ".parquet"})
    for path in paths:
        rows = rows_of(path)
        known = next((each for each in FORMATS if rows and each.columns <= rows[0].keys()), None)
        if known is None or path.name == "all_hand_labeled.json":
            print(f"left out: {path} (columns: {', '.join(rows[0]) if rows else 'none'})", file=sys.stderr)
            continue
        for number, row in enumerate(rows, 1):
            try:
                labelled = known.read(row, path)
            except (KeyError, ValueError, OSError) as error:
                sys.exit(f"{path}, row {number}: {error}")
            if labelled is not None:
                collections[known.name(path, row)].append(labelled)
    return {name: list(dict.fromkeys(rows)) for name, rows in collections.items()}


def share(hits: int, n: int) -> dict[str, float]:
    low, high = wilson(hits, n)
    return {"n": n, "percent": 100 * hits / n, "ci_low": 100 * low, "ci_high": 100 * high}


def agreement(pairs: Counter[tuple[str, str]], labels: Iterable[str]) -> dict[str, float] | None:
    """Count (people's label, rules' label) pairs whose first is one of `labels`; None if there are none."""
    taken = {pair: count for pair, count in pairs.items() if pair[0] in labels}
    n = sum(taken.values())
    return share(sum(count for (people, rules), count in taken.items() if people == rules), n) if n else None


def figures_of(rows: list[Labelled]) -> dict[str, Any]:
    told: Counter[tuple[str, str]] = Counter()
    harmed: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.compliance is not None:
            told[row.compliance, classify_compliance(row.prompt, row.response)] += 1
        if row.harm is not None:
            harmed[row.harm, refusal(Behaviour("row", row.prompt, "harmful"), row.response, "").label] += 1
    three_way = any(people == "partly" for people, _ in told)
    figures = {
        "two-way": agreement(told, ("complies", "refuses")),
        "three-way": agreement(told, ("complies", "refuses", "partly")) if three_way else None,
        "refusal: sensitivity": agreement(told, ("refuses",)),
        "refusal: specificity": agreement(told, ("complies",)),
        "harm: agreement": agreement(harmed, ("unsafe", "safe")),
        "harm: sensitivity": agreement(harmed, ("unsafe",)),
        "harm: specificity": agreement(harmed, ("safe",)),
    }
    confusion = {f"{people} → {rules}": n for (people, rules), n in sorted((told + harmed).items())}
    return {"rows": len(rows), "figures": figures, "confusion": confusion}


def cells(document: dict[str, Any], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        found = document["figures"][name]
        yield "" if found is None else f"{found['percent']:.1f} [{found['ci_low']:.1f}, {found['ci_high']:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=RESULT, help="where to write the figures")
    parser.add_argument("--only", choices=("developed on", "checked once"), help="run on these collections alone")
    options = parser.parse_args()
    collections = read_folder(options.folder)
    if not collections:
        sys.exit(f"{options.folder}: no file whose columns are known")
    document: dict[str, Any] = {}
    for name in sorted(collections, key=lambda name: (name not in DEVELOPED_ON, name)):
        use = "developed on" if name in DEVELOPED_ON else "checked once"
        if options.only in (None, use):
            document[name] = {"use": use, **figures_of(collections[name])}
    tables = {
        "Refusal and compliance, % agreement [95 % interval]": (
            "two-way",
            "three-way",
            "refusal: sensitivity",
            "refusal: specificity",
        ),
        "Harm, % agreement [95 % interval]": ("harm: agreement", "harm: sensitivity", "harm: specificity"),
    }
    for title, names in tables.items():
        table = Table("collection", "use", "rows", *names, title=title)
        for name, found in document.items():
            if any(found["figures"][each] for each in names):
                table.add_row(name, found["use"], str(found["rows"]), *cells(found, names))
        Console(width=150).print(table)
    options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
