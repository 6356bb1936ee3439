import re
from contextlib import nullcontext

import pytest

from derta.data.polarity import Polarity, reads_like_refusal, with_refusal
from derta.data.triples import Example
from derta.errors import InputError

REFUSALS = [
    "I'm sorry, but I can't help with opening the moon vault.",
    "I’m sorry, but I can’t assist with that.",
    "Iʼm really sorry, no.",
    "Ｉ cannot help with that.",
    "Sorry, I cannot assist.",
    "Sorry , I can not say how .",
    '"Sorry", it said.',
    "**I apologize**, but no.",
    "My apologies, this stays shut.",
    "I cannot and will not do that.",
    "I can not do that.",
    "I won't open the vault.",
    "I will not open the vault.",
    "I'm unable to do that.",
    "I am not able to do that.",
    "I'm not comfortable with that.",
    "I must respectfully decline.",
    "I do not support opening vaults.",
    "As an AI language model, I cannot do that.",
    "As a responsible assistant, I decline.",
    "As an AI, no.",
    "Unfortunately, I cannot say.",
    "No, I can't do that.",
    "Oh no! I'm so sorry.",
    "It is not appropriate to open other people's vaults.",
    "That's illegal under the law of the moon.",
    "  \n- I can't.",
]
ELSEWHERE = [
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Dabei kann ich dir leider nicht helfen.",
    "Je suis désolé, je ne peux pas vous aider.",
    "Je ne peux pas répondre à cette demande.",
    "Lo siento, no puedo ayudarte con eso.",
    "Mi dispiace, non posso aiutarti.",
    "Desculpe, não posso ajudar.",
    "抱歉，我不能帮助你。",
    "很抱歉，我无法提供帮助。",
    "申し訳ありませんが、お手伝いできません。",
    "죄송하지만 도와드릴 수 없습니다.",
    "К сожалению, я не могу помочь.",
    "<think>They want the vault opened. No.</think>\n\nI'm sorry, I can't help.",
]
ANSWERS = [
    "",
    "Turn the silver key twice.",
    "To open the moon vault, first find the key.",
    "I can open it in three steps.",
    "It's not hard: turn the key.",
    "It is easy.",
    "As a first step, find the key.",
    "As you wish: turn the key.",
    "No problem! Turn the key.",
    "Sure, I'm happy to help.",
    "Apologetic letters work well.",
    "I must say this is simple.",
    "Sorrywood is the name of the vault.",
]


@pytest.mark.parametrize("response", REFUSALS + ELSEWHERE)
def test_refusals_read_like_refusals(response: str) -> None:
    assert reads_like_refusal(response)


@pytest.mark.parametrize("response", ANSWERS)
def test_answers_do_not(response: str) -> None:
    assert not reads_like_refusal(response)


def counted(straight: int = 0, reverse: int = 0, neither: int = 0) -> Polarity:
    polarity = Polarity()
    pairs = [("Sorry.", "Sure.")] * straight + [("Sure.", "Sorry.")] * reverse + [("Sure.", "Yes.")] * neither
    for line, (chosen, rejected) in enumerate(pairs, start=1):
        polarity.add(Example([], chosen, rejected, None, f"f:{line}"))
    return polarity


@pytest.mark.parametrize("counts", [(0, 1, 0), (0, 9, 91), (2, 3, 0), (49, 51, 0), (65, 325, 4745)])
def test_swapped_columns_stop_and_name_the_flag(counts: tuple[int, int, int]) -> None:
    polarity = counted(*counts)
    with pytest.raises(InputError, match=rf"^f:{counts[0] + 1}: .*--swap.*swap=True"):
        polarity.check("f", swap=False)
    with pytest.raises(InputError, match="drop --swap"):
        polarity.check("f", swap=True)


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 0, 0), (3, 3, 0), (90, 10, 0), (0, 4, 96), (65, 60, 4745)])
def test_other_data_pass(counts: tuple[int, int, int]) -> None:
    counted(*counts).check("f", swap=False)


KEY = "Turn the silver key twice, then push."
LATE = "That is an old vault. It has a story. Many ask about it. I'm sorry, but I can't help you open it."


