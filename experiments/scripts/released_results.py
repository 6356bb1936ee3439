"""Judge the DeRTa release's own responses by rules, and set the figures beside the paper's.

    python -m experiments.scripts.released_results FOLDER --paper PAPER.csv --json RESULTS.json

FOLDER is the public repository (RobustNLP/DeRTa): `results/{safety,helpfulness}/<attack>/*.json` and
`data/test/safety_completionattack.json`. The CSV holds the paper's figures (source, model, method, metric, value).
Prints attack success per attack and model with Wilson intervals and errors, GSM8K and MMLU accuracies, PAIR by its
summaries, the paper's Table 1 and Figure 4; writes the figures, no text. Every file is in a table or named as left out.
"""

import argparse
import asyncio
import csv
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from derta.evaluation.inputs.responses import read_responses
from derta.evaluation.judges.rules.judge import refusal
from derta.evaluation.rejudge import grade_responses, judge_responses
from derta.evaluation.results.intervals import wilson
from derta.evaluation.results.sample import Sample

ATTACKS = {
    "codeattack": "CodeAttack",
    "completionattack": "CompletingAttack",
    "jailbreakchat": "JailbreakChat",
    "selfcipher": "SelfCipher",
    "autodan": "AutoDAN",
}
TASKS = {"gsm8k": "GSM8K", "mmlu": "MMLU"}
SPANS = ((0, 5), (5, 30), (30, None))
"""Of Figure 4: the first five tokens, the 6th to the 30th, and beyond. Tokens are words here."""

Model = tuple[str, str]
Paper = dict[tuple[str, str, str], float]
Judged = dict[tuple[Model, str], list[Sample]]

TABLE_1 = {"LLaMA3-8B-Instruct": (478, 2), "LLaMA3-70B-Instruct": (441, 2)}
"""The paper's: refusal token within the first five tokens, and later, of 800 attacked queries."""


def model_of(path: Path) -> Model:
    """Tell a file's model and method as the paper names them."""
    name = path.name.lower()
    for part, model in (("gpt-4", "GPT-4-turbo-0409"), ("gpt-3.5", "GPT-3.5-turbo-0125")):
        if part in name:
            return model, "released"
    model = "LLaMA3-70B" if "70b" in name else "LLaMA3-8B"
    if "instruct" in name or "-ins-" in name:
        model += "-Instruct"
    methods = {"vanill": "vanilla", "dpo": "dpo", "recaug": "harmful-prefix", "derta": "derta", "ours": "derta"}
    return model, next((method for part, method in methods.items() if part in name), "released")


