"""Token trees: one row of tokens that carries both halves of the objective.

RTO reads prompt + r̂. MLE with harmful prefix reads prompt + r̂_<k, then r. The second begins as the first does, so one
tree holds both, and as many branches as there are cuts:

    [ prompt | r̂ ]  [ copy of the token before the cut | r ]  [ copy | r ] …
      trunk           branch                                   branch

A branch takes the positions it would have after its cut and attends to the trunk up to the cut and to itself. The
copied token gives the branch's first target a place of its own: its original already carries the RTO target of that
context. Nothing else changes, so losses and gradients equal those of separate sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch

NO_TARGET = -100
_TRUNK = 0


class Term(IntEnum):
    """The part of the objective that a target belongs to; 0 marks positions without a target."""

    HELPFUL = 1
    SAFE = 2
    RTO = 3


@dataclass
class TokenTree:
    """One example's tokens, in row order; every list has one entry for each token.

    Attributes:
        input_ids: Holds the tokens.
        position_ids: Holds each token's position in the sequence that it stands for.
        targets: Holds the token to predict after each position, or `NO_TARGET`.
        terms: Holds the `Term` of each target, or 0.
        segments: Numbers the segments: 0 on the trunk, then 1, 2, … on the branches.
        visible: Counts the trunk tokens that each token attends to besides its own segment (0 on the trunk).
    """

    input_ids: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    terms: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def naive_tokens(self) -> int:
        """Tokens that a sequence of its own for the trunk and for each branch would take."""
        ends = [i for i in range(len(self)) if i + 1 == len(self) or self.segments[i + 1] != self.segments[i]]
        return sum(self.position_ids[end] + 1 for end in ends)

    @classmethod
    def response(cls, prompt: Sequence[int], response: Sequence[int], term: Term) -> "TokenTree":
        """A plain sequence: predict every token of `response` after `prompt`."""
        tree = cls()
        tree._append(prompt[:-1], segment=_TRUNK, visible=0, position=0)
        tree._append_response(prompt[-1], response, term, segment=_TRUNK, visible=0, position=len(prompt) - 1)
        return tree

    @classmethod
    def trunk(cls, prompt: Sequence[int], rejected: Sequence[int]) -> "TokenTree":
        """The trunk prompt + r̂, without any target: r̂ is only ever read."""
        tree = cls()
        tree._append([*prompt, *rejected], segment=_TRUNK, visible=0, position=0)
        return tree

    def add_rto(self, positions: Sequence[int], refusals: Sequence[int]) -> None:
        """Predict a refusal token after each of these trunk positions: P(sorry | q, r̂_<t) of Eq. 2."""
        for position, refusal in zip(positions, refusals, strict=True):
            self.targets[position] = refusal
            self.terms[position] = Term.RTO

    def add_branch(self, cut: int, response: Sequence[int]) -> None:
        """Predict `response` after the first `cut` trunk tokens: P(r | q, r̂_<k) of Eq. 2."""
        self._append_response(
            self.input_ids[cut - 1],
            response,
            Term.SAFE,
            segment=max(self.segments) + 1,
            visible=cut - 1,
            position=cut - 1,
        )

    def visible_ranges(self) -> list[tuple[int, int, int]]:
        """Return what each token attends to, as `collate` does, in a row that begins with this tree."""
        starts: list[int] = []
        for index, segment in enumerate(self.segments):
            starts.append(starts[-1] if index and segment == self.segments[index - 1] else index)
        return list(zip([0] * len(self), self.visible, starts, strict=True))

    def _append(self, tokens: Sequence[int], segment: int, visible: int, position: int) -> None:
        self.input_ids += tokens
        self.position_ids += range(position, position + len(tokens))
        self.targets += [NO_TARGET] * len(tokens)
        self.terms += [0] * len(tokens)
        self.segments += [segment] * len(tokens)
        self.visible += [visible] * len(tokens)

    def _append_response(
        self, before: int, response: Sequence[int], term: Term, segment: int, visible: int, position: int
    ) -> None:
        # The last response token is a target and never an input.
        self._append([before, *response[:-1]], segment=segment, visible=visible, position=position)
        self.targets[-len(response) :] = response
        self.terms[-len(response) :] = [term] * len(response)


def pack(trees: Sequence[TokenTree], row_length: int | None) -> list[list[TokenTree]]:
    """Distribute trees over as few rows of `row_length` tokens as first-fit decreasing finds, then evenly.

    A tree longer than `row_length` makes every row as long as itself; without a `row_length` there is one row.
    """
    if row_length is None:
        return [list(trees)]
    most = max([row_length, *map(len, trees)])
    longest_first = sorted(trees, key=len, reverse=True)
    rows: list[list[TokenTree]] = []
    taken: list[int] = []
    for tree in longest_first:
        index = next((i for i, tokens in enumerate(taken) if tokens + len(tree) <= most), None)
        if index is None:
            index = len(rows)
            rows.append([])
            taken.append(0)
        rows[index].append(tree)
        taken[index] += len(tree)
    # The same number of rows, each tree in the row with the fewest tokens.
    even: list[list[TokenTree]] = [[] for _ in rows]
    for tree in longest_first:
        min(even, key=_num_tokens).append(tree)
    return even if max(map(_num_tokens, even), default=0) <= max(taken, default=0) else rows


def _num_tokens(row: Sequence[TokenTree]) -> int:
    return sum(map(len, row))


def collate(
    trees: Sequence[TokenTree], row_length: int | None, pad_token_id: int = 0, pad_to_multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """Pack trees into rows that never see each other.

    Args:
        trees: Holds the trees of a batch.
        row_length: Sets how many tokens a row has; `None` puts all trees into one row.
        pad_token_id: Fills rows up.
        pad_to_multiple_of: Fills rows up to a multiple of this many tokens, or of a power of two times as many where
            that adds less than 7 %, so that batches have few different widths.

    Returns:
        `input_ids`, `position_ids`, `targets`, `terms`: int64, rows x tokens.
        `visible_ranges`: int64, rows x tokens x 3: which tokens of its row each token attends to. On its trunk these
        go from the first entry to before the second, in its own segment from the third to the token itself. Padding
        attends to itself, which keeps the softmax finite.
    """
    rows = pack(trees, row_length) or [[]]
    width = max(1, *map(_num_tokens, rows))
    if pad_to_multiple_of is not None:
        step = pad_to_multiple_of
        while step * 32 <= width:
            step *= 2
        width = math.ceil(width / step) * step

    def columns(name: str, padding: int) -> torch.Tensor:
        values = torch.full((len(rows), width), padding, dtype=torch.long)
        for index, row in enumerate(rows):
            flat = [value for tree in row for value in getattr(tree, name)]
            values[index, : len(flat)] = torch.tensor(flat, dtype=torch.long)
        return values

    visible_ranges = torch.arange(width)[None, :, None].repeat(len(rows), 1, 3)
    for index, row in enumerate(rows):
        at = 0
        for tree in row:
            visible_ranges[index, at : at + len(tree)] = at + torch.tensor(tree.visible_ranges())
            at += len(tree)
    return {
        "input_ids": columns("input_ids", pad_token_id),
        "position_ids": columns("position_ids", 0),
        "visible_ranges": visible_ranges,
        "targets": columns("targets", NO_TARGET),
        "terms": columns("terms", 0),
    }


def context(batch: dict[str, torch.Tensor], row: int, index: int) -> torch.Tensor:
    """Return the places in its row that a token reads, in the order of the sequence that it ends."""
    trunk_start, trunk_end, own_start = batch["visible_ranges"][row, index].tolist()
    return torch.tensor([*range(trunk_start, trunk_end), *range(own_start, index + 1)])


def continues(visible_ranges: torch.Tensor) -> torch.Tensor:
    """Whether the next token of the row continues this token's segment (bool, rows x tokens)."""
    own_start = visible_ranges[..., 2]
    return torch.nn.functional.pad(own_start[:, 1:] == own_start[:, :-1], (0, 1))


