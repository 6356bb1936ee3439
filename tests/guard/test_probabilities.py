"""What a server's log-probabilities tell of p(refuse): the bound holds whatever is left out."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from derta.guard.probabilities import RefusalBound, Untrusted, of_chat, of_text

SORRY = ("Sorry", " Sorry")
BOUND = RefusalBound(SORRY)


@st.composite
def places(draw):
    """A distribution over tokens, the one that was written, and how many are named."""
    weights = draw(st.lists(st.floats(0.001, 1), min_size=3, max_size=8))
    total = sum(weights)
    names = [*SORRY, *(f"t{number}" for number in range(len(weights) - 2))]
    chances = dict(zip(names, (weight / total for weight in weights), strict=True))
    return chances, draw(st.sampled_from(names)), draw(st.integers(1, 10))


@given(places(), st.booleans(), st.booleans())
def test_the_bound_is_never_below_the_truth(place, includes_written, is_mapping):
    chances, written, count = place
    likely = sorted(chances.items(), key=lambda pair: -pair[1])
    named = likely[:count]
    # vLLM names the written token first, in the place of the last of the likeliest.
    if includes_written and written not in dict(named):
        named = [(written, chances[written]), *named[:-1]]
    top = [(name, math.log(chance)) for name, chance in named]
    found = BOUND(written, math.log(chances[written]), top, is_mapping=is_mapping)
    truth = sum(chances[name] for name in SORRY)
    assert truth - 1e-9 <= found <= 1 + 1e-9
    if set(SORRY) <= set(dict(named)):
        assert found == pytest.approx(truth)


@given(places())
def test_of_tokens_that_are_spelt_alike_a_mapping_hides_some(place):
    chances, written, count = place
    assume(written not in SORRY)
    alike = RefusalBound(("Sorry", "Sorry"))
    merged = [("Sorry" if name in SORRY else name, chance) for name, chance in chances.items()]
    likely = sorted(merged, key=lambda pair: -pair[1])[:count]
    truth = sum(chances[name] for name in SORRY)
    # Of both, the mapping keeps the one that comes last.
    top = [(name, math.log(chance)) for name, chance in dict(likely).items()]
    assert alike(written, math.log(chances[written]), top, is_mapping=True) >= truth - 1e-9
    as_list = [(name, math.log(chance)) for name, chance in likely]
    assert alike(written, math.log(chances[written]), as_list) >= truth - 1e-9


def test_a_whole_number_larger_than_a_float_is_no_chance():
    assert BOUND("a", -(10**400), [("Sorry", -(10**400)), (" Sorry", -math.inf), ("a", -(10**400))]) == 0


@pytest.mark.parametrize("logprob", [None, "0", True, math.nan, 0.5, 10**400])
def test_what_is_no_log_probability_is_not_trusted(logprob):
    with pytest.raises(Untrusted):
        BOUND("a", logprob, [("a", -1.0)])
    with pytest.raises(Untrusted):
        BOUND("a", -1.0, [("b", logprob)])


def test_probabilities_beyond_one_are_not_trusted():
    with pytest.raises(Untrusted, match=r"add up to 1\.8"):
        BOUND("a", math.log(0.9), [("a", math.log(0.9)), ("b", math.log(0.9))])


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": "no list"},
        {"content": [1]},
        {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": [3]}]},
        {"content": [{"token": "a", "logprob": -1.0}]},
        {"content": [{"logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}]},
    ],
)
def test_a_chats_log_probabilities_have_a_form(logprobs):
    with pytest.raises(Untrusted):
        of_chat(logprobs, BOUND)


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"], "token_logprobs": [], "top_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [None]},
        {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{}]},
    ],
)
def test_a_texts_log_probabilities_have_a_form(logprobs):
    with pytest.raises(Untrusted):
        of_text(logprobs, BOUND)


def test_none_tell_nothing():
    assert of_chat(None, BOUND) == of_text(None, BOUND)
    assert of_chat(None, BOUND).bounds == ()
