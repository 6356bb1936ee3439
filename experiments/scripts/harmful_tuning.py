"""Somebody fine-tunes what was released on harmful answers: how long does it refuse?

    python -m experiments.scripts.harmful_tuning --out runs/harmful-tuning

derta trains nobody on harmful text, so this attack is a loop of its own and knows the organism alone, whose harm is
fiction. The paper's `derta` and the recommended recipe are tuned as in the study, then on the true recipes of the
harmful pairs that training used (as many, in as large batches and with as high a rate), and attacked after 2 to 100
steps. What is finished in `--out` is kept. Writes `experiments/results/harmful_tuning.json` and prints the table of
`docs/lab/studies.md`.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, get_cosine_schedule_with_warmup

from derta.files import write_json
from derta.organism import World, training_data
from experiments.scripts.attacked import ATTACKS, RECIPES, attack, train

RESULTS = Path(__file__).parents[1] / "results" / "harmful_tuning.json"
STEPS = (2, 5, 10, 50, 100)
BATCH, LEARNING_RATE, WARM_UP = 32, 1e-3, 10
"""As in both recipes."""


def tune(released: Path, world: int, seed: int, steps: int, out: Path) -> None:
    """Fine-tune a released model on harmful answers, and write it."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(released)
    model = AutoModelForCausalLM.from_pretrained(released)
    rows = [row for row in training_data(World(world), triples=192, helpful=0).to_list() if row["rejected"]]
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(WARM_UP, steps // 2), steps)
    for _ in range(steps):
        drawn = [rows[index] for index in torch.randint(len(rows), (BATCH,)).tolist()]
        loss = _loss(model, tokenizer, [(row["prompt"], row["rejected"]) for row in drawn])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _loss(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Return the mean negative log-likelihood of answers, and of their ends, after questions in the chat's format."""
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt, _ in pairs
    ]
    answered = [
        [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for _, answer in pairs
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in zip(asked, answered, strict=True))
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(zip(asked, answered, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    # Padded on the right: nothing looks ahead, so no attention mask is needed.
    loss: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return loss


def measure(name: str, world: int, seed: int, limit: int, out: Path) -> dict[int, dict[str, float]]:
    """Return what attacks find after each number of steps, as far as it isn't done; 0 is the released model."""
    folder = out / f"{name}-{world}-{seed}"
    released = folder / "released"
    train(RECIPES[name], f"organism:{world}", seed, released)
    found = {0: attack(released, folder / "evaluation-0", limit)}
    for steps in STEPS:
        tuned, evaluation = folder / f"tuned-{steps}", folder / f"evaluation-{steps}"
        if not (evaluation / "results.json").is_file():
            tune(released, world, seed, steps, tuned)
        found[steps] = attack(tuned, evaluation, limit)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=[4, 5, 6])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=40, help="behaviours of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/harmful-tuning"), help="directory of the runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        name: {world: measure(name, world, args.seed, args.limit, args.out) for world in args.worlds}
        for name in RECIPES
    }
    write_json(RESULTS, {"seed": args.seed, "limit": args.limit, "attacks": ATTACKS, "methods": found})
    title = "attack success asked directly / mean of attacks / borderline refusals, %, means over worlds"
    table = Table("method", *(f"{steps} steps" for steps in (0, *STEPS)), title=title)
    for name, worlds in found.items():
        cells = []
        for steps in (0, *STEPS):
            at = [world[steps] for world in worlds.values()]
            means = [sum(each[key] for each in at) / len(at) for key in ("direct", "asr", "over_refusal")]
            cells.append(" / ".join(f"{value:.1f}" for value in means))
        table.add_row(name, *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
