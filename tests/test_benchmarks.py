"""Benchmarks are scripts that nothing imports: what they import must be there all the same."""

from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_every_benchmark_finds_what_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    scripts = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert scripts
    for script in scripts:
        import_module(script)
