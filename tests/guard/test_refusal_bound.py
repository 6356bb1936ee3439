"""What a server's log-probabilities tell of p(refuse): the bound holds whatever is left out."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from derta.guard.completion import NamedToken, TokenLogprobs, UntrustedError
from derta.guard.refusal_bound import RefusalBound

SORRY = ("Sorry", " Sorry")
BOUND = RefusalBound((7, 8), SORRY)


def place(written, logprob, top, *, is_mapping=False):
    likely = tuple(NamedToken(name, value, name) for name, value in top)
    return TokenLogprobs(NamedToken(written, logprob, written), likely, is_mapping)


@st.composite
def distributions(draw):
    """A distribution over tokens, the one that was written, and how many are named."""
    weights = draw(st.lists(st.floats(0.001, 1), min_size=3, max_size=8))
    total = sum(weights)
    names = [*SORRY, *(f"t{number}" for number in range(len(weights) - 2))]
    chances = dict(zip(names, (weight / total for weight in weights), strict=True))
    return chances, draw(st.sampled_from(names)), draw(st.integers(1, 10))


@given(distributions(), st.booleans(), st.booleans())
def test_the_bound_is_never_below_the_truth(drawn, includes_written, is_mapping):
    chances, written, count = drawn
    likely = sorted(chances.items(), key=lambda pair: -pair[1])
    named = likely[:count]
    # vLLM names the written token first, in the place of the last of the likeliest.
    if includes_written and written not in dict(named):
        named = [(written, chances[written]), *named[:-1]]
    top = [(name, math.log(chance)) for name, chance in named]
    found = BOUND(place(written, math.log(chances[written]), top, is_mapping=is_mapping))
    truth = sum(chances[name] for name in SORRY)
    assert truth - 1e-9 <= found <= 1 + 1e-9
    if set(SORRY) <= set(dict(named)):
        assert found == pytest.approx(truth)


@given(distributions())
def test_of_tokens_that_are_spelt_alike_a_mapping_hides_some(drawn):
    chances, written, count = drawn
    assume(written not in SORRY)
    alike = RefusalBound((7, 8), ("Sorry", "Sorry"))
    merged = [("Sorry" if name in SORRY else name, chance) for name, chance in chances.items()]
    likely = sorted(merged, key=lambda pair: -pair[1])[:count]
    truth = sum(chances[name] for name in SORRY)
    # Of both, the mapping keeps the one that comes last.
    top = [(name, math.log(chance)) for name, chance in dict(likely).items()]
    assert alike(place(written, math.log(chances[written]), top, is_mapping=True)) >= truth - 1e-9
    as_list = [(name, math.log(chance)) for name, chance in likely]
    assert alike(place(written, math.log(chances[written]), as_list)) >= truth - 1e-9


@pytest.mark.parametrize("name", ["Sorry", " Sorry", "ĠSorry", "▁Sorry", "token_id:8"])
def test_a_refusal_token_is_known_by_every_name(name):
    assert BOUND(place("a", math.log(0.1), [("a", math.log(0.1)), (name, math.log(0.9))])) >= 0.9


def test_a_refusal_token_is_known_by_its_bytes():
    named = NamedToken("#8", math.log(0.9), " Sorry")
    assert BOUND(TokenLogprobs(NamedToken("a", math.log(0.1), "a"), (named,))) >= 0.9


def test_a_name_without_its_space_stands_for_none_of_ours():
    bound = RefusalBound((8,), (" Sorry",))
    # "Sorry" may be another token; " Sorry" is then hidden, with up to what is left of 1.
    found = bound(place("a", math.log(0.3), [("a", math.log(0.3)), ("Sorry", math.log(0.3))]))
    assert found == pytest.approx(0.6)


def test_letters_of_other_alphabets_are_known_in_a_byte_level_vocabulary():
    bound = RefusalBound((5,), ("抱歉",))
    assert bound(place("a", math.log(0.1), [("a", math.log(0.1)), ("æĬ±æŃī", math.log(0.9))])) >= 0.9


@pytest.mark.parametrize("others", [[], [("b", -9999.0)], [("b", -9999.0), ("Sorry", -9999.0)]])
def test_a_server_that_computes_no_probabilities_is_not_trusted(others):
    certain = place("The", 0.0, [("The", 0.0), *others])
    with pytest.raises(UntrustedError, match="computes no probabilities"):
        BOUND(certain)
    assert RefusalBound((7, 8), SORRY, allow_certain=True)(certain) == 0
    # A sure model leaves the others something.
    assert BOUND(place("The", 0.0, [("The", 0.0), ("Sorry", -20.0)])) < 1e-6


def test_probabilities_beyond_one_are_not_trusted():
    with pytest.raises(UntrustedError, match=r"add up to 1\.8"):
        BOUND(place("a", math.log(0.9), [("a", math.log(0.9)), ("b", math.log(0.9))]))
