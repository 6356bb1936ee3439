"""Peak memory and time of the loss alone, forward and backward, at a large vocabulary.

    python benchmarks/loss_memory.py --out benchmarks/results/loss_memory.json

Hidden states of 4,096 targets, an output head of 128,256 x D and the targets are given; asked for is the mean negative
log-likelihood and its gradient with respect to the hidden states and, where the head is trained, the head. Candidates:

- full: logits of all targets in one piece, float32, and `cross_entropy`, as a stock `forward` with labels computes it.
- recomputed: chunks whose logits are computed again in the backward pass (derta's form for heads that are sharded,
  quantised or hooked).
- derta: chunks whose gradients are computed in the forward pass (`derta.method.chunked_log_probs`).
- torch: `torch.nn.functional.linear_cross_entropy` with its own choice of chunks (torch 2.13 and later).
- liger: `LigerFusedLinearCrossEntropyLoss`, where installed and on a GPU.

Candidates take turns, on a CPU each run in a process of its own. Memory is what is held at most beyond the inputs;
`loss MB` is without the gradients that every candidate has to return (the head's takes 525 MB at D = 1,024). On a
CPU it is resident memory (Linux), and times are CPU seconds, which on one thread are those of a machine of one's own.
Losses and gradient norms must agree. Full logits of the default size hold 7 GB on a CPU.
"""

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import PeakMemory, Stopwatch, environment, in_own_process
from torch.nn import functional as F

from derta.method.chunked_log_probs import Targets, chunk_values, target_log_probs

Loss = Callable[[torch.Tensor, torch.nn.Linear, torch.Tensor], torch.Tensor]


def full(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets)


def torch_chunked(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    return F.linear_cross_entropy(hidden, head.weight, targets, options=torch.nn.LinearCrossEntropyOptions())


def liger(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(head.weight, hidden, targets)


def derta(chunk_values: int, recomputed: bool) -> Loss:
    def loss(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
        what = Targets(
            targets,
            use_refusal_set=torch.zeros_like(targets, dtype=torch.bool),
            refusal_ids=targets[:1],
            weights=None if recomputed else torch.ones(len(targets), device=hidden.device),
        )
        return -target_log_probs(hidden, what, head, None, chunk=chunk_values // head.out_features)[0].mean()

    return loss


def candidates(device: str, chunk_values: int) -> dict[str, Loss]:
    losses = {"full": full, "recomputed": derta(chunk_values, True), "derta": derta(chunk_values, False)}
    if hasattr(F, "linear_cross_entropy"):
        losses["torch"] = torch_chunked
    if device.startswith("cuda") and importlib.util.find_spec("liger_kernel"):
        losses["liger"] = liger
    return losses


def measure(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Run one candidate once in this process."""
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    hidden = torch.randn(options.targets, options.hidden, device=options.device, dtype=dtype, requires_grad=True)
    head = torch.nn.Linear(options.hidden, options.vocabulary, bias=False, device=options.device, dtype=dtype)
    head.weight.requires_grad_(not options.frozen)
    targets = torch.randint(options.vocabulary, (options.targets,), device=options.device)
    loss_of = candidates(options.device, options.chunk_values)[name]
    loss_of(hidden[:8], head, targets[:8]).backward()  # what a device loads and compiles at first
    if options.device.startswith("cuda"):
        loss_of(hidden, head, targets).backward()
    hidden.grad = head.weight.grad = None
    memory, watch = PeakMemory(options.device), Stopwatch(options.device)
    loss = loss_of(hidden, head, targets)
    loss.backward()
    wall, cpu = watch.read()
    row = {"peak_bytes": memory.read(), "wall_seconds": wall, "cpu_seconds": cpu, "loss": loss.item()}
    row["loss_bytes"] = row["peak_bytes"]
    for name, tensor in (("hidden", hidden), ("head", head.weight)):
        if tensor.grad is not None:
            row["loss_bytes"] -= tensor.grad.nbytes
            row[f"gradient_norm_{name}"] = tensor.grad.float().norm().item()
    return row


def check_equal(runs: dict[str, list[dict[str, float]]], tolerance: float) -> None:
    reference = runs["full"][0]
    for name, rows in runs.items():
        for key in (key for key in reference if key == "loss" or key.startswith("gradient_norm")):
            if abs(rows[0][key] - reference[key]) > tolerance * abs(reference[key]):
                sys.exit(f"{name}: {key} is {rows[0][key]}, of full logits {reference[key]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=128256)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frozen", action="store_true", help="the head is not trained, as under LoRA")
    parser.add_argument("--chunk-values", type=int, help="default: derta's on this device")
    parser.add_argument(
        "--candidates", nargs="+", default=["recomputed", "derta", "torch", "liger"], help="besides full"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="one candidate, once, in this process")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.chunk_values is None:
        options.chunk_values = chunk_values(torch.device(options.device).type)
    if options.only:
        print(json.dumps(measure(options, options.only)))
        return

    names = ["targets", "vocabulary", "hidden", "dtype", "device", "chunk_values"]
    rows = []
    print(
        f"{'head':8}{'candidate':12}"
        f"{'peak MB':>9}{'of full':>9}{'loss MB':>9}{'of full':>9}{'seconds':>9}{'of full':>9}"
    )
    for frozen in (True,) if options.frozen else (False, True):
        arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
        arguments += ["--frozen"] if frozen else []
        runs: dict[str, list[dict[str, float]]] = {
            name: [] for name in candidates(options.device, 1) if name in ("full", *options.candidates)
        }
        for _ in range(options.repeats):
            for name in runs:
                if options.device == "cpu":
                    runs[name].append(in_own_process(__file__, [*arguments, "--only", name]))
                else:
                    runs[name].append(measure(argparse.Namespace(**{**vars(options), "frozen": frozen}), name))
                    torch.cuda.empty_cache()
        check_equal(runs, 1e-5 if options.dtype == "float32" else 1e-2)
        seconds = "cpu_seconds" if options.device == "cpu" else "wall_seconds"
        for name, done in runs.items():
            keys = ("peak_bytes", "loss_bytes", seconds)
            median = {key: statistics.median(run[key] for run in done) for key in keys}
            of_full = {
                key: statistics.median(a[key] / b[key] for a, b in zip(done, runs["full"], strict=True)) for key in keys
            }
            print(
                f"{'frozen' if frozen else 'trained':8}{name:12}"
                f"{median['peak_bytes'] / 1e6:9.0f}{of_full['peak_bytes']:9.3f}"
                f"{median['loss_bytes'] / 1e6:9.0f}{of_full['loss_bytes']:9.3f}"
                f"{median[seconds]:9.4f}{of_full[seconds]:9.3f}",
                flush=True,
            )
            head = "frozen" if frozen else "trained"
            rows.append({"head": head, "candidate": name, "of_full": of_full, "runs": done})
        if options.out:
            settings = {name: getattr(options, name) for name in names}
            result = {"environment": environment(options.device), "settings": settings, "rows": rows}
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
