"""Take each guard away, one at a time, and see that a test fails.

    python benchmarks/guards.py [--only tests/test_files.py]

Each removal is a change to a copy of the source, on which the tests that are meant to hold the guard run in a fork;
large libraries are imported once. Prints a line per guard: the tests that fail, or `SURVIVES`.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 240
BAD = "tests/invariant/test_bad_inputs.py::test_a_bad_input_is_one_line_and_exit_code_2"
TERMINATION = "tests/invariant/test_termination.py"


@dataclass(frozen=True)
class Guard:
    """A guard, the change that takes it away, and the tests that hold it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


_FILES, _MACHINE, _TERMINAL = (f"tests/test_{name}.py" for name in ("files", "errors", "terminal"))
_VERIFY = "tests/commands/test_verify.py"
_READERS = "tests/data/test_readers.py"
_SHARDS = "tests/training/test_shards.py"
_FSDP, _RUN = "training/fsdp_checkpoint.py", "training/run.py"
_CODE, _SECRETS = "tests/invariant/test_code_of_others.py", "tests/invariant/test_secrets.py"
_RECIPES, _STEPS = "tests/invariant/test_bad_recipes.py", "tests/invariant/test_broken_steps.py"
_DEEP = "adapter_config.json, deep"
_DATES = "data: Parquet of dates that don't exist"
GUARDS = (
    Guard("a file is written beside its place", "files.py", "draft.open(", "path.open(", _FILES),
    Guard("drafts that a kill left are emptied", "files.py", "left.unlink()", "pass", _FILES),
    Guard("one process in a directory", "files.py", "fcntl.flock(held", "print(held", _FILES),
    Guard("names that lead out", "files.py", 'if name in ("", ".", "..") or', "if False and", _FILES),
    Guard("failures of the machine are a line", "cli.py", "if failure is None:", "if True:", _MACHINE),
    Guard("interrupts that became errors", "errors.py", "KeyboardInterrupt) for", "ZeroDivisionError) for", _MACHINE),
    Guard("no control characters of libraries", "terminal.py", "return visible_text(", "return str(", _TERMINAL),
    Guard("no pickle describes shards", _FSDP, "metadata = _Unpickler(", "metadata = pickle.Unpickler(", _SHARDS),
    Guard("no pickle is a value", _FSDP, "weights_only=True", "weights_only=False", _SHARDS),
    Guard("files have digests", "run_identity.py", "file_digest(path) != digest", "False", _VERIFY),
    Guard("template and token of training", "run_identity.py", "held[part] != now[part]", "False", _VERIFY),
    Guard("no code beside a model", "generation/loading.py", '= {"trust_remote_code": False}', "= {}", _CODE),
    Guard(
        "no code in a dry run", "training/dry_run.py", ", trust_remote_code=False", "", "tests/training/test_dry_run.py"
    ),
    Guard("secrets by name", "redaction.py", "if _SECRET.search(name):", "if False:", _SECRETS),
    Guard("logins in URLs", "redaction.py", '_LOGIN.sub(f"{HIDDEN}@", text)', "text", _SECRETS),
    Guard("numbers that are none", "training/config.py", "not 0 < value < math.inf", "value <= 0", _RECIPES),
    Guard("a key twice in a recipe", "strict.py", "if name in seen:", "if False:", _RECIPES),
    Guard("a key twice in a row", "data/readers.py", "text, object_pairs_hook=unique_keys", "text", _READERS),
    Guard("a key twice in results", "files.py", "if len(document) < len(pairs):", "if False:", _FILES),
    Guard(
        "packages that aren't there", "training/config.py", "name not in (*get_avail", "() and (*get_avail", _RECIPES
    ),
    Guard("losses that are none", "training/run_trainer.py", "not math.isfinite(loss)", "False", _STEPS),
    Guard("gradients that are none", "training/run_trainer.py", "not math.isfinite(total)", "False", _STEPS),
    Guard("SIGTERM is heard", "cli.py", "with termination.heard():", "if True:", TERMINATION),
    Guard("SIGTERM waits for the step", _RUN, ", termination.awaited()", "", TERMINATION),
    Guard("SIGTERM saves", "training/run_trainer.py", "control.should_save = control", "control", TERMINATION),
    Guard("no step too many", "training/run_trainer.py", ">= self.state.max_steps:", "> 10**9:", TERMINATION),
    Guard("the hub comes last", _RUN, "except Exception as error:  # of", "except KeyError as error:  #", TERMINATION),
    Guard("damaged logs", "evaluation/harness/log.py", "if damaged:", "if False:", f"{BAD}[a log, cut]"),
    Guard("deep adapters", "generation/loading.py", "TypeError, RecursionError)", "TypeError)", f"{BAD}[{_DEEP}]"),
    Guard("dates of other years", "data/readers.py", ", OverflowError, ValueError)", ")", f"{BAD}[{_DATES}]"),
    Guard("epochs", "evaluation/config.py", "if self.epochs < 1:", "if False:", f"{BAD}[eval --epochs 0]"),
    Guard("search limits", "evaluation/config.py", "and limit < 1:", "and False:", f"{BAD}[eval --search-limit 0]"),
)


def survives(guard: Guard, folder: Path) -> bool:
    """Whether the guard's tests pass without it; a test that hangs fails."""
    copy = folder / "copy"
    for part in ("src", "tests", "recipes"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    file = copy / "src/derta" / guard.file
    text = file.read_text("utf-8")
    if guard.old not in text:
        raise SystemExit(f"{guard.name}: {guard.old!r} isn't in {guard.file}")
    file.write_text(text.replace(guard.old, guard.new), encoding="utf-8")
    process = os.fork()
    if process == 0:
        os.chdir(copy)
        sys.path[:0] = [str(copy / "src"), str(copy)]
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        # What lies in tests/ itself needs none of the shared fixtures, which import torch.
        more = ["--noconftest"] if guard.tests.count("/") == 1 else []
        os._exit(int(pytest.main(["-n", "0", "-x", "-q", "-p", "no:cacheprovider", *more, guard.tests])))
    ends = time.monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > ends:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return False
        time.sleep(0.2)
    shutil.rmtree(copy)
    return status == 0


def main() -> None:
    """Try the guards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="guards that are held by tests of this beginning")
    guards = [guard for guard in GUARDS if guard.tests.startswith(parser.parse_args().only)]
    if any(guard.tests.count("/") > 1 for guard in guards):
        for library in ("torch", "transformers.trainer", "trl"):
            import_module(library)
    survived = 0
    for guard in guards:
        with tempfile.TemporaryDirectory() as folder:
            passes = survives(guard, Path(folder))
        survived += passes
        print(f"{guard.name:45} {'SURVIVES' if passes else 'held by'} {guard.tests}", flush=True)
    print(f"{len(guards) - survived} of {len(guards)} guards are held by a test")
    sys.exit(int(survived > 0))


if __name__ == "__main__":
    main()