def batch_sizes(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count examples, tokens, and the tokens that a sequence of its own for each trunk and branch would take.

    Returns a float32 tensor of these three; padding does not count.
    """
    continued = continues(batch["visible_ranges"])
    continues_previous = torch.nn.functional.pad(continued, (1, 0))[:, :-1]
    positions = batch["position_ids"]
    examples = (continued & ~continues_previous & (positions == 0)).sum()
    tokens = (continued | continues_previous).sum()
    naive = ((positions + 1) * (continues_previous & ~continued)).sum()
    return torch.stack([examples, tokens, naive]).float()


def check_batch(batch: dict[str, torch.Tensor], refusal_ids: Sequence[int]) -> None:
    """Fail closed: stop before the forward pass if harmful text could be a target.

    A response that is learnt reaches to the end of its segment, one target after the other, each the token that comes
    next; on a trunk with r̂ the only targets are refusal tokens.

    Raises:
        ValueError: The batch breaks this.
    """
    targets, terms = batch["targets"], batch["terms"]
    is_rto, is_response = terms == Term.RTO, (terms == Term.HELPFUL) | (terms == Term.SAFE)
    if ((targets != NO_TARGET) != (is_rto | is_response)).any():
        raise ValueError("a target without a term, or a term without a target, in the batch")
    refusals = torch.tensor(list(refusal_ids), device=targets.device)
    if not torch.isin(targets[is_rto], refusals).all():
        raise ValueError("an RTO target in the batch is not a refusal token")
    continued = continues(batch["visible_ranges"])[:, :-1]
    learnt, learnt_next = is_response[:, :-1], is_response[:, 1:]
    if (learnt & continued & ~learnt_next).any():
        raise ValueError("a target in the batch lies on text that is only read, such as a harmful response")
    if (is_rto[:, :-1] & continued & learnt_next).any():
        raise ValueError("a harmful response in the batch has targets that are not refusal tokens")
    if (learnt & continued & (targets[:, :-1] != batch["input_ids"][:, 1:])).any():
        raise ValueError("a response target in the batch is not the next token of its sequence")
