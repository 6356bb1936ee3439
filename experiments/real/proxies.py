"""Where a greedy model would begin to refuse, from forward passes alone, and what a bias on refusal tokens changes.

    python -m experiments.real.proxies MODEL [MODEL ...] --untuned MODEL --data DIR

Along harmful answers of the behaviours for choosing: the share that is refused within ten tokens of each depth. Along
harmless ones (published answers to held-out prompts; the untuned model's own to borderline prompts): the share that is
interrupted anywhere in their first 80 tokens. A row for each bias that is added to the refusal tokens' logits: whether
one buys over-refusal back. Cheap, to choose recipes with; the page counts real answers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from derta.generation import ChatRequest, generate, load_model
from derta.generation.refusal import refusal_ids
from experiments.real.data import read, write

DEPTHS = (0, 5, 20, 80, 160)
WITHIN = 10
HARMLESS_TOKENS = 80
BIASES = (0.0, -1.0, -2.0, -3.0, -4.0)


def main() -> None:
    """Print the table of every model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--untuned", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    behaviours = read(args.data / "choosing" / "behaviours.jsonl")
    helpful = read(args.data / "choosing" / "helpful.jsonl")
    borderline = own_answers(args.untuned, args.data / "choosing" / "borderline.jsonl")
    print("| model | bias | " + " | ".join(f"refused @{depth}" for depth in DEPTHS) + " | helpful | borderline |")
    print("|---" * (len(DEPTHS) + 4) + "|")
    for path in args.models:
        model, tokenizer = load_model(str(path))
        ids = list(refusal_ids(str(path), tokenizer))
        harmful = [margins(model, tokenizer, ids, row, max(DEPTHS) + WITHIN) for row in behaviours]
        harmless = [
            [margins(model, tokenizer, ids, row, HARMLESS_TOKENS) for row in rows] for rows in (helpful, borderline)
        ]
        for bias in BIASES:
            refused = [_share([each[d : d + WITHIN] for each in harmful if len(each) > d], bias) for d in DEPTHS]
            interrupted = [_share(each, bias) for each in harmless]
            cells = [path.parent.name, f"{bias:g}", *(f"{share:.0f}" for share in (*refused, *interrupted))]
            print(f"| {' | '.join(cells)} |", flush=True)


def margins(model: Any, tokenizer: Any, ids: Sequence[int], row: dict[str, str], most: int) -> torch.Tensor:
    """Return by how much the likeliest refusal token leads all others, after the prompt and each token of an answer."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, return_dict=False
    )
    answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"][:most]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :]
    others = logits.clone()
    others[:, list(ids)] = -torch.inf
    lead: torch.Tensor = logits[:, list(ids)].amax(-1) - others.amax(-1)
    return lead


def own_answers(model_path: Path, prompts: Path) -> list[dict[str, str]]:
    """Return the untuned model's answers to prompts, kept beside them."""
    kept = prompts.with_name(f"{prompts.stem}.{model_path.name}.jsonl")
    if not kept.exists():
        model, tokenizer = load_model(str(model_path))
        rows = read(prompts)
        requests = [ChatRequest(({"role": "user", "content": row["prompt"]},)) for row in rows]
        made = generate(model, tokenizer, requests, HARMLESS_TOKENS)
        write(kept, [{**row, "response": each.continuation} for row, each in zip(rows, made, strict=True)])
    return read(kept)


def _share(answers: Sequence[torch.Tensor], bias: float) -> float:
    """Return in how many answers, in %, a refusal token would be chosen somewhere."""
    return 100 * sum(bool((each + bias > 0).any()) for each in answers) / max(1, len(answers))


if __name__ == "__main__":
    main()
