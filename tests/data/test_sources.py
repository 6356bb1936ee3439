import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

import derta
from derta.data import load_triples
from derta.data.schemas import SCHEMAS
from derta.data.sources import Notes, read_examples
from derta.data.triples import Example, as_example, canonical_row
from derta.errors import InputError
from tests.conftest import WriteLines
from tests.data.test_triples import examples

TRIPLE = {"prompt": "Open the moon vault?", "chosen": "Sorry, no.", "rejected": "Turn the key."}
HELPFUL = {"prompt": "Name a moon.", "chosen": "Io."}
CONVERSATION = {
    "prompt": [{"role": "user", "content": "Name a moon."}],
    "chosen": [{"role": "assistant", "content": "Io."}],
}
SWAPPED = {**TRIPLE, "chosen": TRIPLE["rejected"], "rejected": TRIPLE["chosen"]}


def test_it_is_public() -> None:
    assert derta.load_triples is load_triples


def test_rows_of_every_form_become_messages(write_rows: WriteLines) -> None:
    path = write_rows([TRIPLE, HELPFUL, {**HELPFUL, "harmful_prefix": ""}, CONVERSATION])
    user, moon = CONVERSATION["prompt"], CONVERSATION["chosen"]
    helpful = {"prompt": user, "chosen": moon, "rejected": None, "harmful_prefix": None}
    assert load_triples(str(path)).to_list() == [
        {
            "prompt": [{"role": "user", "content": TRIPLE["prompt"]}],
            "chosen": [{"role": "assistant", "content": TRIPLE["chosen"]}],
            "rejected": [{"role": "assistant", "content": TRIPLE["rejected"]}],
            "harmful_prefix": None,
            "origin": f"{path}:1",
        },
        {**helpful, "origin": f"{path}:2"},
        {**helpful, "harmful_prefix": "", "origin": f"{path}:3"},
        {**helpful, "origin": f"{path}:4"},
    ]


def test_rows_of_rto_only_need_an_explicit_null(write_rows: WriteLines) -> None:
    assert load_triples(write_rows([{**TRIPLE, "chosen": None}]))["chosen"] == [None]
    with pytest.raises(InputError, match="column 'chosen' is missing"):
        load_triples(write_rows([{"prompt": "p", "rejected": "h"}]))


def test_swap(write_rows: WriteLines) -> None:
    path = write_rows([HELPFUL, SWAPPED])
    with pytest.raises(InputError, match=r"rows.jsonl:2: rejected reads like a refusal .* pass --swap"):
        load_triples(path)
    assert [as_example(row).chosen for row in load_triples(path, swap=True)] == ["Io.", "Sorry, no."]
    with pytest.raises(InputError, match="drop --swap"):
        load_triples(write_rows([TRIPLE]), swap=True)


def test_a_few_reversed_triples_are_told(write_rows: WriteLines, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows([TRIPLE, TRIPLE, {**SWAPPED, "chosen": "Push it.", "rejected": "Sorry, never."}])
    assert len(load_triples(path)) == 3
    assert caplog.messages == [
        f"{path}: in 1 of 3 triples rejected reads like a refusal and chosen does not, first at {path}:3"
    ]


def test_skipped_rows_are_told(write_rows: WriteLines, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"prompt": p, "response": r, "category": {}, "is_safe": r == "Sorry."}
        for p, r in [("a", "Sorry."), ("a", "Turn."), ("b", "Sorry."), ("c", "Turn.")]
    ]
    path = write_rows(rows)
    with caplog.at_level(logging.WARNING):
        assert len(load_triples(path)) == 1
    assert caplog.messages == [
        f"{path}: skipped 2 of its rows: 1 safe without an unsafe response to pair it with, "
        "1 unsafe without a safe response to pair it with"
    ]


def test_rows_in_memory() -> None:
    assert load_triples([TRIPLE, HELPFUL])["origin"] == ["row:1", "row:2"]
    dataset = Dataset.from_list([TRIPLE, HELPFUL])
    assert load_triples(dataset).to_list() == load_triples([TRIPLE, HELPFUL]).to_list()
    again = load_triples(load_triples([{**TRIPLE, "origin": "a.jsonl:9"}]))
    assert again["origin"] == ["a.jsonl:9"]
    with pytest.raises(InputError, match="row:2: a row must be a mapping, not text"):
        load_triples([TRIPLE, "text"])


def test_several_sources_at_once(write_rows: WriteLines) -> None:
    first, second = write_rows([TRIPLE], "a.jsonl"), write_rows([CONVERSATION], "b.jsonl")
    assert load_triples([first, str(second)])["origin"] == [f"{first}:1", f"{second}:1"]


def test_polarity_is_checked_in_each_source(write_rows: WriteLines) -> None:
    with pytest.raises(InputError, match=r"b.jsonl:1: rejected reads like a refusal"):
        load_triples([write_rows([TRIPLE] * 5, "a.jsonl"), write_rows([SWAPPED], "b.jsonl")])


