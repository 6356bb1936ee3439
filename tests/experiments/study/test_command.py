"""`python -m experiments.study` from its file to its page, without training anything."""

import json
from pathlib import Path

import pytest

from derta.files import sole_writer, write_json
from experiments.command_line import run_command
from experiments.study import load_study
from experiments.study.__main__ import add_arguments, run
from experiments.study.cells import CellError, settings_of
from experiments.study.numbers import load_numbers
from experiments.study.plan import Cell, Study


def study_command(argv: list[str]) -> int:
    return run_command("experiments.study", add_arguments, run, argv)


STUDY = """
title: A study
recipe: organism
worlds: [1, 2]
seeds: [1]
evaluate: {attacks: direct}
variants: {old: {}, new: {contexts: recommended}}
tables:
  - {title: Methods, variants: [old, new], against: old}
  - {title: Over something, variants: {old: 1, new: 2}, axis: something}
claims:
  - {claim: nothing above 9 %, variant: new, metric: asr, most: 9}
  - {claim: less than before, variant: new, metric: asr, against: old, most: 0}
"""


def row(metric: str, value: float, unit: str = "%") -> dict[str, object]:
    return {
        **{"model": "m", "digest": None, "method": "derta", "seed": 1, "attack": "direct", "variant": None},
        **{
            "metric": metric,
            "value": value,
            "n": 40,
            "ci_low": None,
            "ci_high": None,
            "judge": "organism",
            "unit": unit,
        },
    }


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a study, and the numbers of cells that count as finished."""
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    planned = load_study(Path("study.yaml"))
    for cell in planned.cells():
        asr = 20.0 if cell.variant == "old" else 2.5 * cell.world
        rows = [row("asr", asr), row("over_refusal", 1.0), row("unscored", 2.0, "samples")]
        place = Path("runs", cell.directory)
        place.mkdir(parents=True)
        write_json(place / "cell.json", {"settings": settings_of(planned, cell), "rows": rows})
    monkeypatch.setattr("experiments.study.cells.run_cell", lambda *args: None)
    return tmp_path


def test_numbers_claims_and_page(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study_command(["study.yaml", "--out", "runs"]) == 0
    assert len(load_numbers(study / "runs" / "rows.csv", load_study(Path("study.yaml")))) == 12
    assert study_command(["study.yaml", "--out", "runs", "--page", "results.md"]) == 0
    page = (study / "results.md").read_text()
    assert "| nothing above 9 % | ≤ 9 | 3.8 [0.0, 19.6] direct (4 samples without a verdict) | met |" in page
    assert "Δ -16.2" in page
    assert (study / "results" / "1.svg").read_text().startswith("<?xml")
    assert (study / "results" / "2.svg").exists()
    assert "**not met**" not in page


def test_a_page_is_not_written_over_its_numbers(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study_command(["study.yaml", "--out", "runs"]) == 0
    for page in ("runs/rows.csv", "study.yaml"):
        assert study_command(["study.yaml", "--out", "runs", "--page", page]) == 2
        assert f"--page: {page}: is an input file" in capsys.readouterr().err


def test_a_claim_that_does_not_hold_ends_with_1(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text(STUDY.replace("most: 9", "most: 1"))
    assert study_command(["study.yaml", "--out", "runs"]) == 1
    assert "not met" in capsys.readouterr().out


def test_a_claim_holds_of_every_planned_cell_or_is_undecided(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study_command(["study.yaml", "--out", "runs"]) == 0
    rows = Path("runs/rows.csv").read_text().splitlines(keepends=True)
    Path("some.csv").write_text("".join(row for row in rows if not row.startswith("2,1,new")))
    capsys.readouterr()
    assert study_command(["study.yaml", "--rows", "some.csv", "--page", "p.md"]) == 1
    page = Path("p.md").read_text()
    assert page.count("(1 of 2 cells") == page.count("| **undecided** |") == 2
    # What is planned of a pair is what both plan.
    Path("study.yaml").write_text(STUDY.replace("new: {", "new: {worlds: [1], "))
    Path("some.csv").write_text("".join(row for row in rows if not row.startswith("2,1,new")))
    capsys.readouterr()
    study_command(["study.yaml", "--rows", "some.csv", "--page", "p.md"])
    assert "undecided" not in Path("p.md").read_text()


def test_a_study_counts_one_judge(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text(STUDY.replace("{attacks: direct}", '{attacks: direct, judge: "organism,refusal"}'))
    assert study_command(["study.yaml", "--out", "other", "--dry-run"]) == 2
    assert "--judge: a study counts the verdicts of one judge" in capsys.readouterr().err


def test_a_claim_that_missing_verdicts_could_break_ends_with_1(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 3.8 % of the samples with a verdict; with two of 42 more in each cell 8.3 %.
    Path("study.yaml").write_text(STUDY.replace("most: 9", "most: 8"))
    assert study_command(["study.yaml", "--out", "runs"]) == 1
    assert "**undecided**" in capsys.readouterr().out


def test_a_dry_run_lists_what_is_there(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study_command(["study.yaml", "--out", "runs", "--dry-run"]) == 0
    assert "4 cells, 4 of them done\n" in capsys.readouterr().out
    for path in Path("runs").rglob("cell.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 90.4}))
    assert study_command(["study.yaml", "--out", "runs", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "world-1/old/seed-1: done in 1:30\n" in told
    assert "4 cells, 4 of them done, in 6:02 one after another\n" in told
    assert study_command(["study.yaml", "--out", "elsewhere", "--dry-run"]) == 0
    assert "world-1/old/seed-1: to do" in capsys.readouterr().out


def test_one_process_works_in_a_study_at_a_time(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_writer(Path("runs")):
        assert study_command(["study.yaml", "--out", "runs"]) == 2
    assert "another derta is at work in it" in capsys.readouterr().err


def test_a_failed_cell_is_told_even_where_it_is_quiet(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(study: Study, cell: Cell, *others: object) -> None:
        if cell.variant == "old":
            raise CellError("derta train ended with 2: it said why")

    monkeypatch.setattr("experiments.study.cells.run_cell", fail)
    assert study_command(["study.yaml", "--out", "runs", "--jobs", "1", "--quiet"]) == 1
    told = capsys.readouterr().err
    assert "derta: failed: world-1/old/seed-1: derta train ended with 2: it said why\n" in told
    assert "derta: 2 cells failed; the same command tries them again\n" in told


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("old: {}", "old: {mehtod: rto}", "variants.old: derta train: unknown option --mehtod=rto (did you mean"),
        ("old: {}", "old: {learning_rate: .inf}", "variants.old: learning_rate: inf is not a number above 0"),
        ("old: {}", "old: {recipe: none}", "variants.old: none: no such file"),
        ("old: {}", "old: {baseline: door, constants: {alpha: .nan}}", "variants.old: --constants alpha: nan is no"),
        ("old: {}", "old: {baseline: door, method: rto}", "variants.old: method: door is the method; leave it out"),
        ("old: {}", "old: {baseline: nobody}", "variants.old: baseline: no 'nobody'"),
        (
            "attacks: direct",
            "attacks: drect",
            "variants.old: --attacks: unknown attack 'drect' (did you mean",
        ),
        ("attacks: direct", "limit: -5", "variants.old: --limit: -5 behaviours of each kind are too few"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_what_a_variant_cannot_mean_is_told_before_the_first_cell(
    study: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str, more: tuple[str, ...]
) -> None:
    Path("study.yaml").write_text(STUDY.replace(old, new))
    assert study_command(["study.yaml", "--out", "runs", *more]) == 2
    assert f"derta: error: study.yaml: {said}" in capsys.readouterr().err


def test_a_world_without_a_base_is_told_before_the_first_cell(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text(STUDY.replace("worlds: [1, 2]", "worlds: [1, 2, 4000000000]"))
    assert study_command(["study.yaml", "--out", "runs"]) == 2
    told = capsys.readouterr().err
    assert "organism:4000000000: this world has no base yet; python -m experiments.organism_base --world 4000" in told


def test_a_page_says_what_is_missing_of_a_claim(study: Path) -> None:
    rows = Path("runs", "rows.csv")
    assert study_command(["study.yaml", "--out", "runs"]) == 0
    kept = [line for line in rows.read_text().splitlines() if not line.startswith("2,1,new,direct,direct,asr")]
    rows.write_text("\n".join(kept) + "\n")
    assert study_command(["study.yaml", "--rows", str(rows), "--page", "results.md"]) == 1
    page = Path("results.md").read_text()
    assert "| nothing above 9 % | ≤ 9 | — (no figure in some cell: direct) | **not measured** |" in page
    assert "| 2 | 2.5 (1 cells)<br>Δ -17.5 |" in page


def test_rows_of_cells_that_are_elsewhere_are_not_overwritten(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = study / "kept.csv"
    assert study_command(["study.yaml", "--out", "runs", "--rows", str(kept)]) == 0
    before = kept.read_text()
    (study / "runs" / "world-1" / "old" / "seed-1" / "cell.json").unlink()
    capsys.readouterr()
    assert study_command(["study.yaml", "--out", "runs", "--rows", str(kept)]) == 2
    said = capsys.readouterr().err
    assert f"--rows: {kept}: holds 1 cells that runs doesn't, such as world-1/old/seed-1" in said
    assert kept.read_text() == before
