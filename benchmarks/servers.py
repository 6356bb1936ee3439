"""The same evaluation in the process, through vLLM and through `transformers serve`: same variants, labels, verdicts?

    python benchmarks/servers.py --vllm /opt/vllm --out benchmarks/results/servers.json

Each server is started here, on this machine's processor, with the organism's base. One that isn't there is skipped,
and its row says why. `--vllm` is a virtual environment of its own with vLLM in it; `transformers serve` comes with this
environment (extra `serving` of transformers). The exit code is 1 if a server that ran gave another variant or verdict.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from derta.evaluation.config import Options
from derta.evaluation.results.sample import Sample
from derta.evaluation.run import evaluate_directory
from derta.files import write_json
from derta.organism import path as organism_path

ATTACKS = ("direct", "prefill", "completing", "multi-turn")
DEPTHS = (5, 20)
READY = 600
"""Seconds that a server may take to start."""


class NotThere(Exception):  # noqa: N818 (it is a reason to skip, no error)
    """A server can't be had here, and why."""


@contextmanager
def serving(command: Sequence[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server until the block ends; yield its address once it lists its models."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment)
    base = f"http://127.0.0.1:{port}/v1"
    try:
        deadline = time.monotonic() + READY
        while True:
            try:
                urllib.request.urlopen(f"{base}/models", timeout=5).close()
                break
            except urllib.error.HTTPError:  # it is there; transformers lists no models where none was downloaded
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
                    raise NotThere(f"it didn't start: {' '.join(last)[:200]}") from None
                time.sleep(2)
        yield base
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def vllm_command(environment: Path | None, model: Path, port: int) -> list[str]:
    if environment is None or not (environment / "bin" / "vllm").is_file():
        raise NotThere("no vLLM here; name its environment with --vllm")
    command = [str(environment / "bin" / "vllm"), "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--served-model-name", "m", "--max-model-len", "512", "--dtype", "float32", "--enforce-eager"]


def transformers_command(model: Path, port: int) -> list[str]:
    missing = [name for name in ("fastapi", "uvicorn", "openai") if find_spec(name) is None]
    if missing:
        raise NotThere(f"{' and '.join(missing)} not installed: pip install 'transformers[serving]'")
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--host", "127.0.0.1"]
    return [*serve, "--port", str(port), "--device", "cpu", "--dtype", "float32"]


def compare(ours: Sequence[Sample], theirs: Sequence[Sample]) -> dict[str, Any]:
    """Count what two evaluations of the same plan share."""
    known = {sample.key: sample for sample in ours}
    pairs = [(known[sample.key], sample) for sample in theirs if sample.key in known]
    variants = [sorted({sample.variant for sample in side}) for side in (ours, theirs)]
    return {
        "samples": len(theirs),
        "same_variants": variants[0] == variants[1],
        "same_keys": len(pairs) == len(ours) == len(theirs),
        "same_answers": sum(one.continuation == other.continuation for one, other in pairs),
        "same_labels": sum(one.verdict.label == other.verdict.label for one, other in pairs),
        "same_verdicts": sum(one.verdict == other.verdict for one, other in pairs),
        "different": [list(map(str, other.key)) for one, other in pairs if one.verdict != other.verdict][:10],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, help="virtual environment with vLLM")
    parser.add_argument("--model", type=Path, default=organism_path(), help="directory of an organism's model")
    parser.add_argument("--limit", type=int, default=4, help="behaviours of each kind")
    parser.add_argument("--out", type=Path, help="JSON file to write to")
    args = parser.parse_args()

    def evaluate(name: str, out: Path, **more: Any) -> list[Sample]:
        options = Options(ATTACKS, "organism", depths=DEPTHS, limit=args.limit, **more)
        return list(evaluate_directory(name, out=out, options=options).samples)

    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    on_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        ours = evaluate(str(args.model), Path(folder) / "process")
        rows["process"] = {**compare(ours, ours), "seconds": round(time.monotonic() - began, 1)}
        for name in ("vllm", "transformers"):
            port = free_port()
            try:
                if name == "vllm":
                    command = vllm_command(args.vllm, args.model, port)
                else:
                    command = transformers_command(args.model, port)
                with serving(command, port, Path(folder) / f"{name}.log", quiet | on_cpu) as base:
                    began = time.monotonic()
                    server = {"base_url": base, "api_key": "none", "tokenizer": str(args.model)}
                    served = "m" if name == "vllm" else str(args.model)
                    theirs = evaluate(f"openai-api/{name}/{served}", Path(folder) / name, model_args=server)
                    rows[name] = {**compare(ours, theirs), "seconds": round(time.monotonic() - began, 1)}
            except NotThere as reason:
                rows[name] = {"skipped": str(reason)}
    equal = True
    print(f"{'where':<14}{'samples':>8}{'variants':>10}{'answers':>9}{'labels':>8}{'verdicts':>10}{'seconds':>9}")
    for name, row in rows.items():
        if "skipped" in row:
            print(f"{name:<14}skipped: {row['skipped']}")
            continue
        n, same = row["samples"], "same" if row["same_variants"] and row["same_keys"] else "OTHER"
        equal &= same == "same" and row["same_verdicts"] == n
        answers, labels, verdicts = (row[key] for key in ("same_answers", "same_labels", "same_verdicts"))
        print(f"{name:<14}{n:>8}{same:>10}{answers:>9}{labels:>8}{verdicts:>10}{row['seconds']:>9}")
    if args.out:
        asked = {"attacks": ATTACKS, "depths": DEPTHS, "limit": args.limit, "python": platform.python_version()}
        write_json(args.out, {"asked": json.loads(json.dumps(asked)), "rows": rows})
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
