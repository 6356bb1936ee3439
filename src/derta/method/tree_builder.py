"""From encoded examples to token trees: the expectations of Eq. 2, drawn afresh for each epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from derta.errors import InputError, did_you_mean
from derta.method.tree import Term, TokenTree
from derta.tokens.encoder import EncodedExample
from derta.tokens.refusal_tokens import RefusalTokens, WhiteSpace

CutPolicy = Callable[[EncodedExample, int], Sequence[int] | np.ndarray]
"""Returns the k among which the harmful prefixes r̂_<k of an example are drawn, in tokens, given its index."""


def uniform_cuts(example: EncodedExample, index: int) -> np.ndarray:
    """k ~ U{0 … |r̂|} in tokens (Eq. 2)."""
    return np.arange(len(example.rejected) + 1)


def release_cuts(example: EncodedExample, index: int) -> Sequence[int]:
    """As the released code: k = 0 for every third example, otherwise 1 … n − 2 of the n white-space words."""
    if index % 3 == 0 or len(example.word_ends) < 3:
        return [0]
    return sorted(set(example.word_ends[:-2]))


CUT_POLICIES: dict[str, CutPolicy] = {"uniform": uniform_cuts, "release": release_cuts}

RTO_SCHEDULES = ("uniform", "early")
"""How `rto_dropout` is spread over the positions of a response."""


def dropped_share(positions: int, dropout: float, schedule: str) -> np.ndarray:
    """Return the share of RTO targets that is left out at each position, float64 of shape [positions]; mean `dropout`.

    `uniform` is the paper's. `early` goes up in a line from the first position to the last: as far as a mean of
    `dropout` allows from 0 and to 1.
    """
    if schedule == "uniform":
        return np.full(positions, dropout)
    along = np.linspace(0, 1, positions) if positions > 1 else np.full(positions, 0.5)
    return dropout + min(dropout, 1 - dropout) * (2 * along - 1)


REFUSE_AT = ("token", "word")
"""Where in r̂ a refusal may begin: after any token (Eq. 2), or only where a word begins."""


@dataclass(frozen=True)
class Method:
    """What a method trains on in a triple (q, r, r̂). Helpful examples are the same for all.

    Attributes:
        harmful_prefix: Trains r after harmful prefixes r̂_<k (first line of Eq. 2); without it, after q alone.
        rto: Trains a refusal token after q and after every token of r̂ (second line of Eq. 2).
        cuts: Replaces the configured `cut_policy`, for a method that has its own.
    """

    harmful_prefix: bool
    rto: bool
    cuts: CutPolicy | None = None

    @property
    def reads_rejected(self) -> bool:
        """Whether r̂ is read at all."""
        return self.harmful_prefix or self.rto


METHODS: dict[str, Method] = {
    "derta": Method(harmful_prefix=True, rto=True),
    "rto": Method(harmful_prefix=False, rto=True),
    "harmful-prefix": Method(harmful_prefix=True, rto=False),  # RecAug
    "vanilla": Method(harmful_prefix=False, rto=False),
}


@dataclass(frozen=True)
class TreeBuilder:
    """Builds the tree of an example as one method trains on it.

    Attributes:
        refusals: Says which refusal token fits which context.
        white_space: Tells which tokens end in white space.
        method: Names one of `METHODS`.
        cuts_per_triple: Sets the number of branches, each at a cut of its own.
        cut_policy: Names one of `CUT_POLICIES`.
        cut_at_start: Puts one of several cuts at k = 0: r after q alone.
        rto_dropout: Leaves out this share of the RTO targets, drawn over response positions.
        rto_schedule: Names one of `RTO_SCHEDULES`, which spreads it over them.
        rto_on_end: Adds RTO after the last token of r̂ too, as the release does.
        refuse_at: Names one of `REFUSE_AT`: `word` lets cuts and RTO stand only where a word of r̂ begins or r̂ ends,
            so that no refusal is learnt in the middle of a word.
        seed: Fixes every draw together with the epoch and the example, whatever the batch.

    Raises:
        InputError: There is no method, cut policy or schedule of this name.
    """

    refusals: RefusalTokens
    white_space: WhiteSpace
    method: str = "derta"
    cuts_per_triple: int = 1
    cut_policy: str = "uniform"
    cut_at_start: bool = False
    rto_dropout: float = 0.0
    rto_schedule: str = "uniform"
    rto_on_end: bool = True
    refuse_at: str = "token"
    seed: int = 0

    def __post_init__(self) -> None:
        check_names(self.method, self.cut_policy, self.rto_schedule, self.refuse_at)

    def __call__(self, example: EncodedExample, index: int, epoch: int) -> TokenTree | None:
        """Build the tree of the example at `index`; `None` if the method has no use for it."""
        if not example.is_safety:
            return TokenTree.response(example.prompt, example.chosen, Term.HELPFUL)
        cuts = self._draw_cuts(example, index, epoch) if example.chosen else []
        uses_rto = example.rto and METHODS[self.method].rto
        if not uses_rto and cuts == [0]:
            return TokenTree.response(example.prompt, example.chosen, Term.SAFE)
        if not uses_rto and not cuts:
            return None
        tree = TokenTree.trunk(example.prompt, example.rejected if uses_rto else example.rejected[: max(cuts)])
        if uses_rto:
            positions = self._draw_rto_positions(example, index, epoch)
            tree.add_rto(positions, [self._refusal_after(example, position) for position in positions])
        for cut in cuts:
            needs_space = cut > 0 and not self.white_space.ends(example.rejected[cut - 1])
            response = example.chosen_after_text if needs_space else example.chosen
            tree.add_branch(len(example.prompt) + cut, response)
        return tree

    def _draw_cuts(self, example: EncodedExample, index: int, epoch: int) -> list[int]:
        """Draw the cuts k of r̂, in tokens, distinct where r̂ is long enough, in ascending order."""
        method = METHODS[self.method]
        if not method.harmful_prefix:
            # A fixed harmful prefix belongs to the half that these methods leave out.
            return [] if example.fixed_cut and example.rejected else [0]
        if example.fixed_cut:
            return [len(example.rejected)]
        choices = np.asarray((method.cuts or CUT_POLICIES[self.cut_policy])(example, index))
        if self.refuse_at == "word":
            choices = choices[self._begins_word(example)[choices]]
        first = [0] if self.cut_at_start else []
        others = choices[choices > 0] if self.cut_at_start else choices
        count = min(self.cuts_per_triple - len(first), len(others))
        return sorted([*first, *self._draws(0, index, epoch).choice(others, size=count, replace=False).tolist()])

    def _draw_rto_positions(self, example: EncodedExample, index: int, epoch: int) -> list[int]:
        """Return the positions after which RTO predicts a refusal token: the last of q, then those of r̂."""
        first = len(example.prompt) - 1
        positions = np.arange(first, first + len(example.rejected) + self.rto_on_end)
        if self.rto_dropout:
            dropped = dropped_share(len(positions), self.rto_dropout, self.rto_schedule)
            positions = positions[self._draws(1, index, epoch).random(len(positions)) >= dropped]
        if self.refuse_at == "word":
            positions = positions[self._begins_word(example)[positions - first]]
        kept: list[int] = positions.tolist()
        return kept

    def _begins_word(self, example: EncodedExample) -> np.ndarray:
        """Return for each k in 0 … |r̂| whether a refusal after r̂_<k would begin a word, bool of shape [|r̂| + 1]."""
        tokens = example.rejected
        inside = map(self.white_space.between, tokens[:-1], tokens[1:])
        return np.array([True, *inside, True] if tokens else [True])

    def _draws(self, purpose: int, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, index, purpose])

    def _refusal_after(self, example: EncodedExample, position: int) -> int:
        read = position - len(example.prompt)
        if read < 0:
            return self.refusals.after(example.opens_after)
        return self.refusals.line if self.white_space.ends(example.rejected[read]) else self.refusals.word


def check_names(method: str, cut_policy: str, rto_schedule: str = "uniform", refuse_at: str = "token") -> None:
    """Stop at a method, a cut policy, a schedule or a place that doesn't exist.

    Raises:
        InputError: The message names the field and what there is.
    """
    for field, name, known in (
        ("method", method, METHODS),
        ("cut_policy", cut_policy, CUT_POLICIES),
        ("rto_schedule", rto_schedule, RTO_SCHEDULES),
        ("refuse_at", refuse_at, REFUSE_AT),
    ):
        if name not in known:
            raise InputError(f"{field}: no {name!r}{did_you_mean(name, known)}; one of {', '.join(known)}")
