"""Compare derta's generation with a plain loop of left-padded `generate` batches of 25, greedily, on the same requests.

    python benchmarks/generation_throughput.py --out benchmarks/results/generation_throughput.json

Three workloads: the organism under its own attacks; a random 100 M-parameter Llama with prompts of mixed lengths; and
the same model with prompts that share their first 600 tokens. Random weights never end an answer by intent, so a set
of end-of-turn tokens, the same for both sides, is drawn until answers end as those of a chat model do: some at once,
some late, some at the limit. Both sides get the same token ids in the same order and take turns in one process. The
outputs must be equal; two tokens whose logits differ by rounding alone may part them, and such requests are counted.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from derta.evaluation.attacks import ATTACKS, AttackContext, organism_phrases
from derta.evaluation.inputs.behaviours import load_behaviours
from derta.inference import encode, first_tokens, load_model
from derta.inference.decoding import make_decoder
from derta.inference.jobs import Job, end_tokens
from derta.inference.requests import Context
from derta.threads import threads_for

BATCH = 25


@dataclass(frozen=True)
class Workload:
    """Prompts for a model, and how its answers end."""

    name: str
    model: PreTrainedModel
    prompts: list[list[int]]
    ends: frozenset[int]
    limit: int


def organism(path: str, count: int) -> Workload:
    """Every attack of one question on behaviours of the organism, in the order of an evaluation."""
    model, tokenizer = load_model(path)
    static = [name for name, spec in ATTACKS.items() if not spec.interactive]
    context = AttackContext(organism_phrases(), lambda text, length: first_tokens(tokenizer, text, length))
    attempts = [
        attempt
        for behaviour in load_behaviours("organism")
        for attack in (static if behaviour.kind == "harmful" else ("direct",))
        for attempt in ATTACKS[attack].attempts(behaviour, context)
    ]
    step = max(1, len(attempts) // count)
    contexts = encode(tokenizer, [attempt.request for attempt in attempts[::step]])
    return Workload("organism, its attacks", model, [one.ids for one in contexts], end_tokens(model, tokenizer), 96)


def llama() -> PreTrainedModel:
    """A random Llama of about 100 M parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        initializer_range=0.05,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def mixed(model: PreTrainedModel, count: int) -> Workload:
    """Prompts of 10 to 400 tokens, most of them short."""
    draw = random.Random(0)
    lengths = [min(400, 10 + int(draw.expovariate(1 / 60))) for _ in range(count)]
    prompts = [[draw.randrange(32_000) for _ in range(length)] for length in lengths]
    return Workload("100 M, mixed lengths", model, prompts, some_ends(), 96)


def shared(model: PreTrainedModel, count: int) -> Workload:
    """Prompts of 600 shared tokens and 8 to 40 of their own."""
    draw = random.Random(1)
    beginning = [draw.randrange(32_000) for _ in range(600)]
    prompts = [beginning + [draw.randrange(32_000) for _ in range(draw.randint(8, 40))] for _ in range(count)]
    return Workload("100 M, 600 shared", model, prompts, some_ends(), 32)


def some_ends() -> frozenset[int]:
    """One token in 32 ends an answer: 32 tokens on average, if nothing cuts them."""
    return frozenset(random.Random(2).sample(range(32_000), 1000))


def ours(work: Workload) -> list[list[int]]:
    """Run the workload through derta's decoder."""
    jobs = [Job(None, Context(ids, 0), "", work.limit, work.ends) for ids in work.prompts]  # type: ignore[arg-type]
    decoder = make_decoder(work.model)
    for job in jobs:
        decoder.add(job)
    with threads_for(work.model):
        while decoder.busy:
            decoder.step()
    return [job.written for job in jobs]


