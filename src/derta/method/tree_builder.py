"""From encoded examples to token trees: cuts and RTO dropout, drawn afresh for each epoch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from derta.method.tree import Term, TokenTree
from derta.tokens.encoder import EncodedExample
from derta.tokens.refusal_tokens import RefusalTokens, WhiteSpace

Method = Literal["derta", "rto", "harmful-prefix", "vanilla"]
CutPolicy = Literal["uniform", "release"]


@dataclass(frozen=True)
class TreeBuilder:
    """Builds the tree of an example as one method trains on it.

    Attributes:
        method: `derta` (both halves), `rto` (r after the prompt alone, and RTO), `harmful-prefix` (RecAug: no RTO), or
            `vanilla` (r after the prompt, nothing else).
        cuts_per_triple: branches, each at a cut of its own.
        cut_policy: `uniform`: k ~ U{0 … |r̂|} in tokens (Eq. 2). `release`: k = 0 for every third example, otherwise
            1 … n − 2 of the n white-space words.
        rto_dropout: share of the RTO targets that is left out, drawn over response positions.
        rto_on_end: RTO also after the last token of r̂, as the release does.
        seed: with the epoch and the example it fixes every draw, whatever the batch.
    """

    refusals: RefusalTokens
    white_space: WhiteSpace
    method: Method = "derta"
    cuts_per_triple: int = 1
    cut_policy: CutPolicy = "uniform"
    rto_dropout: float = 0.0
    rto_on_end: bool = True
    seed: int = 0

    def __call__(self, example: EncodedExample, index: int, epoch: int) -> TokenTree | None:
        """Build the tree of the example at `index`; `None` if the method has no use for it."""
        if not example.is_safety:
            return TokenTree.response(example.prompt, example.chosen, Term.HELPFUL)
        cuts = self._cuts(example, index, epoch) if example.chosen else []
        uses_rto = example.rto and self.method in ("derta", "rto")
        if not uses_rto and cuts == [0]:
            return TokenTree.response(example.prompt, example.chosen, Term.SAFE)
        if not uses_rto and not cuts:
            return None
        read = len(example.rejected) if uses_rto else max(cuts)
        tree = TokenTree.trunk(example.prompt, example.rejected[:read])
        if uses_rto:
            self._add_rto(tree, example, index, epoch)
        for cut in cuts:
            spaced = cut > 0 and not self.white_space.ends(example.rejected[cut - 1])
            tree.add_branch(len(example.prompt) + cut, example.chosen_after_text if spaced else example.chosen)
        return tree

    def _draws(self, what: int, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, index, what])

    def _cuts(self, example: EncodedExample, index: int, epoch: int) -> list[int]:
        """Draw the cuts of r̂, in tokens, distinct where r̂ is long enough, in ascending order."""
        if self.method in ("vanilla", "rto"):
            # A fixed harmful prefix belongs to the half that these methods leave out.
            return [] if example.fixed_cut and example.rejected else [0]
        if example.fixed_cut:
            return [len(example.rejected)]
        draws = self._draws(0, index, epoch)
        if self.cut_policy == "uniform":
            choices = np.arange(len(example.rejected) + 1)
        elif index % 3 == 0 or len(example.word_ends) < 3:
            choices = np.zeros(1, dtype=int)
        else:
            choices = np.unique(example.word_ends[: len(example.word_ends) - 2])
        count = min(self.cuts_per_triple, len(choices))
        return sorted(int(cut) for cut in draws.choice(choices, size=count, replace=False))

    def _add_rto(self, tree: TokenTree, example: EncodedExample, index: int, epoch: int) -> None:
        first = len(example.prompt) - 1
        positions = np.arange(first, first + len(example.rejected) + self.rto_on_end)
        if self.rto_dropout:
            positions = positions[self._draws(1, index, epoch).random(len(positions)) >= self.rto_dropout]
        tree.add_rto(positions.tolist(), [self._refusal_after(tree, first, int(position)) for position in positions])

    def _refusal_after(self, tree: TokenTree, first: int, position: int) -> int:
        if position == first:
            return self.refusals.start
        return self.refusals.line if self.white_space.ends(tree.input_ids[position]) else self.refusals.word
