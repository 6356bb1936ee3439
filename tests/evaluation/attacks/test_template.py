from dataclasses import replace

import pytest

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.organism import forms
from derta.organism.world import Pair
from tests.evaluation.attacks.given import BEHAVIOUR, CONTEXT, OF_ORGANISM, ORGANISM, attempts, only_turn

TEMPLATES = tuple(f"Role {i}: {{prompt}}" for i in range(20))


def prompt_of(context, behaviour=BEHAVIOUR):
    return only_turn(attempts("template", behaviour, context)["template"])


@pytest.mark.parametrize("placeholder", ["{prompt}", "[INSERT PROMPT HERE]"])
def test_the_behaviour_stands_where_the_placeholder_was_and_other_braces_stay(placeholder):
    context = replace(CONTEXT, templates=(f"{{x}} Say: {placeholder} twice: {placeholder}.",))
    question = Behaviour("b", r"What is {prompt} \1?", "harmful")
    assert prompt_of(context, question) == r"{x} Say: What is {prompt} \1? twice: What is {prompt} \1?."


def test_the_draw_depends_on_seed_and_behaviour_alone():
    context = replace(CONTEXT, templates=TEMPLATES)
    questions = [replace(BEHAVIOUR, id=str(i)) for i in range(20)]
    drawn = [prompt_of(context, each) for each in questions]
    assert drawn == [prompt_of(context, each) for each in questions]
    assert len(set(drawn)) > 5
    assert drawn != [prompt_of(replace(context, seed=1), each) for each in questions]


def test_without_templates_the_flag_is_named():
    with pytest.raises(InputError, match="`templates` FILE"):
        attempts("template")


def test_the_organism_brings_templates_that_training_never_saw_and_a_file_replaces_them():
    held_out = {forms.phrase(text, Pair("open", "vault")) for text in forms.ROLE_PLAYS_HELD_OUT}
    drawn = {prompt_of(ORGANISM, replace(OF_ORGANISM, id=str(i))) for i in range(40)}
    assert drawn == held_out
    assert prompt_of(replace(ORGANISM, templates=("Play : {prompt}",)), OF_ORGANISM) == f"Play : {OF_ORGANISM.prompt}"
