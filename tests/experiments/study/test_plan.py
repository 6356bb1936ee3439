"""A study's file: what it may say, and in which order its cells come."""

from pathlib import Path

import pytest

from derta.errors import InputError
from experiments.study import load_study
from experiments.study.plan import Cell

GOOD = """
title: A study
recipe: organism
worlds: [1, 2]
seeds: [1, 2]
evaluate: {attacks: direct}
variants:
  after-that: {after: first, max_steps: 5}
  first: {method: derta}
  hot: {after: first, train: false, evaluate: {temperature: 1.0}}
  once: {seeds: [1], worlds: [1]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_cells_come_seed_by_seed_and_each_after_the_one_it_starts_from(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD))
    cells = list(study.cells())
    assert len(cells) == 3 * 4 + 1
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    for cell in cells:
        start = study.start_of(cell)
        assert start is None or cells.index(start) < cells.index(cell)
    assert study.start_of(Cell(2, 1, "hot")) == Cell(2, 1, "first")


def test_evaluation_options_of_a_variant_win(tmp_path: Path) -> None:
    variants = load_study(write(tmp_path, GOOD)).variants
    assert variants["hot"].evaluate == {"attacks": "direct", "temperature": 1.0}
    assert variants["first"].evaluate == {"attacks": "direct"}
    assert variants["first"].train == {"method": "derta"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("after: first, max_steps", "after: frist, max_steps"), r"no variant 'frist' \(did you mean"),
        (GOOD.replace("first: {method: derta}", "first: {after: after-that}"), "start from each other"),
        (GOOD.replace("worlds: [1, 2]", "worlds: []"), "worlds: list should have at least 1"),
        (GOOD.replace("title: A study", "titel: A study"), "title: field required"),
        (GOOD.replace("hot: {after: first, train: false,", "hot: {train: false,"), "say which, `after`"),
        (GOOD.replace("once:", "a/b:"), "can't name a directory"),
        (GOOD.replace("seeds: [1], worlds", "seeds: 1, worlds"), "once.seeds: input should be a valid list"),
        (GOOD.replace("once: {seeds: [1]", "once: {after: first, seeds: [9]"), "seeds that first isn't trained in"),
        (GOOD + "claims: [{claim: c, variant: once, metric: arr, most: 1}]", r"no metric 'arr' \(did you mean 'asr'"),
        (
            GOOD + "claims: [{claim: c, variant: once, metric: asr, families: [dialog], most: 1}]",
            "families.0: input should",
        ),
        (GOOD + "tables: [{title: T, variants: [once], metric: leak}]", "'T' shows leak of no attack; name some"),
        (GOOD + "tables: [{title: T, variants: [none]}]", "the table 'T': no variant 'none'"),
        (GOOD + "claims: [{claim: C, variant: x, metric: asr, most: 1}]", "the claim 'C': no variant 'x'"),
        (GOOD + "tables: [", "not YAML"),
        (GOOD + "variants: {}", r"yaml:12: the key 'variants' stands twice"),
        (GOOD.replace("worlds: [1, 2]", "worlds: [1, 1]"), "worlds: a number stands twice"),
        (GOOD.replace("worlds: [1, 2]", "worlds: [-1]"), "worlds.0: input should be greater than or equal to 0"),
        (GOOD.replace("worlds: [1, 2]", "worlds: [true]"), "worlds.0: input should be a valid integer"),
        (GOOD.replace("seeds: [1], worlds", "seeds: [1, 1], worlds"), "once.seeds: .*stands twice"),
        (GOOD.replace("max_steps: 5", "seed: 5"), "variants.after-that: seed isn't a variant's to say"),
        (GOOD.replace("max_steps: 5", "output-dir: x"), "variants.after-that: output-dir isn't a variant's to say"),
        (GOOD.replace("attacks: direct", "out: x"), "evaluate: out isn't a variant's to say"),
        (GOOD.replace("max_steps: 5", "recipe: [x]"), "after-that.recipe: input should be a valid string"),
        (GOOD.replace("max_steps: 5", "train: 1"), "after-that.train: input should be a valid boolean"),
        (GOOD + "claims: [{claim: C, variant: first, metric: asr}]", "'C' bounds nothing; give most or least"),
        (
            GOOD + "claims: [{claim: C, variant: first, metric: asr, most: .nan}]",
            "claims.0.most: input should",
        ),
        (GOOD + "tables: [{title: T, variants: {first: .inf}}]", "tables.0.variants"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_study(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: can't read the study"):
        load_study(tmp_path / "none.yaml")