def read_paper(path: Path) -> Paper:
    with path.open(encoding="utf-8") as file:
        return {(row["model"], row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}


def files_of(folder: Path, attack: str) -> list[Path]:
    found = sorted((folder / attack).glob("*.json"))
    if not found:
        raise SystemExit(f"released_results: no files in {folder / attack}")
    for path in sorted(set((folder / attack).iterdir()) - set(found)):
        print(f"left out: {path.name} (not JSON: a pickle is never opened)")
    return found


def cell(model: Model, attack: str, hits: int, n: int, paper: Paper) -> dict[str, Any]:
    low, high = wilson(hits, n)
    value, given = 100 * hits / n, paper.get((*model, attack))
    return {
        "model": model[0],
        "method": model[1],
        "metric": attack,
        "n": n,
        "value": round(value, 2),
        "ci_low": round(100 * low, 2),
        "ci_high": round(100 * high, 2),
        "paper": given,
        "error": None if given is None else round(value - given, 2),
    }


def print_cells(title: str, cells: Sequence[dict[str, Any]]) -> None:
    print(f"\n{title}")
    print(f"{'':<18}{'model':<21}{'method':<16}{'n':>4}{'paper':>7}{'rules':>7}{'error':>7}   95 % interval")
    for each in cells:
        given = "–" if each["paper"] is None else f"{each['paper']:.1f}"
        error = "" if each["error"] is None else f"{each['error']:+.1f}"
        interval = f"[{each['ci_low']:.1f}, {each['ci_high']:.1f}]"
        print(
            f"{each['metric']:<18}{each['model']:<21}{each['method']:<16}{each['n']:>4}{given:>7}{each['value']:>7.1f}"
            f"{error:>7}   {interval}"
        )


def errors_of(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean absolute and mean signed errors by metric, and over all cells that the paper has."""
    groups: dict[str, list[float]] = defaultdict(list)
    for each in cells:
        if each["error"] is not None:
            groups[each["metric"]].append(each["error"])
            groups["all"].append(each["error"])
    return {
        name: {
            "cells": len(errors),
            "mean_absolute_error": round(mean(map(abs, errors)), 2),
            "mean_error": round(mean(errors), 2),
        }
        for name, errors in groups.items()
    }


def positions(samples: Sequence[Sample]) -> list[int]:
    return [place for sample in samples if (place := sample.verdict.first_refusal) is not None]


def spread(samples: Sequence[Sample], *, whole_rows: bool = False) -> dict[str, Any]:
    """Where refusals begin, as shares of the responses that refuse.

    `whole_rows` counts from the start of the stored row: CompletingAttack's hold the prompt too.
    """
    found = [
        place + (len(sample.raw.split()) if whole_rows and sample.raw else 0)
        for sample in samples
        if (place := sample.verdict.first_refusal) is not None
    ]
    shares = {
        f"{start + 1}-{end or ''}": round(100 * mean(start <= place < (end or place + 1) for place in found), 1)
        for start, end in SPANS
    }
    return {"responses": len(samples), "refusals": len(found), "shares": shares}


def table_1(judged: Judged) -> list[dict[str, Any]]:
    """Count refusals within the first five words and later, for the models and attacks of 200 prompts."""
    print("\nTable 1: responses that refuse within the first five tokens / later")
    table = []
    for model, (early, late) in TABLE_1.items():
        parts = {
            attack: group for (of, attack), group in judged.items() if of == (model, "released") and len(group) == 200
        }
        found = [place for samples in parts.values() for place in positions(samples)]
        refusals = {attack: len(positions(samples)) for attack, samples in parts.items()}
        row = {
            "model": model,
            "refusals": refusals,
            "queries": sum(map(len, parts.values())),
            "within_5": sum(place < 5 for place in found),
            "later": sum(place >= 5 for place in found),
            "paper_within_5": early,
            "paper_later": late,
        }
        table.append(row)
        print(
            f"  {model:<20} paper {early} / {late} of 800; rules {row['within_5']} / {row['later']} of {row['queries']}"
        )
        print(f"  {'':<20} by attack: {', '.join(f'{attack} {count}' for attack, count in refusals.items())}")
    print("  The files hold 600 of the 800 queries (none of CompletingAttack for these models); the paper counts the")
    print("  refusal token, the rules any refusal.")
    return table


def figure_4(judged: Judged) -> dict[str, Any]:
    """Set out where refusals begin, counted in responses and in rows as they are stored."""
    print("\nFigure 4: where refusals begin, in words, % of the responses that refuse")
    figure = {}
    for model in ("LLaMA3-70B", "LLaMA3-8B"):
        for method in ("vanilla", "dpo", "harmful-prefix", "derta"):
            groups = {attack: group for (of, attack), group in judged.items() if of == (model, method)}
            samples = [sample for group in groups.values() for sample in group]
            found = {"response": spread(samples), "stored row": spread(samples, whole_rows=True)}
            figure[f"{model} {method}"] = {"attacks": list(groups), **found}
            for start, counted in found.items():
                shares = "  ".join(f"{span}: {share:5.1f}" for span, share in counted["shares"].items())
                name = f"{model:<11}{method:<15}" if start == "response" else " " * 26
                refused = f"{counted['refusals']:>4} of {counted['responses']:<4}"
                print(f"  {name} {refused} {shares}  from the {start}'s start ({len(groups)} attacks)")
    print(
        "  Paper (LLaMA3-70B): vanilla ~80 within the first five, derta 45-50; harmful-prefix 42.9 between the 6th\n"
        "  and the 30th; with RTO 22.3 beyond the 30th. CompletingAttack rows hold the prompt: counted from there the\n"
        "  figures come near the paper's. No files of the RTO-only model, none of harmful-prefix on CodeAttack."
    )
    return figure


def main() -> None:
    """Print the tables and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="the unpacked release")
    parser.add_argument("--paper", type=Path, required=True, help="CSV of the paper's figures")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    paper = read_paper(args.paper)
    safety, helpfulness = args.folder / "results" / "safety", args.folder / "results" / "helpfulness"
    prompts = args.folder / "data" / "test" / "safety_completionattack.json"

    judged: Judged = {}
    for folder, attack in ATTACKS.items():
        for path in files_of(safety, folder):
            responses = read_responses(path, prompts if folder == "completionattack" else None)
            judged[model_of(path), attack] = asyncio.run(
                judge_responses(responses, refusal, judge_name="refusal", attack=attack)
            )
    unscored = sum(sample.verdict.label == "unscored" for samples in judged.values() for sample in samples)
    cells = [
        cell(model, attack, sum(sample.verdict.label == "unsafe" for sample in samples), len(samples), paper)
        for (model, attack), samples in judged.items()
    ]
    both = [each for each in cells if each["paper"] is not None]
    print_cells(f"Attack success, %: the paper's readers and the rules ({len(both)} cells have both)", both)
    for name, errors in errors_of(both).items():
        print(
            f"  {name:<18} {errors['cells']:>2} cells: mean absolute error {errors['mean_absolute_error']:.2f}, "
            f"mean error {errors['mean_error']:+.2f}"
        )
    print(f"  unscored responses: {unscored}")
    alone = [each for each in cells if each["paper"] is None]
    print_cells(f"Files without a figure in the paper ({len(alone)})", alone)

    pair = []
    for path in files_of(safety, "pair"):
        summaries = read_responses(path)
        pair.append(
            cell(model_of(path), "PAIR", sum(bool(each.jailbroken) for each in summaries), len(summaries), paper)
        )
    print_cells("PAIR by its own summaries: its judge model's verdicts, where the paper's were read by hand", pair)
    print(f"  mean absolute error {errors_of(pair)['all']['mean_absolute_error']:.2f}")

    graded = []
    for task, metric in TASKS.items():
        for path in files_of(helpfulness, task):
            answers = asyncio.run(grade_responses(read_responses(path), task))
            graded.append(
                cell(
                    model_of(path),
                    metric,
                    sum(sample.verdict.correct is True for sample in answers),
                    len(answers),
                    paper,
                )
            )
    print_cells("Accuracy, %", graded)
    for metric in TASKS.values():
        errors = errors_of([each for each in graded if each["metric"] == metric])["all"]
        print(f"  {metric}: mean absolute error {errors['mean_absolute_error']:.2f} over {errors['cells']} cells")
    left = sorted({path.parent.name for path in helpfulness.glob("*/*")} - set(TASKS))
    print(f"  left out: {', '.join(left)} (judged by preference: no right answers)")

    table, figure = table_1(judged), figure_4(judged)
    if args.json:
        document = {
            "attacks": cells,
            "attack_errors": errors_of(cells),
            "unscored": unscored,
            "pair": pair,
            "accuracy": graded,
            "accuracy_errors": errors_of(graded),
            "table_1": table,
            "figure_4": figure,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
