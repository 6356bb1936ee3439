"""Encoded data sets: the same tokens however they are made, and never those of other settings."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from derta.data import load_triples, mix
from derta.errors import InputError
from derta.tokens import encoder as encoding
from derta.tokens.encoder import Encoder
from derta.tokens.prompt_formats import set_prompt_format
from derta.training import dataset as module
from derta.training.dataset import encode_dataset
from tests.method.models import tiny
from tests.method.test_exactness import make_trainer, rows


@pytest.fixture(autouse=True)
def _keep_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MIN_ROWS_TO_CACHE", 1)


def encoder(tokenizer: PreTrainedTokenizerFast, cache_dir: Path | None = None, **options: Any) -> Encoder:
    return Encoder(tokenizer, **{"max_length": 128, **options}, cache_dir=cache_dir)


def encode(encoder: Encoder, data: Any = None, **options: Any) -> dict[str, Any]:
    return dict(encode_dataset(Dataset.from_list(data or rows()), encoder, **{"name": "train", **options}).to_dict())


def kept(directory: Path) -> int:
    # Several processes write a file each.
    return len({file.name[:32] for file in directory.glob("*.arrow")})


@pytest.mark.parametrize("num_proc", [None, 2])
def test_kept_tokens_are_those_of_each_example_alone(
    num_proc: int | None, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = encode(encoder(tokenizer))
    assert encode(encoder(tokenizer, tmp_path), num_proc=num_proc) == fresh
    monkeypatch.setattr(Encoder, "encode_batch", None)
    assert encode(encoder(tokenizer, tmp_path)) == fresh
    assert kept(tmp_path) == 1


CHANGES: dict[str, Any] = {
    "length": {"max_length": 64},
    "bare refusals": {"refusal_form": "bare"},
    "words": {"words": True},
    "template options": {"chat_template_kwargs": {"enable_thinking": False}},
}


@pytest.mark.parametrize("change", [*CHANGES, "template", "tokenizer", "data", "overlong", "name", "version"])
def test_a_changed_setting_never_meets_old_tokens(
    change: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(encoder(tokenizer, tmp_path))
    data = rows()
    options: dict[str, Any] = {}
    if change == "template":
        set_prompt_format(tokenizer, "alpaca")
    elif change == "tokenizer":
        tokenizer.add_tokens(["moon vault"])
    elif change == "data":
        data[3]["chosen"] += " No."
    elif change == "overlong":
        options = {"drop_overlong": True}
    elif change == "name":
        options = {"name": "other"}
    elif change == "version":
        monkeypatch.setattr(encoding, "ENCODING_VERSION", 10**6)
    of_encoder = CHANGES.get(change, {})
    found = encode(encoder(tokenizer, tmp_path, **of_encoder), data, **options)
    assert kept(tmp_path) == 2
    assert found == encode(encoder(tokenizer, **of_encoder), data, **options)


def test_a_template_that_shows_the_time_is_never_the_same(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encoder(tokenizer).identity() == encoder(tokenizer).identity()
    tokenizer.chat_template = "{{ strftime_now('%f') }}" + tokenizer.chat_template
    assert encoder(tokenizer).identity() != encoder(tokenizer).identity()


def test_the_name_matters_only_where_it_is_the_origin(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    data = [{**row, "origin": f"rows.jsonl:{number}"} for number, row in enumerate(rows())]
    one = encode(encoder(tokenizer, tmp_path), data, name="dry run")
    assert encode(encoder(tokenizer, tmp_path), data, name="train") == one
    assert kept(tmp_path) == 1
    data[2]["origin"] = ""
    assert encode(encoder(tokenizer, tmp_path), data, name="train")["origin"][2] == "train row 2"
    assert encode(encoder(tokenizer, tmp_path), data, name="eval")["origin"][2] == "eval row 2"


def test_another_order_of_the_same_rows_needs_no_other_tokens(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    data = load_triples([{**row, "origin": f"rows.jsonl:{number}"} for number, row in enumerate(rows())])
    keeping, fresh = encoder(tokenizer, tmp_path), encoder(tokenizer)
    for seed in (1, 2):
        shuffled = data.shuffle(seed=seed)
        found, expected = (encode_dataset(shuffled, one, name="train") for one in (keeping, fresh))
        assert found.to_dict() == expected.to_dict()
        assert found["origin"] == shuffled["origin"] != data["origin"]
        builder = make_trainer(tiny(), tokenizer, tmp_path / "out").train_dataset.builder
        lengths = (module.TreeDataset(one, builder).lengths.tolist() for one in (found, expected))
        assert next(lengths) == next(lengths)
    assert kept(tmp_path) == 1
    some = data.shuffle(seed=3).select(range(5))
    assert encode_dataset(some, keeping, name="train").to_dict() == encode_dataset(some, fresh, name="train").to_dict()
    assert kept(tmp_path) == 2


def test_rows_that_derta_read_are_checked_once(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load_triples(rows())
    expected = encode_dataset(Dataset.from_list(read.to_list()), encoder(tokenizer), name="train").to_dict()
    monkeypatch.setattr("derta.data.arrow.as_example", None)
    for dataset in (read, mix([read.select(range(4)), read.select(range(4, 8))])):
        found = encode_dataset(dataset, encoder(tokenizer), name="train").to_dict()
        assert sorted(zip(*found.values(), strict=True)) == sorted(zip(*expected.values(), strict=True))


def test_rows_that_were_changed_since_are_checked_again(tokenizer: PreTrainedTokenizerFast) -> None:
    emptied = load_triples(rows()).map(lambda row: {"chosen": " "})
    with pytest.raises(InputError, match="row:1: chosen is empty"):
        encode_dataset(emptied, encoder(tokenizer), name="train")


def test_a_response_that_a_column_judges_is_not_learnt_regardless(tokenizer: PreTrainedTokenizerFast) -> None:
    """KTO's rows, say, in a `Dataset` of one's own."""
    judged = Dataset.from_list([{"prompt": "how to open it?", "completion": "take a key.", "label": False}])
    with pytest.raises(InputError, match="train row 0: column 'label' seems to judge the response"):
        encode_dataset(judged, encoder(tokenizer), name="train")


def test_overlong_examples_stop_or_are_left_out(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = rows()
    data[1]["prompt"] *= 20
    for cache_dir in (None, tmp_path, tmp_path):
        with pytest.raises(InputError, match=r"train row 1: prompt has \d+ tokens"):
            encode(encoder(tokenizer, cache_dir), data)
        left = encode(encoder(tokenizer, cache_dir), data, drop_overlong=True)
        assert left["origin"] == [f"train row {number}" for number in range(len(data)) if number != 1]
        assert "train: 1 of 8 examples dropped: too long" in caplog.text
        caplog.clear()
        with pytest.raises(InputError, match="every example is too long"):
            encode(encoder(tokenizer, cache_dir, max_length=4), data, drop_overlong=True)


def test_where_a_run_keeps_its_tokens(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    directories = (tmp_path / "hf" / "derta", tmp_path / "mine")
    batches = []
    for option, expected in (("none", (0, 0)), (None, (1, 0)), (None, (1, 0)), (str(tmp_path / "mine"), (1, 1))):
        trainer = make_trainer(tiny(), tokenizer, tmp_path / "out", dataset_cache_dir=option)
        batches.append(next(iter(trainer.get_train_dataloader())))
        assert tuple(map(kept, directories)) == expected
    for batch in batches[1:]:
        assert all(torch.equal(batch[name], batches[0][name]) for name in batches[0])


def test_few_examples_are_not_kept(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_ROWS_TO_CACHE", 9)
    encode(encoder(tokenizer, tmp_path))
    assert not kept(tmp_path)


@pytest.mark.parametrize(("method", "cuts"), [("derta", 1), ("derta", 2), ("rto", 1), ("vanilla", 1)])
def test_lengths_are_those_of_the_trees(
    method: Any, cuts: int, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trees = make_trainer(tiny(), tokenizer, tmp_path, method=method, cuts_per_triple=cuts).train_dataset
    assert trees is not None
    for index, length in enumerate(trees.lengths):
        tree = trees[0, index]
        assert tree is not None
        assert abs(len(tree) - length) <= cuts
