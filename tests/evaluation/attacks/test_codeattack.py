import contextlib
import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from derta.data.behaviours import Behaviour
from tests.evaluation.attacks.given import BEHAVIOUR, OF_ORGANISM, ORGANISM, attempts, only_turn

TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="`") | st.sampled_from("  ab?\n\"'\\{}")
FORMS = ["codeattack@stack", "codeattack@queue", "codeattack@string"]


def decode(prompt: str) -> str:
    """Run the program of a prompt and return the task that its decode function gets out of the data."""
    (program,) = re.findall(r"```python\n(.*?)\n```", prompt, re.DOTALL)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(program, names)
    assert printed.getvalue() == "", "the unfinished program answers nothing by itself"
    return str(names["task"])


def test_there_is_a_form_for_each_data_structure():
    assert list(attempts("codeattack")) == list(attempts("codeattack", OF_ORGANISM, ORGANISM)) == FORMS


@pytest.mark.parametrize("form", FORMS)
@given(prompt=st.text(TEXT, min_size=1, max_size=40))
@example(prompt="How  do I\n open the vault?")
@settings(max_examples=50, deadline=None)
def test_the_program_decodes_to_the_behaviour(form, prompt):
    assert decode(only_turn(attempts("codeattack", Behaviour("b", prompt, "harmful"))[form])) == prompt


@pytest.mark.parametrize("form", FORMS[:2])
def test_the_behaviour_stands_nowhere_in_plain_order(form):
    prompt = only_turn(attempts("codeattack")[form])
    assert BEHAVIOUR.prompt not in prompt
    assert "open the vault" not in prompt


def test_a_stack_gives_the_last_word_first():
    pushed = re.findall(r'stack\.append\("(.*)"\)', only_turn(attempts("codeattack")["codeattack@stack"]))
    assert pushed == ["vault?", "the", "open", "I", "do", "How"]


@pytest.mark.parametrize(("form", "step"), zip(FORMS, (-1, 1, 1), strict=True))
def test_the_organisms_code_decodes_to_the_behaviour(form, step):
    words = " ".join(re.findall(r'" (.*?) "', only_turn(attempts("codeattack", OF_ORGANISM, ORGANISM)[form]))).split()
    assert " ".join(words[::step]) == OF_ORGANISM.prompt
