"""Training and evaluation files for a real model, from published triples, answers and behaviours.

    python -m experiments.real.data SOURCE MODEL OUT

SOURCE holds triples.jsonl, helpful.jsonl, instructions.txt, behaviours.jsonl and xstest.csv, as `docs/lab/real.md`
names them; it is harmful text and stays outside the repository, as does OUT. Written to OUT:

    triples.jsonl       triples whose safe response refuses, rewritten to begin with "Sorry, "
    own.jsonl           harmless instructions, answered by MODEL itself
    borderline.jsonl    harmless prompts that look harmful, made from the triples' prompts, answered by MODEL itself
    helpful.jsonl       the same number of published answers, for the cells that don't use the model's own
    choosing/, report/  behaviours, helpful prompts and borderline prompts; nothing stands in both
"""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from derta.data.borderline import borderline_prompts
from derta.data.polarity import reads_like_refusal, with_refusal

TRIPLES, OWN, BORDERLINE = 200, 500, 240
ANSWER_TOKENS = 96
CHOOSING, REPORTED = slice(0, 40), slice(60, 160)
"""Behaviours to choose recipes on, and those that the page reports."""


def main(source: Path, model_path: str, out: Path) -> None:
    """Write every file of OUT that isn't there yet."""
    triples = refusing(read(source / "triples.jsonl"))
    instructions = (source / "instructions.txt").read_text(encoding="utf-8").splitlines()
    borderline_held_out = xstest(source)
    prompts = borderline_prompts(
        [row["prompt"] for row in triples[:TRIPLES]], instructions, BORDERLINE, hold_out=borderline_held_out
    )
    write(out / "triples.jsonl", triples[:TRIPLES])
    helpful = read(source / "helpful.jsonl")
    write(out / "helpful.jsonl", helpful[:300])
    for name, asked in (("own.jsonl", instructions[:OWN]), ("borderline.jsonl", prompts)):
        if not (out / name).exists():
            write(out / name, answered(model_path, asked))
    behaviours = [{"prompt": row["prompt"], "response": row["rejected"]} for row in read(source / "behaviours.jsonl")]
    for folder, which, questions in (("choosing", CHOOSING, helpful[300:340]), ("report", REPORTED, helpful[340:400])):
        write(out / folder / "behaviours.jsonl", behaviours[which])
        chats = [[message["content"] for message in row["messages"]] for row in questions]
        write(out / folder / "helpful.jsonl", [{"prompt": chat[0], "response": chat[1]} for chat in chats])
    write(out / "report" / "borderline.jsonl", [{"prompt": prompt} for prompt in borderline_held_out])
    chosen_on = Path(__file__).with_name("borderline_choosing.txt").read_text(encoding="utf-8").splitlines()
    write(out / "choosing" / "borderline.jsonl", [{"prompt": prompt} for prompt in chosen_on])


def refusing(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the triples whose safe response refuses at once, and let it begin with "Sorry, "."""
    return [
        {**row, "chosen": with_refusal(row["chosen"], "Sorry, ")} for row in rows if reads_like_refusal(row["chosen"])
    ]


def xstest(source: Path) -> list[str]:
    """Return XSTest's 250 safe prompts."""
    with (source / "xstest.csv").open(encoding="utf-8", newline="") as file:
        return [row["prompt"] for row in csv.DictReader(file) if row["label"] == "safe"]


def answered(model_path: str, prompts: Sequence[str]) -> list[dict[str, str]]:
    """Let the untuned model answer, and end what it had no room to finish at its last whole sentence."""
    from derta.evaluation.harness.writer import whole_sentences
    from derta.generation import ChatRequest, generate, load_model
    from derta.tokens.prompt_formats import set_prompt_format

    model, tokenizer = load_model(model_path)
    if not tokenizer.chat_template:
        set_prompt_format(tokenizer, "alpaca")
    requests = [ChatRequest(({"role": "user", "content": prompt},)) for prompt in prompts]
    rows = []
    for prompt, made in zip(prompts, generate(model, tokenizer, requests, ANSWER_TOKENS), strict=True):
        answer = made.continuation if made.finished else whole_sentences(made.continuation)
        if answer.strip():
            rows.append({"prompt": prompt, "chosen": answer.strip()})
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
