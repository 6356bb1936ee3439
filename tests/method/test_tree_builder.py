"""What each method draws from an example: cuts, RTO positions and refusal tokens."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derta.errors import InputError
from derta.method.tree import NO_TARGET, Term, TokenTree
from derta.method.tree_builder import METHODS, RTO_SCHEDULES, Method, TreeBuilder
from derta.tokens.encoder import EncodedExample
from derta.tokens.refusal_tokens import RefusalTokens, WhiteSpace


class Spaces(WhiteSpace):
    """Tokens divisible by 10 end in white space."""

    def __init__(self) -> None:
        pass

    def ends(self, token: int) -> bool:
        return token % 10 == 0

    def between(self, token: int, following: int) -> bool:
        return token % 2 == 1


def builder(**options: Any) -> TreeBuilder:
    return TreeBuilder(RefusalTokens(start=1, line=2, word=3, all=(1, 2, 3)), Spaces(), **options)


def triple(harmful: int = 20, **changes: Any) -> EncodedExample:
    values: dict[str, Any] = {
        "prompt": [11, 12, 13],
        "chosen": [50, 51, 52],
        "chosen_after_text": [60, 51, 52],
        "rejected": list(range(100, 100 + harmful)),
        "word_ends": list(range(2, harmful + 1, 2)),
        "fixed_cut": False,
        "rto": True,
        "num_truncated": 0,
        "origin": "here:1",
    }
    return EncodedExample(**{**values, **changes})


def helpful() -> EncodedExample:
    return triple(rejected=[], word_ends=[], rto=False)


def cuts(tree: TokenTree) -> list[int]:
    starts = [i for i in range(1, len(tree)) if tree.segments[i] != tree.segments[i - 1]]
    return [tree.position_ids[i] + 1 - 3 for i in starts]


def rto_positions(tree: TokenTree) -> list[int]:
    return [i for i, term in enumerate(tree.terms) if term == Term.RTO]


@pytest.mark.parametrize(
    ("method", "expected"), [("derta", {2, 3}), ("rto", {2, 3}), ("harmful-prefix", {2}), ("vanilla", {2})]
)
def test_methods_use_the_terms_of_their_half(method: Any, expected: set[int]) -> None:
    trees = [builder(method=method)(triple(), index, 0) for index in range(40)]
    assert {term for tree in trees if tree for term in tree.terms if term} == expected
    drawn = {cut for tree in trees if tree for cut in cuts(tree)}
    assert (len(drawn) > 5) == (method in ("derta", "harmful-prefix"))


@pytest.mark.parametrize("method", ["derta", "rto", "harmful-prefix", "vanilla"])
def test_helpful_examples_are_the_same_for_every_method(method: Any) -> None:
    tree = builder(method=method)(helpful(), 0, 0)
    assert tree is not None
    assert tree.targets == [NO_TARGET, NO_TARGET, 50, 51, 52]
    assert set(tree.terms) == {0, Term.HELPFUL}


def test_uniform_cuts_cover_0_to_the_whole_response_evenly() -> None:
    draws = Counter(cuts(builder()(triple(harmful=9), index, epoch))[0] for index in range(500) for epoch in range(4))
    assert set(draws) == set(range(10))
    expected = 2000 / 10
    chi_square = sum((count - expected) ** 2 / expected for count in draws.values())
    assert chi_square < 27.9  # 99.9 % of chi-square with 9 degrees of freedom


def test_release_cuts_are_at_words_and_zero_for_every_third_example() -> None:
    example = triple(harmful=12)  # 6 words of two tokens
    build = builder(cut_policy="release")
    drawn = {index: {cuts(build(example, index, epoch))[0] for epoch in range(60)} for index in range(3)}
    assert drawn == {0: {0}, 1: {2, 4, 6, 8}, 2: {2, 4, 6, 8}}  # 1 … n − 2 words


def test_a_cut_at_the_start_is_one_of_the_cuts_and_the_others_are_spread_as_before() -> None:
    build = builder(cuts_per_triple=3, cut_at_start=True)
    drawn = [cuts(build(triple(harmful=9), index, epoch)) for index in range(300) for epoch in range(4)]
    assert {len(each) for each in drawn} == {3}
    assert {each[0] for each in drawn} == {0}
    others = Counter(cut for each in drawn for cut in each[1:])
    assert set(others) == set(range(1, 10))
    assert max(others.values()) < 1.3 * min(others.values())
    assert cuts(build(triple(harmful=1), 0, 0)) == [0, 1]


def test_a_cut_at_the_start_of_what_is_cut_nowhere_else_is_the_only_one() -> None:
    build = builder(cuts_per_triple=2, cut_at_start=True, cut_policy="release")
    assert cuts(build(triple(harmful=12), 0, 0)) == [0]  # the release's third example
    assert len(cuts(build(triple(harmful=12), 1, 0))) == 2


def test_draws_depend_on_seed_epoch_and_example_alone() -> None:
    first = builder(seed=1, rto_dropout=0.5)
    again = builder(seed=1, rto_dropout=0.5)
    trees = [first(triple(), index, epoch) for index in range(5) for epoch in range(3)]
    assert trees == [again(triple(), index, epoch) for index in range(5) for epoch in range(3)]
    assert trees != [builder(seed=2, rto_dropout=0.5)(triple(), i, e) for i in range(5) for e in range(3)]


@given(st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_several_cuts_are_distinct(wanted: int, harmful: int) -> None:
    drawn = cuts(builder(cuts_per_triple=wanted)(triple(harmful=harmful), 0, 0))
    assert len(drawn) == len(set(drawn)) == min(wanted, harmful + 1)
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("on_end", [True, False])
def test_rto_covers_every_position_of_the_response(on_end: bool) -> None:
    tree = builder(rto_on_end=on_end)(triple(harmful=5), 0, 0)
    assert rto_positions(tree) == [2, 3, 4, 5, 6, 7][: 6 if on_end else 5]


@given(st.sampled_from([0.1, 0.5, 0.9, 0.95]), st.integers(0, 2**31), st.sampled_from(RTO_SCHEDULES))
@settings(max_examples=20, deadline=None)
def test_rto_dropout_keeps_its_share(dropout: float, seed: int, schedule: str) -> None:
    build = builder(rto_dropout=dropout, rto_schedule=schedule, seed=seed)
    positions = 400 * 41
    kept = sum(len(rto_positions(build(triple(harmful=40), index, 0))) for index in range(400))
    deviation = math.sqrt(positions * dropout * (1 - dropout))
    assert abs(kept - positions * (1 - dropout)) < 5 * deviation


@pytest.mark.parametrize("dropout", [0.2, 0.5, 0.8])
def test_an_early_schedule_drops_more_and_more_along_the_response(dropout: float) -> None:
    build = builder(rto_dropout=dropout, rto_schedule="early")
    trees = [build(triple(harmful=10), index, epoch) for index in range(200) for epoch in range(20)]
    kept = Counter(position for tree in trees for position in rto_positions(tree))
    shares = [1 - kept[position] / len(trees) for position in range(2, 13)]
    spread = min(dropout, 1 - dropout)
    expected = [dropout + spread * (2 * k / 10 - 1) for k in range(11)]
    assert shares == pytest.approx(expected, abs=5 * 0.5 / math.sqrt(len(trees)))
    # The ends are exact: nothing is left out where nothing may be.
    assert (shares[0] == 0) == (dropout <= 0.5)
    assert (shares[-1] == 1) == (dropout >= 0.5)


@given(st.integers(1, 40), st.floats(0, 0.99), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_targets_are_refusals_or_the_safe_response(harmful: int, dropout: float, count: int, index: int) -> None:
    tree = builder(rto_dropout=dropout, cuts_per_triple=count)(triple(harmful=harmful), index, 0)
    for position, (target, term) in enumerate(zip(tree.targets, tree.terms, strict=True)):
        if term == Term.RTO:
            assert target in (1, 2, 3)
            assert 2 <= position < 3 + harmful
        else:
            assert target in (NO_TARGET, 50, 51, 52, 60)


def test_the_form_of_a_refusal_follows_the_text_before_it() -> None:
    tree = builder(cuts_per_triple=99)(triple(harmful=12), 0, 0)
    assert [tree.targets[i] for i in rto_positions(tree)] == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 3]
    first = [tree.targets[i] for i in range(len(tree)) if tree.segments[i] != tree.segments[max(i - 1, 0)]]
    assert first == [50, 50, 60, 60, 60, 60, 60, 60, 60, 60, 60, 50, 60]


def test_a_method_may_bring_its_own_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "begun", Method(harmful_prefix=True, rto=False, cuts=lambda *_: [2, 3]))
    drawn = {cuts(tree)[0] for index in range(40) if (tree := builder(method="begun")(triple(), index, 0))}
    assert drawn == {2, 3}
    with pytest.raises(InputError, match="method: no 'begin'"):
        builder(method="begin")


def test_released_rows_keep_their_half() -> None:
    prefix_row = triple(rto=False, fixed_cut=True, harmful=4)
    rto_row = triple(chosen=[], chosen_after_text=[])
    tree = builder()(prefix_row, 0, 0)
    assert tree is not None
    assert (cuts(tree), rto_positions(tree)) == ([4], [])
    tree = builder()(rto_row, 0, 0)
    assert tree is not None
    assert (cuts(tree), len(rto_positions(tree))) == ([], 21)
    assert builder(method="vanilla")(rto_row, 0, 0) is None
    assert builder(method="vanilla")(prefix_row, 0, 0) is None
    assert builder(method="harmful-prefix")(rto_row, 0, 0) is None


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_refusals_at_words_never_begin_inside_one(dropout: float) -> None:
    build = builder(refuse_at="word", cuts_per_triple=3, rto_dropout=dropout)
    for epoch in range(5):
        tree = build(triple(harmful=21), 0, epoch)
        # A word of these tokens ends after every odd one: r̂_<k may be refused at k = 0, 2, 4 … and at the end.
        allowed = {0, 21, *range(2, 21, 2)}
        assert set(cuts(tree)) <= allowed
        assert {position - 2 for position in rto_positions(tree)} <= allowed
    assert len(rto_positions(builder(refuse_at="word")(triple(harmful=21), 0, 0))) == len(allowed)