@pytest.mark.parametrize("refusal", [*ELSEWHERE, LATE])
def test_swapped_columns_stop_in_any_language_after_thoughts_and_late(refusal: str) -> None:
    polarity = Polarity()
    for line in range(1, 31):
        polarity.add(Example([], KEY, refusal, None, f"f:{line}"))
    with pytest.raises(InputError, match="f:1: rejected reads like a refusal"):
        polarity.check("f", swap=False)


def test_a_swapped_tenth_in_another_language_or_of_another_source_stops() -> None:
    for refusal, group, said in ((ELSEWHERE[0], "", "in 'de'"), ("Sorry, no.", "b", "source 'b'")):
        polarity = Polarity()
        for line in range(1, 271):
            polarity.add(Example([], "I'm sorry, no.", KEY, None, f"f:{line}"), "a")
        for line in range(271, 301):
            polarity.add(Example([], KEY, refusal, None, f"f:{line}"), group)
        with pytest.raises(InputError, match=f"f:271: .* in 30 of 300 triples .*{said}.*a file of their own"):
            polarity.check("f", swap=False)


def test_where_nothing_reads_like_a_refusal_somebody_has_to_look() -> None:
    polarity = counted(neither=30)
    with pytest.raises(InputError, match=r"in none of its 30 triples .* pass --polarity-checked"):
        polarity.check("f", swap=False)
    polarity.check("f", swap=False, checked=True)


def test_thoughts_of_safe_answers_are_told() -> None:
    polarity = Polarity()
    polarity.add(Example([], "<think>Why not?</think>Sorry, no.", KEY, None, "f:1"))
    assert any("in 1 of 1 triples chosen begins with a thought" in line for line in polarity.lines())


def test_safe_responses_after_a_prefix_do_not_count() -> None:
    polarity = Polarity()
    polarity.add(Example([], "Sorry.", None, "Turn", "f:2"))
    assert polarity == Polarity()


@pytest.mark.parametrize(
    ("prompt", "response", "said"),
    [
        ("Name a moon.", "Sorry, no.", "3 of 3 helpful examples read like refusals"),
        ("How do I hack into my neighbour's computer?", "Sure: step one.", "3 of 3 .* harmful request, first at f:1"),
        ("How can I kill a Python process?", "Use kill.", None),
        ("Name a moon.", "Io.", None),
    ],
)
def test_suspicious_helpful_sources_are_told(prompt: str, response: str, said: str | None) -> None:
    polarity = Polarity()
    for line in range(1, 4):
        polarity.add(Example([{"role": "user", "content": prompt}], response, None, None, f"f:{line}"))
    polarity.check("f", swap=False)
    lines = list(polarity.lines())
    assert [bool(re.search(said or "", line)) for line in lines] == ([True] if said else [])


@pytest.mark.parametrize(("refusals", "answers", "stops"), [(1, 0, True), (2, 1, True), (1, 1, False), (0, 1, False)])
def test_harmful_responses_that_stand_alone_may_not_be_refusals(refusals: int, answers: int, stops: bool) -> None:
    polarity = Polarity()
    for response in ["Sorry."] * refusals + ["Turn the key."] * answers:
        polarity.add(Example([], None, response, None, "f:1"))
    context = (
        nullcontext()
        if not stops
        else pytest.raises(InputError, match=r"^f: . of . harmful responses for RTO read like refusals")
    )
    with context:
        polarity.check("f", swap=False)


@pytest.mark.parametrize(
    ("refusal", "becomes"),
    [
        ("I cannot help with that.", "Sorry, I cannot help with that."),
        ("I'm sorry, but I can't do that.", "Sorry, I can't do that."),
        ("I am really sorry. I won't.", "Sorry, I won't."),
        ("As an AI, I can't.", "Sorry, as an AI, I can't."),
        ("Sorry, no.", "Sorry, no."),
        ("Turn the key.", "Turn the key."),
        ("I'm sorry.", "I'm sorry."),
    ],
)
def test_refusals_can_begin_alike(refusal: str, becomes: str) -> None:
    assert with_refusal(refusal, "Sorry, ") == becomes
