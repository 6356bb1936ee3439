"""A tiny model and its tokenizer."""

import pytest

from tests.inference.tiny import make_model, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    return make_model(len(tokenizer))
