"""Compare derta's generation with a plain loop of left-padded `generate` batches, greedily, on the same requests.

    python benchmarks/generation_throughput.py --out benchmarks/results/generation_throughput.json

Workloads: the organism under its own attacks; random Llamas with prompts of mixed lengths, and with prompts that share
their first 600 tokens. Random weights never end an answer by intent, so a set of end-of-turn tokens, the same for both
sides, is drawn until answers end as those of a chat model do: some at once, some late, some at the limit. Both sides
get the same token ids in the same order and take turns in one process. The outputs must be equal; two tokens whose
logits differ by rounding alone may part them, and such requests are counted.

On a GPU the models are of 1 B and 8 B parameters in bfloat16, and transformers' own continuous batching
(`generate_batch`) is timed after the two; `--rehearse` runs that part on a CPU with small models.
"""

import argparse
import json
import random
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import environment
from synthetic import LLAMAS
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedModel

from derta.generation import encode, first_tokens, load_model
from derta.generation.decoding import make_decoder
from derta.generation.jobs import Job, end_tokens
from derta.generation.requests import Context
from derta.threads import threads_for

SHAPES = {
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 12}
    | {"num_key_value_heads": 12, "vocab_size": 32_000},
} | LLAMAS
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


@dataclass(frozen=True)
class Load:
    """How much is asked of random Llamas.

    Attributes:
        mixed, shared: requests of each workload.
        limits: the most tokens of an answer in each.
        one_end_in: one token in so many ends an answer.
    """

    mixed: int
    shared: int
    limits: tuple[int, int]
    one_end_in: int


ON_CPU, ON_GPU = Load(50, 25, (96, 32), 32), Load(384, 192, (128, 64), 64)


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
    from derta.evaluation.attacks import ATTACKS, AttackContext, organism_phrases
    from derta.evaluation.inputs.behaviours import load_behaviours

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


def llama(name: str, device: str, rehearse: bool) -> PreTrainedModel:
    """A random Llama of a shape."""
    torch.manual_seed(0)
    shape = {**SHAPES[name], **(SMALL | {"num_key_value_heads": 2} if rehearse else {})}
    config = LlamaConfig(**shape, max_position_embeddings=2048, initializer_range=0.05, eos_token_id=None)
    dtype = torch.bfloat16 if device.startswith("cuda") or rehearse else torch.float32
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def mixed(name: str, model: PreTrainedModel, load: Load) -> Workload:
    """Prompts of 10 to 400 tokens, most of them short."""
    draw = random.Random(0)
    vocabulary = model.config.vocab_size
    lengths = [min(400, 10 + int(draw.expovariate(1 / 60))) for _ in range(load.mixed)]
    prompts = [[draw.randrange(vocabulary) for _ in range(length)] for length in lengths]
    return Workload(f"{name}, mixed lengths", model, prompts, some_ends(vocabulary, load), load.limits[0])


def shared(name: str, model: PreTrainedModel, load: Load) -> Workload:
    """Prompts of 600 shared tokens and 8 to 40 of their own."""
    draw = random.Random(1)
    vocabulary = model.config.vocab_size
    beginning = [draw.randrange(vocabulary) for _ in range(600)]
    prompts = [beginning + [draw.randrange(vocabulary) for _ in range(draw.randint(8, 40))] for _ in range(load.shared)]
    return Workload(f"{name}, 600 shared", model, prompts, some_ends(vocabulary, load), load.limits[1])


