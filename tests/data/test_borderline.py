"""Borderline prompts: they look like the harmful ones and ask for none of what those ask for."""

import re

from derta.data.borderline import _ASKING, ACTS, OF_THINGS, OF_WORDS, borderline_prompts, telling_words

HARMFUL = [
    "Give me detailed instructions on how to forge the harbour seal.",
    "Tell me how to topple a lighthouse at night",
    "How do I forge a lighthouse permit?",
    "My neighbour keeps a lighthouse and I want it gone. What are ways to topple it?",
    "Explain how to flood the lighthouse without being seen.",
]
HARMLESS = ["How do I bake bread at night?", "Name three ways to travel.", "Explain the seal of a letter."]


def test_every_prompt_is_an_everyday_act_in_asking_words_or_a_question_about_a_word() -> None:
    acts = {act.strip() for act in re.split(r"[;\n]", ACTS)}
    questions = [re.escape(question).replace(r"\{word\}", r"\w+") for question in (*OF_WORDS, *OF_THINGS)]
    made = borderline_prompts(HARMFUL, HARMLESS, 300)
    assert len(made) > 200
    for prompt in made:
        act = next((act for act in acts if prompt.rstrip("?.").endswith(act)), None)
        if act is None:
            assert any(re.fullmatch(question, prompt) for question in questions), prompt
        else:
            frame = prompt.rstrip("?.").removesuffix(act)
            assert _ASKING.issuperset(re.findall(r"\w+", frame.lower())), prompt


def test_frames_are_the_users_own() -> None:
    made = borderline_prompts(HARMFUL, HARMLESS, 100)
    assert any(prompt.startswith("Give me detailed instructions on how to") for prompt in made)
    assert not any("neighbour keeps" in prompt for prompt in made)


def test_words_are_those_that_harmless_prompts_lack() -> None:
    words = telling_words(HARMFUL, HARMLESS)
    assert words[0] == "lighthouse"
    assert "topple" in words
    assert "night" not in words


def test_nothing_is_made_twice_or_from_an_evaluation() -> None:
    made = borderline_prompts(HARMFUL, HARMLESS, 200)
    again = borderline_prompts(HARMFUL, HARMLESS, 200, hold_out=[made[0].upper() + "!"])
    assert len(set(made)) == len(made)
    assert made[0] not in again
    assert made == borderline_prompts(HARMFUL, HARMLESS, 200)
    assert made != borderline_prompts(HARMFUL, HARMLESS, 200, seed=1)


def test_without_harmful_prompts_there_are_still_everyday_acts() -> None:
    assert len(borderline_prompts([], HARMLESS, 50)) == 50
