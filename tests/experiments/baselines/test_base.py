"""Constants of baselines, their floor, and the template that says what comes first."""

import ast
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import PreTrainedTokenizerFast

import derta
from derta.data.triples import Message
from derta.errors import InputError
from derta.method.tree_builder import METHODS
from derta.organism.tokenizer import build_tokenizer
from experiments.baselines import BASELINES, find_baseline
from experiments.baselines.base import constants_of
from experiments.baselines.priority import messages_with, template_with


def test_no_baseline_has_the_name_of_one_of_derta_s_methods() -> None:
    assert not BASELINES.keys() & METHODS.keys()


@pytest.mark.parametrize("floor", ["training", "method", "tokens", "data", "generation", "evaluation"])
def test_nothing_that_derta_trains_with_imports_a_baseline(floor: str) -> None:
    for path in (Path(derta.__file__).parent / floor).rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not any(name.startswith("experiments.baselines") for name in named), path


def test_every_baseline_names_its_source_and_says_what_differs() -> None:
    for baseline in BASELINES.values():
        text = __import__(baseline.make.__module__, fromlist=["_"]).__doc__
        assert baseline.source.removeprefix("arXiv ") in text
        assert "ifferent" in text


def test_constants_are_checked_by_name_and_kind() -> None:
    door = find_baseline("door")
    assert constants_of(door, {"beta": 1})["beta"] == 1.0
    with pytest.raises(InputError, match=r"`constants` bta: door has none of this name \(did you mean 'beta'\?\)"):
        constants_of(door, {"bta": 1})
    with pytest.raises(InputError, match=r'`constants` beta: "much" is not of the kind of its default, 0.5'):
        constants_of(door, {"beta": "much"})
    with pytest.raises(InputError, match=r"baseline: no 'dor' \(did you mean 'door'\?\)"):
        find_baseline("dor")


def test_a_template_writes_the_text_where_the_data_have_it(tokenizer: PreTrainedTokenizerFast) -> None:
    text = 'safety "first" .'
    turns: Any = [
        Message(role="user", content="hi"),
        Message(role="assistant", content="hello"),
        Message(role="user", content="how?"),
    ]
    plain = tokenizer.apply_chat_template(
        cast(Any, messages_with(text, turns)), tokenize=False, add_generation_prompt=True
    )
    tokenizer.chat_template = template_with(text, str(tokenizer.chat_template))
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == plain
    assert str(plain).count(text) == 1


def test_default_texts_are_words_that_the_organism_knows() -> None:
    tokenizer = build_tokenizer()
    for text in (find_baseline("goal-priority").constants["prompt"], *find_baseline("sofa").constants["rules"]):
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