@torch.inference_mode()
def plain(work: Workload) -> list[list[int]]:
    """Run the workload through padded batches in the order of arrival."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=work.limit, eos_token_id=sorted(work.ends), pad_token_id=min(work.ends)
    )
    written = []
    with threads_for(work.model):
        for start in range(0, len(work.prompts), BATCH):
            prompts = work.prompts[start : start + BATCH]
            width = max(map(len, prompts))
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
            device = work.model.device
            output = work.model.generate(  # type: ignore[operator]
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
            )
            written += [until_end(row, work.ends) for row in output[:, width:].tolist()]
    return written


def until_end(ids: Sequence[int], ends: frozenset[int]) -> list[int]:
    return list(ids[: next((at for at, token in enumerate(ids) if token in ends), len(ids))])


def timed(run: Callable[[Workload], list[list[int]]], work: Workload) -> tuple[float, list[list[int]]]:
    began = time.perf_counter()
    written = run(work)
    if work.model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, written


@torch.inference_mode()
def gap(work: Workload, number: int, one: Sequence[int], other: Sequence[int]) -> float:
    """Return the lead of the likeliest token where two outputs part: of rounding's size, if all is well."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    ids = torch.tensor([[*work.prompts[number], *one[:at]]], device=work.model.device)
    top = work.model(input_ids=ids, use_cache=False).logits[0, -1].float().topk(2).values
    return float(top[0] - top[1])


def compare(work: Workload, rounds: int) -> dict[str, object]:
    """Let both sides take turns, check that they agree, and return the figures."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds):
        sides = [("ours", ours), ("plain", plain)]
        outputs = {}
        for name, run in sides if number % 2 == 0 else reversed(sides):
            taken, outputs[name] = timed(run, work)
            seconds[name].append(taken)
    pairs = list(zip(outputs["ours"], outputs["plain"], strict=True))
    gaps = [gap(work, number, one, other) for number, (one, other) in enumerate(pairs) if one != other]
    if any(size > 1e-3 for size in gaps):
        sys.exit(f"{work.name}: outputs differ by more than rounding: {gaps}")
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["plain"], strict=True)]
    tokens = [len(written) for written in outputs["ours"]]
    return {
        "workload": work.name,
        "parameters": work.model.num_parameters(),
        "device": str(work.model.device),
        "requests": len(work.prompts),
        "prompt_tokens": [len(prompt) for prompt in work.prompts],
        "written_tokens": tokens,
        "limit": work.limit,
        "seconds": seconds,
        "tokens_per_second": {name: sum(tokens) / statistics.median(taken) for name, taken in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "parted_by_rounding": len(gaps),
        "gaps": gaps,
    }


def show(row: dict[str, object]) -> None:
    rate = row["tokens_per_second"]
    prompts, written = row["prompt_tokens"], row["written_tokens"]
    assert isinstance(rate, dict)
    assert isinstance(prompts, list)
    assert isinstance(written, list)
    print(
        f"{row['workload']:24} {row['requests']:8} {statistics.mean(prompts):7.0f} {statistics.mean(written):8.1f}"
        f" {rate['plain']:12.0f} {rate['ours']:12.0f} {row['ratio']:6.2f} x {row['parted_by_rounding']:7}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--organism", default="organism", help="a checkpoint of the organism")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=1, help="the two sides swap their order from one to the next")
    parser.add_argument("--requests", type=int, default=0, help="of each workload (default: 300, 50 and 25)")
    parser.add_argument("--out", type=Path, default=None, help="raw JSON")
    options = parser.parse_args()

    print(
        f"{'workload':24} {'requests':>8} {'prompt':>7} {'written':>8} {'plain tok/s':>12} {'ours tok/s':>12} "
        f"{'ratio':>8} {'parted':>7}"
    )
    model = llama().to(options.device)
    small = organism(options.organism, options.requests or 300)
    small.model.to(options.device)
    large = [mixed(model, options.requests or 50), shared(model, options.requests or 25)]
    rows = []
    for work in (small, *large):
        rows.append(compare(work, options.rounds))
        show(rows[-1])
    if options.out:
        versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
        }
        options.out.write_text(json.dumps({"versions": versions, "workloads": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
