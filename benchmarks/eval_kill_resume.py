"""Kill evaluations at random moments, run the same command again, and compare with an unbroken one.

    python benchmarks/eval_kill_resume.py --kills 10

Each trial starts `derta eval` in a process of its own, sends it SIGKILL at a random moment (while loading, generating,
judging, writing), and runs the same command again until it ends. Every sample must then be there exactly once, with
the unbroken evaluation's response and verdict. Prints a line per trial and writes raw JSON.
"""

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import inspect_ai
import torch
from forks import run_to_end, start

import derta.evaluation.run
from derta.cli import main as derta
from derta.evaluation.results.store import LOGS, RESULTS, load_evaluation

RESULT = Path(__file__).parent / "results" / "eval_kill_resume.json"
ATTACKS = "direct,prefill,completing,codeattack,multi-turn,best-of-n"


def outcome(out: Path) -> tuple[Counter[Any], dict[Any, Any]]:
    """Return how often each sample is there, and its response and verdict."""
    samples = load_evaluation(out).samples
    said = {sample.key: (sample.continuation, sample.verdict) for sample in samples}
    return Counter(sample.key for sample in samples), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="organism")
    parser.add_argument("--limit", type=int, default=12, help="behaviours of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, default=RESULT, help="raw JSON")
    options = parser.parse_args()
    moments = random.Random(options.seed)

    def command(out: Path) -> Callable[[], int]:
        asked = ["--model", options.model, "--attacks", ATTACKS, "--limit", str(options.limit)]
        return partial(derta, ["eval", *asked, "--out", str(out)])

    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        seconds = run_to_end(command(whole))
        expected, said = outcome(whole)
        trials = []
        for trial in range(options.kills):
            out = Path(folder) / f"killed-{trial}"
            process = start(command(out))
            moment = moments.uniform(0.05, 0.98) * seconds
            time.sleep(moment)
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            logs, finished = len(list((out / LOGS).glob("*.eval"))), (out / RESULTS).exists()
            run_to_end(command(out))
            counts, now = outcome(out)
            once = counts == expected and set(counts.values()) == {1}
            found = {"moment": moment, "killed": os.WIFSIGNALED(status), "logs": logs, "finished": finished}
            trials.append({**found, "once": once, "same": now == said})
            verdict = "each sample once" if once else "SAMPLES LOST OR REPEATED"
            alike = "same responses and verdicts" if now == said else "OTHER RESPONSES"
            print(f"{trial + 1:2}: killed at {moment:.1f} s, {logs} logs begun: {verdict}, {alike}", flush=True)

    killed = [trial for trial in trials if trial["killed"]]
    good = sum(trial["once"] and trial["same"] for trial in killed)
    print(
        f"{good} of {len(killed)} killed evaluations end with {len(expected)} samples, each once, as the unbroken one; "
        f"{len(trials) - len(killed)} ended before they were killed"
    )
    versions = {"python": platform.python_version(), "torch": torch.__version__, "inspect_ai": inspect_ai.__version__}
    result = {"versions": versions, "machine": platform.machine(), "samples": len(expected), "trials": trials}
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if killed and good == len(killed) else 1)


if __name__ == "__main__":
    main()
