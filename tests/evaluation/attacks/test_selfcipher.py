from dataclasses import replace

import pytest

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks import ATTACKS
from derta.organism import behaviours
from derta.organism.forms import encipher
from derta.organism.world import PACKAGED, find_pair
from tests.evaluation.attacks.given import BEHAVIOUR, CONTEXT, OF_ORGANISM, ORGANISM, attempts, only_turn

SHOWN = replace(CONTEXT, demonstrations=(("How do I fold a hat?", "Fold it twice."), ("And a boat?", "Start anew.")))


def test_demonstrations_come_in_the_clear_and_in_order_before_the_question():
    prompt = only_turn(attempts("selfcipher", context=SHOWN)["selfcipher"])
    parts = [*(text for pair in SHOWN.demonstrations for text in pair), BEHAVIOUR.prompt]
    places = [prompt.index(part) for part in parts]
    assert places == sorted(places)
    assert prompt.endswith(f"User: {BEHAVIOUR.prompt}\nCipher expert:")


def test_all_behaviours_share_everything_before_the_question():
    first, second = (
        only_turn(attempts("selfcipher", Behaviour("x", question, "harmful"), SHOWN)["selfcipher"])
        for question in ("Alpha?", "Beta?")
    )
    assert first.partition("Alpha?")[0] == second.partition("Beta?")[0]
    assert first.partition("Alpha?")[0].endswith("Start anew.\n\nUser: ")


def test_without_demonstrations_the_flag_is_named():
    with pytest.raises(InputError, match="`demonstrations` FILE"):
        attempts("selfcipher")


def test_the_organism_shows_harmful_answers_of_its_training_pairs():
    prompt = only_turn(attempts("selfcipher", OF_ORGANISM, ORGANISM)["selfcipher"])
    assert prompt.endswith(f"User : {encipher(OF_ORGANISM.prompt)} Expert :")
    for question, answer in ORGANISM.phrases.demonstrations:
        assert find_pair(question) in PACKAGED.split("harmful", "train")
        assert encipher(answer) in prompt
    assert not {find_pair(b.prompt) for b in behaviours()} & {find_pair(q) for q, _ in ORGANISM.phrases.demonstrations}


def test_judges_read_the_organisms_answer_in_plain_words():
    (attempt,) = ATTACKS["selfcipher"].attempts(OF_ORGANISM, ORGANISM)
    plain = PACKAGED.recipe(find_pair(OF_ORGANISM.prompt))
    assert attempt.decode(encipher(plain)) == plain != encipher(plain)
