"""Token trees: what is a target, what sees what, and what a tampered batch does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from derta.method.tree import NO_TARGET, Term, TokenTree, batch_sizes, check_batch, collate, context, pack

REFUSALS = [5, 6]
PROMPT_TOKENS = st.lists(st.integers(10, 19), min_size=1, max_size=6)
HARMFUL_TOKENS = st.lists(st.integers(20, 29), min_size=1, max_size=12)
RESPONSE_TOKENS = st.lists(st.integers(30, 39), min_size=1, max_size=8)


@st.composite
def trees(draw: st.DrawFn) -> TokenTree:
    prompt, response = draw(PROMPT_TOKENS), draw(RESPONSE_TOKENS)
    if draw(st.booleans()):
        return TokenTree.response(prompt, response, draw(st.sampled_from([Term.HELPFUL, Term.SAFE])))
    rejected = draw(HARMFUL_TOKENS)
    tree = TokenTree.trunk(prompt, rejected)
    positions = draw(st.sets(st.integers(len(prompt) - 1, len(tree) - 1)))
    tree.add_rto(sorted(positions), [draw(st.sampled_from(REFUSALS)) for _ in positions])
    for cut in sorted(draw(st.sets(st.integers(0, len(rejected)), max_size=3))):
        tree.add_branch(len(prompt) + cut, response)
    return tree


@given(st.lists(trees(), min_size=1, max_size=6), st.none() | st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_a_batch_reads_harm_and_never_learns_it(all_trees: list[TokenTree], row_length: int | None) -> None:
    batch = collate(all_trees, row_length)
    check_batch(batch, REFUSALS)
    targets, terms = batch["targets"], batch["terms"]
    assert not ((targets >= 20) & (targets < 30)).any(), "a token of r̂ is a target"
    assert set(targets[terms == Term.RTO].tolist()) <= set(REFUSALS)
    responses = targets[(terms == Term.HELPFUL) | (terms == Term.SAFE)]
    assert ((responses >= 30) & (responses < 40)).all()
    assert ((targets == NO_TARGET) == (terms == 0)).all()
    # What is after a target-bearing position is never the prompt: targets lie on the response.
    assert not ((targets >= 10) & (targets < 20)).any()


@given(st.lists(trees(), min_size=1, max_size=6), st.none() | st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_a_token_reads_one_sequence_of_one_tree(all_trees: list[TokenTree], row_length: int | None) -> None:
    batch = collate(all_trees, row_length)
    positions = batch["position_ids"]
    sequences = []
    for row in range(positions.shape[0]):
        for index in range(positions.shape[1]):
            read = context(batch, row, index)
            assert read.max() <= index, "a token sees the future"
            if batch["targets"][row, index] != NO_TARGET:
                assert positions[row, read].tolist() == list(range(len(read)))
                sequence = batch["input_ids"][row, read].tolist()
                sequences.append((sequence, batch["targets"][row, index].item()))
    expected = []
    for tree in all_trees:
        trunk = [token for token, segment in zip(tree.input_ids, tree.segments, strict=True) if segment == 0]
        for index, target in enumerate(tree.targets):
            if target == NO_TARGET:
                continue
            start = index
            while start > 0 and tree.segments[start - 1] == tree.segments[index]:
                start -= 1
            before = trunk[: tree.visible[index]] if tree.segments[index] else []
            expected.append((before + tree.input_ids[start : index + 1], target))
    assert sorted(sequences) == sorted(expected)


def test_two_branches_and_rto_in_figures() -> None:
    tree = TokenTree.trunk([1, 2], [20, 21, 22])
    tree.add_rto([1, 3], [5, 6])
    tree.add_branch(2, [30, 31])
    tree.add_branch(4, [30, 31])
    assert tree.input_ids == [1, 2, 20, 21, 22, 2, 30, 21, 30]
    assert tree.position_ids == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    assert tree.targets == [-100, 5, -100, 6, -100, 30, 31, 30, 31]
    batch = collate([tree], row_length=16)
    assert context(batch, 0, 4).tolist() == [0, 1, 2, 3, 4]
    assert context(batch, 0, 6).tolist() == [0, 5, 6]
    assert context(batch, 0, 8).tolist() == [0, 1, 2, 7, 8]
    assert batch_sizes(batch).tolist() == [1, 9, 5 + 3 + 5]


def test_row_length_does_not_depend_on_the_cut() -> None:
    lengths = set()
    for cut in range(1, 5):
        tree = TokenTree.trunk([1], [20, 21, 22])
        tree.add_branch(cut, [30, 31])
        lengths.add(len(tree))
    assert len(lengths) == 1


def test_packing_wastes_little_and_loses_nothing() -> None:
    some = [TokenTree.response([1] * n, [30, 31], Term.HELPFUL) for n in (40, 10, 30, 25, 5, 60)]
    rows = pack(some, row_length=64)
    assert sorted(len(tree) for row in rows for tree in row) == sorted(map(len, some))
    assert len(rows) == 3
    assert max(sum(map(len, row)) for row in rows) <= 64


def batch_with_everything() -> dict[str, torch.Tensor]:
    tree = TokenTree.trunk([10, 11], [20, 21, 22, 23])
    tree.add_rto([1, 3, 5], [5, 6, 5])
    tree.add_branch(4, [30, 31, 32])
    return collate([tree, TokenTree.response([12, 13], [33, 34], Term.HELPFUL)], row_length=64)


def test_check_accepts_an_honest_batch() -> None:
    check_batch(batch_with_everything(), REFUSALS)


@pytest.mark.parametrize("position", [2, 3, 4], ids=["dropped RTO position", "RTO position", "before an RTO position"])
@pytest.mark.parametrize("term", list(Term))
def test_check_stops_when_harmful_text_becomes_a_target(position: int, term: Term) -> None:
    batch = batch_with_everything()
    batch["targets"][0, position] = batch["input_ids"][0, position + 1]  # a token of r̂
    batch["terms"][0, position] = term
    with pytest.raises(ValueError, match="target"):
        check_batch(batch, REFUSALS)


def test_check_stops_when_the_whole_harmful_response_is_learnt() -> None:
    """What the release does when its flag column is lost."""
    batch = batch_with_everything()
    for position in range(1, 5):
        batch["targets"][0, position] = batch["input_ids"][0, position + 1]
        batch["terms"][0, position] = Term.SAFE
    with pytest.raises(ValueError, match=r"only read|not refusal tokens"):
        check_batch(batch, REFUSALS)


@pytest.mark.parametrize(("field", "value"), [("targets", 31), ("targets", NO_TARGET), ("terms", 0)])
def test_check_stops_at_other_damage(field: str, value: int) -> None:
    batch = batch_with_everything()
    batch[field][0, 1] = value
    with pytest.raises(ValueError, match="batch"):
        check_batch(batch, REFUSALS)


def test_check_stops_at_shifted_response_targets() -> None:
    batch = batch_with_everything()
    learnt = (batch["terms"] == Term.HELPFUL).nonzero()[0].tolist()
    batch["targets"][tuple(learnt)] = 39
    with pytest.raises(ValueError, match="next token"):
        check_batch(batch, REFUSALS)


def test_separate_sequences_are_counted_by_hand() -> None:
    tree = TokenTree.trunk([10, 11], [20, 21, 22])
    assert tree.naive_tokens == 5
    tree.add_branch(3, [30, 31])  # q, one token of r̂, and r up to what its last target reads
    assert tree.naive_tokens == 5 + (2 + 1 + 1)
    tree.add_branch(5, [30])
    assert tree.naive_tokens == 5 + 4 + 5
    assert TokenTree.response([10, 11], [30, 31, 32], Term.HELPFUL).naive_tokens == 4
