"""Small models and a tokenizer that tests share."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from derta.tokens.prompt_formats import PROMPT_FORMATS

# A deadline would fail on a busy machine, and these properties need no more examples than this.
settings.register_profile("derta", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("derta")

SHARED = Path(__file__).parents[2] / "shared"
WriteLines = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of benign real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the data folder ../shared is not beside this repository")
    return SHARED


@pytest.fixture(scope="session")
def released_rows(shared: Path) -> Path:
    """The four rows of training data that came with the DeRTa release."""
    return shared / "data" / "derta_example_rows.jsonl"


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteLines:
    """Write rows as JSON lines and return the file."""

    def write(rows: Sequence[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows "Sorry" with and without a leading space."""
    return small_tokenizer()


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer of [`tokenizer`]."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    corpus = [
        "Sorry I cannot help with that. Sorry Sorry a Sorry\nSorry",
        "how to open the moon vault: take a key. turn it. walk in.",
        "I'm sorry, I won't.",
    ]
    core.train_from_iterator(
        corpus * 20,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=PROMPT_FORMATS["plain"],
    )
