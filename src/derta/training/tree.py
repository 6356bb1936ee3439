"""Token trees: one row of tokens that carries both halves of the objective.

RTO reads prompt + r̂. MLE with harmful prefix reads prompt + r̂_<k, then r. The second begins as the first does, so one
tree holds both, and as many branches as there are cuts:

    [ prompt | r̂ ]  [ copy of the token before the cut | r ]  [ copy | r ] …
      trunk           branch                                   branch

A branch takes the positions it would have after its cut and attends to the trunk up to the cut and to itself. The
copied token gives the branch's first target a place of its own: its original already carries the RTO target of that
context. Nothing else changes, so losses and gradients equal those of separate sequences.
"""

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
    """One example's tokens, in row order; all lists have one entry a token.

    Attributes:
        input_ids, position_ids: the token, and its position in the sequence it stands for.
        targets: token to predict after the position, or `NO_TARGET`.
        terms: `Term` of the target, or 0.
        segments: 0 on the trunk, then 1, 2, … on the branches.
        visible: how many trunk tokens the token attends to besides its own segment (0 on the trunk).
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
        """Predict a refusal token after each of these trunk positions (Eq. 2, second term)."""
        for position, refusal in zip(positions, refusals, strict=True):
            self.targets[position] = refusal
            self.terms[position] = Term.RTO

    def add_branch(self, cut: int, response: Sequence[int]) -> None:
        """Predict `response` after the first `cut` trunk tokens (Eq. 2, first term)."""
        self._append_response(
            self.input_ids[cut - 1],
            response,
            Term.SAFE,
            segment=max(self.segments) + 1,
            visible=cut - 1,
            position=cut - 1,
        )

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


def pack(trees: Sequence[TokenTree], row_length: int) -> list[list[TokenTree]]:
    """Distribute trees over as few rows of `row_length` tokens as first-fit decreasing finds.

    A tree longer than `row_length` makes every row as long as itself.
    """
    room_of_row = max([row_length, *map(len, trees)])
    rows: list[list[TokenTree]] = []
    rooms: list[int] = []
    for tree in sorted(trees, key=len, reverse=True):
        index = next((i for i, room in enumerate(rooms) if room >= len(tree)), None)
        if index is None:
            index = len(rows)
            rows.append([])
            rooms.append(room_of_row)
        rows[index].append(tree)
        rooms[index] -= len(tree)
    return rows


def collate(trees: Sequence[TokenTree], row_length: int, pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Pack trees into rows that never see each other.

    Returns:
        `input_ids`, `position_ids`, `targets`, `terms`: int64, rows x tokens.
        `attention_mask`: bool, rows x 1 x tokens x tokens; entry [row, 0, query, key] says that query attends to key.
        Padding attends to itself alone, which keeps the softmax finite.
    """
    rows = pack(trees, row_length) or [[]]
    width = max(1, *(sum(map(len, row)) for row in rows))

    def columns(name: str, padding: int) -> torch.Tensor:
        values = torch.full((len(rows), width), padding, dtype=torch.long)
        for index, row in enumerate(rows):
            flat = [value for tree in row for value in getattr(tree, name)]
            values[index, : len(flat)] = torch.tensor(flat, dtype=torch.long)
        return values

    tree_of_token = torch.full((len(rows), width), -1)
    index_in_tree = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        at = 0
        for number, tree in enumerate(row):
            tree_of_token[index, at : at + len(tree)] = number
            index_in_tree[index, at : at + len(tree)] = torch.arange(len(tree))
            at += len(tree)
    return {
        "input_ids": columns("input_ids", pad_token_id),
        "position_ids": columns("position_ids", 0),
        "attention_mask": _mask(tree_of_token, index_in_tree, columns("segments", 0), columns("visible", 0)),
        "targets": columns("targets", NO_TARGET),
        "terms": columns("terms", 0),
    }


def _mask(
    tree: torch.Tensor, index_in_tree: torch.Tensor, segment: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Mask of rows x 1 x tokens x tokens from one entry a token (each rows x tokens)."""
    width = tree.shape[1]
    order = torch.arange(width)
    causal = order[:, None] >= order[None, :]
    same_tree = tree[:, :, None] == tree[:, None, :]
    same_segment = segment[:, :, None] == segment[:, None, :]
    # The trunk comes first in its tree, so a token's index in the tree is its index on the trunk.
    on_visible_trunk = (segment == _TRUNK)[:, None, :] & (index_in_tree[:, None, :] < visible[:, :, None])
    mask = same_tree & causal & (same_segment | on_visible_trunk)
    padding = (tree < 0)[:, :, None]
    mask = torch.where(padding, torch.eye(width, dtype=torch.bool), mask)
    return mask[:, None]


def continues(attention_mask: torch.Tensor) -> torch.Tensor:
    """Whether the next token of the row continues this token's segment (bool, rows x tokens).

    A token that follows another in its segment attends to it; the first token of a tree or of a branch, and padding,
    do not attend to the token before them in the row.
    """
    follows = torch.diagonal(attention_mask[:, 0], offset=-1, dim1=-2, dim2=-1)
    return torch.nn.functional.pad(follows, (0, 1))


def batch_sizes(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Count examples, tokens, and the tokens that a sequence of its own for each trunk and branch would take.

    Returns a float32 tensor of these three; padding does not count.
    """
    continued = continues(batch["attention_mask"])
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
        ValueError: the batch breaks this.
    """
    targets, terms = batch["targets"], batch["terms"]
    is_rto, is_response = terms == Term.RTO, (terms == Term.HELPFUL) | (terms == Term.SAFE)
    if ((targets != NO_TARGET) != (is_rto | is_response)).any():
        raise ValueError("a target without a term, or a term without a target, in the batch")
    refusals = torch.tensor(list(refusal_ids), device=targets.device)
    if not torch.isin(targets[is_rto], refusals).all():
        raise ValueError("an RTO target in the batch is not a refusal token")
    continued = continues(batch["attention_mask"])[:, :-1]
    learnt, learnt_next = is_response[:, :-1], is_response[:, 1:]
    if (learnt & continued & ~learnt_next).any():
        raise ValueError("a target in the batch lies on text that is only read, such as a harmful response")
    if (is_rto[:, :-1] & continued & learnt_next).any():
        raise ValueError("a harmful response in the batch has targets that are not refusal tokens")
    if (learnt & continued & (targets[:, :-1] != batch["input_ids"][:, 1:])).any():
        raise ValueError("a response target in the batch is not the next token of its sequence")
