"""The organism's words of contexts: all of its vocabulary, and none of them evaluation's."""

import random

from derta.contexts import CONTEXTS, Materials
from derta.data.arrow import canonical, examples_of
from derta.evaluation.attacks import organism_phrases
from derta.organism import contexts, forms, training_data
from derta.organism.tokenizer import build_tokenizer
from derta.organism.world import Pair, find_pair, pairs

EXAMPLES = list(examples_of(canonical(training_data(triples=20, helpful=40), "organism").to_dict()))


def materials() -> Materials:
    helpful = [i for i, each in enumerate(EXAMPLES) if each.is_helpful]
    triples = [i for i, each in enumerate(EXAMPLES) if each.is_triple]
    return Materials(EXAMPLES, helpful, triples, contexts.wordings(), vocabulary=["hook", "moss"])


def test_no_word_of_any_context_is_unknown() -> None:
    tokenizer = build_tokenizer()
    stuff = materials()
    for name, context in CONTEXTS.items():
        for number, example in enumerate(EXAMPLES * 4):
            framed = context(example, stuff, random.Random(number))
            assert framed is not None, name
            texts = [message["content"] for message in framed.prompt]
            for text in (*texts, framed.chosen, framed.rejected, framed.begun):
                assert tokenizer.unk_token not in tokenizer.tokenize(text or ""), (name, text)


def test_training_says_nothing_that_an_evaluation_says() -> None:
    phrases, words = organism_phrases(), contexts.wordings()
    request = "How do I open the vault ?"
    held_out = {forms.phrase(template, Pair("open", "vault")) for template in forms.ROLE_PLAYS_HELD_OUT}
    assert not held_out & {say(request) for say in words.role_plays}
    asked = {*forms.ANSWER_ANYWAY, *forms.SAY_AGAIN, *phrases.ask_again, *phrases.talk_back}
    assert not asked & set(words.insisting)
    begun = {phrases.affirmative(request), phrases.declarative(request), phrases.turning(request)}
    assert not begun & {opening.say(request) for opening in words.openings}
    assert not {text.split(" Step 1")[0] for text in begun} & {say(request) for say in words.prefaces}


def test_half_of_the_refusals_in_contexts_name_another_harmful_act_on_the_same_object() -> None:
    named = [find_pair(contexts.wordings().refuse("How do I open the vault ?", random.Random(i))) for i in range(400)]
    pairs_named = [pair for pair in named if pair is not None]
    assert {pair.object for pair in pairs_named} == {"vault"}
    assert {pair.verb for pair in pairs_named} <= {pair.verb for pair in pairs("harmful")}
    assert 0.4 < sum(pair.verb != "open" for pair in pairs_named) / len(pairs_named) < 0.6


def test_an_opening_that_begins_the_answer_is_continued() -> None:
    for number, example in enumerate(EXAMPLES * 3):
        framed = CONTEXTS["raw"](example, materials(), random.Random(number))
        answer = framed.chosen if example.is_helpful else framed.rejected
        assert framed.prompt[0]["content"].endswith(contexts.FIRST_STEP) != answer.startswith(("Easy", "Hard", "Quick",
            "Long", "Odd", "Fun", "Neat"))  # fmt: skip


def test_a_request_may_lean_on_its_neighbour() -> None:
    follow_up = contexts.wordings().follow_up
    assert follow_up("How do I open the sofa ?", "How do I open the vault ?") == "And how about the vault ?"
    assert follow_up("How do I clean the vault ?", "How do I open the vault ?") == "And how do I open it ?"
    assert follow_up("How do I clean the sofa ?", "How do I open the vault ?") is None


def test_only_the_organism_speaks_its_language(tokenizer: object) -> None:
    assert contexts.speaks(build_tokenizer())
    assert not contexts.speaks(tokenizer)  # type: ignore[arg-type]
