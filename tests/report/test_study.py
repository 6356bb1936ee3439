"""A study's page says how much of the study stands behind its numbers."""

from pathlib import Path

from derta.report.study import write_page
from derta.study.numbers import Number, Numbers
from derta.study.plan import Study, Table, Variant


def test_a_variant_whose_cells_are_missing_says_how_many_it_has(tmp_path: Path) -> None:
    variants = {name: Variant(name, "organism", worlds=(1, 2), seeds=(1,)) for name in ("whole", "failed", "none")}
    study = Study(tmp_path / "s.yaml", "A study", "", variants, (Table(title="T", variants=list(variants)),), ())
    cells = [(1, "whole"), (2, "whole"), (1, "failed")]
    numbers = Numbers.of(Number(world, 1, name, "prefill", "prefill", "asr", 5.0, 60) for world, name in cells)
    write_page(study, numbers, [], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| whole | 2 |" in page
    assert "| failed | 1 of 2 |" in page
    assert "Not measured: none." in page
