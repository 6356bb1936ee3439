"""Benchmarks and scripts of experiments are run by hand: what they import must be there all the same."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_benchmark_finds_what_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    scripts = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    assert scripts
    for script in scripts:
        import_module(script)


def test_every_script_of_experiments_finds_what_it_imports() -> None:
    scripts = sorted(path.stem for path in (ROOT / "experiments" / "scripts").glob("*.py"))
    assert scripts
    for script in scripts:
        import_module(f"experiments.scripts.{script}")
