"""Pages of derta's own studies say what committed numbers say, measured with the settings that stand in the study."""

from pathlib import Path

import pytest

from experiments.study import load_study
from experiments.study import page as report
from experiments.study.numbers import Numbers, load_numbers
from experiments.study.verdicts import check_claims

ROOT = Path(__file__).parents[3]
PAGES = {"organism": "study", "organism-curves": "curves", "organism-steps": "steps", "organism-worlds": "worlds"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_numbers_give(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The figures show what the tables say, and take longer than all else.
    monkeypatch.setattr(report, "svg_file", lambda figure: "")
    study = load_study(ROOT / "experiments" / "studies" / f"{name}.yaml")
    numbers = load_numbers(ROOT / "experiments" / "results" / f"{PAGES[name]}.csv.gz", study)
    page = f"results{name.removeprefix('organism')}.md"
    report.write_page(study, Numbers.of(numbers), check_claims(study, numbers), tmp_path / page)
    assert (tmp_path / page).read_text() == (ROOT / "docs" / "lab" / page).read_text()


def test_every_study_can_be_read() -> None:
    for path in sorted((ROOT / "experiments" / "studies").glob("*.yaml")):
        assert list(load_study(path).cells())
