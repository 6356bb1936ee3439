"""The organism at other sizes (the paper's Figure 6): the paper's `derta` and the recommended recipe.

    python -m experiments.scripts.organism_sizes --out runs/sizes

Each size's base learns the same world from the same corpus with as many steps, and goes on as the making of
bases does until it knows its world in every form; one that doesn't come to know it is listed and not tuned. Then both
methods tune it as in the study, and it is attacked. What is finished in `--out` is kept. Writes
`experiments/results/organism_sizes.json` and prints the table of `docs/lab/studies.md`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from derta.files import write_json
from derta.names import WORLD
from derta.organism import World
from derta.organism.tokenizer import build_tokenizer
from experiments.organism_base.build import FURTHER_ROUNDS, FURTHER_STEPS, SEED, STEPS, save_base, train_base
from experiments.organism_base.competence import competence, is_competent
from experiments.scripts.attacked import ATTACKS, RECIPES, attack, train

RESULTS = Path(__file__).parents[1] / "results" / "organism_sizes.json"
SIZES = {"small": (64, 192, 4, 4), "packaged": (128, 384, 4, 4), "large": (208, 624, 5, 4)}
"""Width, width of the feed-forward layers, layers, heads. `packaged` is the size that the package carries."""


def build(size: str, world: int, out: Path) -> dict[str, Any]:
    """Make the base of a size as far as that isn't done; return its parameters, steps and worst form."""
    if (out / "made.json").is_file():
        made: dict[str, Any] = json.loads((out / "made.json").read_text(encoding="utf-8"))
        return made
    tokenizer = build_tokenizer()
    width, inner, layers, heads = SIZES[size]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    setattr(config, WORLD, world)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    steps = 0
    for number, more in enumerate((STEPS, *(FURTHER_STEPS,) * FURTHER_ROUNDS)):
        model = train_base(World(world), SEED + number, more, model=model)
        steps += more
        found = competence(model, tokenizer, World(world))
        if is_competent(found):
            break
    save_base(model, out)
    worst = min(found, key=lambda form: form.correct / form.total)
    made = {
        "parameters": model.num_parameters(),
        "steps": steps,
        "worst_form": worst.form,
        "worst": 100 * worst.correct / worst.total,
        "is_competent": is_competent(found),
    }
    write_json(out / "made.json", made)
    return made


def measure(size: str, world: int, seed: int, limit: int, out: Path) -> dict[str, Any]:
    """Build, tune and attack one size in one world."""
    folder = out / f"{size}-{world}"
    found: dict[str, Any] = build(size, world, folder / "base")
    if not found["is_competent"]:
        return found
    for name, recipe in RECIPES.items():
        tuned = folder / f"{name}-{seed}"
        train(recipe, folder / "base", seed, tuned)
        found[name] = attack(tuned, folder / f"{name}-{seed}-evaluation", limit)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=[4])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=40, help="behaviours of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/sizes"), help="directory of the runs")
    args = parser.parse_args()
    found = {
        size: {world: measure(size, world, args.seed, args.limit, args.out) for world in args.worlds}
        for size in args.sizes
    }
    write_json(RESULTS, {"seed": args.seed, "limit": args.limit, "attacks": ATTACKS, "sizes": found})
    title = "mean attack success / borderline refusals, %"
    table = Table("size", "world", "parameters", "steps", "worst form", *RECIPES, title=title)
    for size, worlds in found.items():
        for world, each in worlds.items():
            tuned = [each.get(name) for name in RECIPES]
            shown = [f"{at['asr']:.1f} / {at['over_refusal']:.1f}" if at else "not tuned" for at in tuned]
            worst = f"{each['worst']:.0f} % {each['worst_form']}"
            table.add_row(size, str(world), f"{each['parameters']:,}", f"{each['steps']:,}", worst, *shown)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