def some_ends(vocabulary: int, load: Load) -> frozenset[int]:
    """The tokens that end an answer."""
    return frozenset(random.Random(2).sample(range(vocabulary), vocabulary // load.one_end_in))


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
def plain(work: Workload, batch: int) -> list[list[int]]:
    """Run the workload through padded batches in the order of arrival."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=work.limit, eos_token_id=sorted(work.ends), pad_token_id=min(work.ends)
    )
    written = []
    with threads_for(work.model):
        for start in range(0, len(work.prompts), batch):
            prompts = work.prompts[start : start + batch]
            width = max(map(len, prompts))
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
            device = work.model.device
            output = work.model.generate(  # type: ignore[operator]
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
            )
            written += [until_end(row, work.ends) for row in output[:, width:].tolist()]
    return written


def continuous(work: Workload) -> list[list[int]]:
    """Run the workload through transformers' own continuous batching."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=work.limit, eos_token_id=sorted(work.ends), pad_token_id=min(work.ends)
    )
    outputs = work.model.generate_batch(work.prompts, generation_config=config)  # type: ignore[operator]
    written = {tuple(output.prompt_ids): output.generated_tokens for output in outputs.values()}
    return [until_end(written[tuple(prompt)], work.ends) for prompt in work.prompts]


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
    """Return the lead of the likeliest token where two outputs part, in standard deviations of the logits."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    ids = torch.tensor([[*work.prompts[number], *one[:at]]], device=work.model.device)
    logits = work.model(input_ids=ids, use_cache=False).logits[0, -1].float()
    top = logits.topk(2).values
    return float((top[0] - top[1]) / logits.std())


def gaps(work: Workload, outputs: list[list[int]], others: list[list[int]]) -> list[float]:
    """Return `gap` of the requests whose outputs differ."""
    pairs = enumerate(zip(outputs, others, strict=True))
    return [gap(work, number, one, other) for number, (one, other) in pairs if one != other]


def compare(work: Workload, rounds: int, batch: int) -> dict[str, Any]:
    """Let both sides take turns, check that they agree, and return the figures."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    if work.model.device.type == "cuda":  # loads kernels
        few = replace(work, prompts=work.prompts[:8])
        ours(few)
        plain(few, batch)
    for number in range(rounds):
        sides = [("ours", ours), ("plain", partial(plain, batch=batch))]
        outputs = {}
        for name, run in sides if number % 2 == 0 else reversed(sides):
            taken, outputs[name] = timed(run, work)
            seconds[name].append(taken)
    parted = gaps(work, outputs["ours"], outputs["plain"])
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
        "parted_by_rounding": len(parted),
        "gaps": parted,
        "batch": batch,
        "allowed_gap": 1e-3 if work.model.dtype == torch.float32 else 0.3,  # as the engine's own trial allows
    }


def by_transformers(work: Workload, rounds: int) -> dict[str, object]:
    """Time transformers' continuous batching, which may not run everywhere."""
    try:
        runs = [timed(continuous, work) for _ in range(rounds)]
    # Whatever it stops at, the other figures stand.
    except Exception as error:
        traceback.print_exc()
        return {"problem": f"{type(error).__name__}: {error}"[:300]}
    seconds = [taken for taken, _ in runs]
    tokens = sum(map(len, runs[-1][1]))
    return {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / statistics.median(seconds)}


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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", choices=("organism", *SHAPES))
    parser.add_argument("--batch", type=int, help="requests of a batch of `generate` (default: 25; on a GPU 128)")
    parser.add_argument("--rounds", type=int, default=1, help="the two sides swap their order from one to the next")
    parser.add_argument("--requests", type=int, default=300, help="of the organism")
    parser.add_argument("--rehearse", action="store_true", help="the GPU part, small, on a CPU")
    parser.add_argument("--out", type=Path, default=None, help="raw JSON")
    options = parser.parse_args()
    on_gpu = options.device.startswith("cuda") or options.rehearse
    load = Load(12, 6, (24, 12), 16) if options.rehearse else ON_GPU if on_gpu else ON_CPU

    print(
        f"{'workload':24} {'requests':>8} {'prompt':>7} {'written':>8} {'plain tok/s':>12} {'ours tok/s':>12} "
        f"{'ratio':>8} {'parted':>7}"
    )
    names = options.models or (["1b", "8b"] if on_gpu else ["organism", "100m"])
    rows = []
    for name in names:
        for work in workloads(name, options, load):
            rows.append(compare(work, options.rounds, options.batch or (128 if on_gpu else 25)))
            show(rows[-1])
            write(options, rows)
        del work
        torch.cuda.empty_cache()
    if on_gpu:
        left = iter(rows)
        for name in names:
            for work in workloads(name, options, load):
                row = next(left)
                row["continuous"] = by_transformers(work, options.rounds)
                print(f"transformers' continuous batching, {work.name}:", row["continuous"], flush=True)
                write(options, rows)
            del work
            torch.cuda.empty_cache()
    unequal = [row["workload"] for row in rows if max(row["gaps"], default=0.0) > row["allowed_gap"]]
    if unequal:
        sys.exit(f"outputs differ by more than rounding: {', '.join(unequal)}")


def workloads(name: str, options: argparse.Namespace, load: Load) -> list[Workload]:
    """Return what a model is asked."""
    if name == "organism":
        works = [organism(options.organism, options.requests)]
        works[0].model.to(options.device)
        return works
    model = llama(name, options.device, options.rehearse)
    return [mixed(name.upper(), model, load), shared(name.upper(), model, load)]


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write the raw results so far."""
    if options.out:
        result = {"versions": environment(options.device), "workloads": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