def test_a_saved_dataset(tmp_path: Path) -> None:
    Dataset.from_list([TRIPLE]).save_to_disk(tmp_path / "one")
    assert load_triples(tmp_path / "one")["origin"] == [f"{tmp_path}/one:1"]
    DatasetDict({"safety": Dataset.from_list([TRIPLE])}).save_to_disk(tmp_path / "splits")
    assert len(load_triples(tmp_path / "splits", split="safety")) == 1
    with pytest.raises(InputError, match="splits: has no split 'train'; it has safety"):
        load_triples(tmp_path / "splits")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(InputError, match="one: can't be read as a saved data set"):
        load_triples(tmp_path / "one")


def test_a_name_is_loaded_by_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, split: str) -> Dataset:
        asked.append((name, split))
        return Dataset.from_list([TRIPLE])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert load_triples("moon-lab/vaults", split="30k_train")["origin"] == ["moon-lab/vaults:1"]
    assert asked == [("moon-lab/vaults", "30k_train")]


def test_a_name_that_can_not_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, split: str) -> Dataset:
        raise ConnectionError("Couldn't reach the hub\nat all")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    message = "moon-lab/vaults: no file, and no data set can be loaded: Couldn't reach the hub$"
    with pytest.raises(InputError, match=message):
        load_triples("moon-lab/vaults")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("row.jsonl", "row.jsonl: file not found .did you mean 'rows.jsonl'"),
        ("sub/rows", "sub/rows: file not found .did you mean 'rows.jsonl'"),
        ("../rows", "../rows: file not found"),
        ("/nowhere/rows.jsonl", "/nowhere/rows.jsonl: file not found"),
        ("a\nb.jsonl", r"a\\nb.jsonl: file not found"),
        ("", ": file not found|is a directory"),
        ("x" * 5000, "x: can't be read: File name too long"),
        ("nul\0.jsonl", r"nul\\x00.jsonl: file not found"),
        ("sub", "sub: is a directory; name a file in it .its files are rows.jsonl"),
    ],
)
def test_paths_that_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    for file in (Path("rows.jsonl"), Path("sub/rows.jsonl")):
        file.touch()
    with pytest.raises(InputError, match=message) as caught:
        load_triples(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", "\n \n"),
        ("a.json", ""),
        ("a.json", "[]"),
        ("a.csv", ""),
        ("a.csv", "prompt,chosen\n"),
    ],
)
def test_a_file_of_nothing(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: is empty; it needs at least one row"):
        load_triples(tmp_path / name)


def test_a_file_of_skipped_rows_only(write_rows: WriteLines) -> None:
    path = write_rows([{"prompt": "p", "response": "r", "category": {}, "is_safe": True}])
    with pytest.raises(InputError, match=r"rows.jsonl: none of its rows can be trained on"):
        load_triples(path)


def test_problems_can_be_collected(write_rows: WriteLines) -> None:
    path = write_rows([TRIPLE, 3, {**TRIPLE, "chosen": ""}, {"prompt": "p"}, HELPFUL])
    problems: list[str] = []
    found = list(read_examples(path, Notes(), on_problem=lambda error: problems.append(str(error))))
    assert [example.origin for example in found] == [f"{path}:1", f"{path}:5"]
    assert [problem.split(": ")[0] for problem in problems] == [f"{path}:{line}" for line in (2, 3, 4)]


def test_the_line_of_a_problem_counts_from_the_files_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,chosen\n"two\nlines",yes\n"",yes\n')
    with pytest.raises(InputError, match=r"a.csv:4: prompt is empty"):
        load_triples(tmp_path / "a.csv")


@given(st.lists(examples(), min_size=1, max_size=8))
def test_any_examples_load_as_they_are(drawn: list[Example]) -> None:
    rows = list(map(canonical_row, drawn))
    assert list(read_examples(rows, Notes(), polarity_checked=True)) == drawn


COLUMN = st.sampled_from(
    sorted({column for schema in SCHEMAS for column in schema.required + schema.optional} | {"question", "promt", "id"})
)
VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["true", "vanilla_benign", r"[INST] p [\INST] h", "Sorry."]),
    st.lists(
        st.one_of(
            st.text(max_size=2),
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system", "usr", None]), "content": st.text(max_size=3)}
            ),
        ),
        max_size=3,
    ),
)


@given(
    st.one_of(
        st.lists(st.dictionaries(COLUMN, VALUE, max_size=8), max_size=3),
        st.sampled_from(SCHEMAS).flatmap(
            lambda schema: st.lists(
                st.fixed_dictionaries(
                    dict.fromkeys(schema.required, VALUE), optional=dict.fromkeys(schema.optional, VALUE)
                ),
                min_size=1,
                max_size=4,
            )
        ),
    ),
    st.booleans(),
)
def test_any_rows_are_examples_or_one_line(rows: list[dict[str, Any]], swap: bool) -> None:
    problems: list[InputError] = []
    try:
        found = list(read_examples(rows, Notes(), swap=swap, on_problem=problems.append))
    except InputError as error:
        problems.append(error)
    else:
        assert all(isinstance(example, Example) for example in found)
    assert not any("\n" in str(problem) for problem in problems)


def test_equal_contents_have_equal_fingerprints() -> None:
    one, same, other = load_triples([TRIPLE]), load_triples([TRIPLE]), load_triples([HELPFUL])
    assert one._fingerprint == same._fingerprint != other._fingerprint
