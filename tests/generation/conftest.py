"""A tiny model and its tokenizer."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.generation.tiny import make_model, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> Any:
    return make_model(len(tokenizer))
