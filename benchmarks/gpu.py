"""Everything that is to be measured on a GPU, in two parts of at most nine minutes each.

    python benchmarks/gpu.py --part 1 --out results
    python benchmarks/gpu.py --part 2 --out results

Each job is a process of its own with a time limit: one that fails, runs out of memory or lacks a package leaves the
others alone. `results` gets their raw JSON, what they printed (`part-N.log`) and how they ended (`part-N.json`);
whatever a job wrote before it was stopped counts. `--rehearse` runs the same jobs on a CPU with small models.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from measuring import environment

HERE = Path(__file__).parent
PART_SECONDS = 540.0


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: names it and its results.
        seconds: the most that it may take.
        command: goes to Python; `OUT` in it is the path of its raw JSON.
        on_gpu, rehearsed: what is added on a GPU, and in a rehearsal.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    on_gpu: tuple[str, ...] = ()
    rehearsed: tuple[str, ...] = ("--rehearse",)

    def arguments(self, out: Path, rehearse: bool) -> list[str]:
        """Return the command with the paths of this run."""
        more = self.rehearsed if rehearse else self.on_gpu
        return [str(out / f"{self.name}.json") if word == "OUT" else word for word in (*self.command, *more)]


def script(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(HERE / f"{name}.py"), *arguments, "--out", "OUT")


ORGANISM = ("-m", "derta.cli", "train", "--config", str(HERE.parent / "recipes" / "organism.yaml"))
SIDES_OF_8B = ("padded", "trl", "trl-liger", "derta-liger")
TRAIN = ("--batch=32", "--padded-batch=8", "--repeats=2")
PARTS = {
    1: [
        Job(
            "train_1b",
            290,
            script("train_throughput", "--models=1b", "--data", "mixture", "safety", *TRAIN, "--profile"),
        ),
        Job(
            "loss_memory",
            60,
            script("loss_memory"),
            ("--dtype=bfloat16", "--hidden=2048", "--targets=8192", "--repeats=5"),
            ("--device=cpu", "--vocabulary=2000", "--hidden=64", "--targets=512", "--repeats=1"),
        ),
        Job("train_8b", 230, script("train_throughput", "--models=8b-lora", *TRAIN, "--sides", *SIDES_OF_8B)),
    ],
    2: [
        Job("generation", 250, script("generation_throughput", "--rounds=2")),
        Job("qlora", 170, script("qlora")),
        Job("tests", 100, ("-m", "pytest", "-m", "gpu", "tests/method", "-p", "no:cacheprovider"), rehearsed=()),
        Job(
            "organism",
            60,
            (*ORGANISM, "--max_steps=60", "--save_steps=60", "--output_dir=runs/gpu-organism"),
            ("--use_cpu=false", "--bf16=true", "--attn_implementation=flex_attention"),
            ("--max_steps=2",),
        ),
    ],
}


def run(job: Job, out: Path, log: Path, seconds: float, rehearse: bool) -> dict[str, object]:
    """Run a job and return how it ended."""
    began = time.perf_counter()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n== {job.name}\n")
        file.flush()
        try:
            ended = subprocess.run(
                [sys.executable, *job.arguments(out, rehearse)],
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
            end = f"exit code {ended.returncode}"
        except subprocess.TimeoutExpired:
            end = f"stopped after {seconds:.0f} s"
    return {"job": job.name, "end": end, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, choices=PARTS, required=True)
    parser.add_argument("--only", nargs="+", help="names of jobs")
    parser.add_argument("--out", type=Path, required=True, help="a directory")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with small models")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / f"part-{options.part}.log"
    deadline = time.perf_counter() + PART_SECONDS
    rows = []
    for job in PARTS[options.part]:
        if options.only and job.name not in options.only:
            continue
        left = deadline - time.perf_counter()
        rows.append(
            run(job, options.out, log, min(left, job.seconds), options.rehearse)
            if left > 20
            else {"job": job.name, "end": "no time was left", "seconds": 0.0}
        )
        print(json.dumps(rows[-1]), flush=True)
        result = {"environment": environment("cpu" if options.rehearse else "cuda"), "jobs": rows}
        (options.out / f"part-{options.part}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
