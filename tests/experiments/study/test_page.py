"""A study's page says how much of the study stands behind its numbers."""

from pathlib import Path

from experiments.study.numbers import Number, Numbers
from experiments.study.page import write_page
from experiments.study.plan import Study, Table, Variant


def test_a_table_of_a_metric_shows_it_of_its_attacks_alone(tmp_path: Path) -> None:
    variants = {name: Variant(name, "organism", worlds=(1,), seeds=(1,)) for name in ("old", "new")}
    of_leaks = Table(title="Leaks", variants=["old", "new"], attacks=["prefill@5", "direct"], metric="leak")
    study = Study(tmp_path / "s.yaml", "A study", "", variants, (of_leaks,), ())
    leaks = [
        Number(1, 1, name, "prefill", "prefill@5", "leak", value, 60, "") for name, value in (("old", 7), ("new", 2))
    ]
    success = [Number(1, 1, name, "prefill", "prefill", "asr", 50.0, 60, "") for name in variants]
    write_page(study, Numbers.of([*leaks, *success]), [], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| variant | cells | prefill@5 | direct |" in page
    assert "| old | 1 | 7.0 | — |" in page
    assert "ASR" not in page
    assert (tmp_path / "page" / "1.svg").read_text().startswith("<?xml")


def test_a_variant_whose_cells_are_missing_says_how_many_it_has(tmp_path: Path) -> None:
    variants = {name: Variant(name, "organism", worlds=(1, 2), seeds=(1,)) for name in ("whole", "failed", "none")}
    study = Study(tmp_path / "s.yaml", "A study", "", variants, (Table(title="T", variants=list(variants)),), ())
    cells = [(1, "whole"), (2, "whole"), (1, "failed")]
    numbers = Numbers.of(Number(world, 1, name, "prefill", "prefill", "asr", 5.0, 60, "") for world, name in cells)
    write_page(study, numbers, [], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| whole | 2 |" in page
    assert "| failed | 1 of 2 |" in page
    assert "Not measured: none." in page
