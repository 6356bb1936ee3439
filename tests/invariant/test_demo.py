"""`derta demo --quick`: from nothing to a report, and again without doing the work twice."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from derta.cli import main

# Loading bars, dictionaries of numbers, warnings and log records of libraries.
CHATTER = re.compile(r"\d+%\||it/s|s/it|examples/s|\{'|Warning|warning|\[W|WARN|INFO|Loading weights|Map|\\x1b")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "derta", "demo", "--quick", "--out", str(out)]
    return subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def demo(first_run: subprocess.CompletedProcess[str]) -> Path:
    return Path(first_run.args[-1])


def test_in_a_pipe_it_is_short_and_says_nothing_of_libraries(first_run: subprocess.CompletedProcess[str]) -> None:
    lines = first_run.stdout.splitlines()
    assert 10 < len(lines) <= 120
    assert [line for line in lines if CHATTER.search(line)] == []


def test_what_libraries_say_is_in_the_log_of_each_run(demo: Path) -> None:
    assert all((demo / f"{method}-quick" / "log.txt").is_file() for method in ("vanilla", "derta"))


def test_both_methods_are_in_the_results_and_in_the_report(demo: Path) -> None:
    document = json.loads((demo / "results.json").read_text())
    assert {(row["method"], row["seed"]) for row in document["rows"]} == {("vanilla", 1), ("derta", 1)}
    found = {(row["method"], row["attack"], row["metric"]) for row in document["rows"]}
    for method in ("vanilla", "derta"):
        for attack in ("direct", "prefill", "completing"):
            assert (method, attack, "asr") in found
        assert (method, "direct", "over_refusal") in found
        assert (method, "direct", "helpful_accuracy") in found
    html = (demo / "report.html").read_text()
    for row in document["rows"]:
        if row["metric"] == "asr":
            assert f"{row['value']:.1f} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]" in html


def test_a_smoke_run_says_so(demo: Path) -> None:
    assert "numbers mean nothing" in json.loads((demo / "results.json").read_text())["warning"]
    assert "numbers mean nothing" in (demo / "report.html").read_text()


def test_a_second_demo_reuses_the_runs_and_ends_with_the_path(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [path for path in demo.glob("*-quick/**/*") if path.suffix in (".safetensors", ".eval")]
    kept = {path: path.stat().st_mtime_ns for path in files}
    before = (demo / "results.json").read_text()
    assert main(["demo", "--quick", "--out", str(demo)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {demo / 'report.html'}"
    assert kept
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (demo / "results.json").read_text() == before


def test_another_seed_in_the_same_directory_is_refused(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--seed", "2", "--out", str(demo)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "vanilla with seed 1" in line
    assert "--out" in line
