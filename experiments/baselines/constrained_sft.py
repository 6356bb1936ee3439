"""Deep alignment's constrained objective, on top of training on safe responses after harmful prefixes.

Source: Qi et al., "Safety Alignment Should Be Made More Than Just a Few Tokens Deep" (arXiv 2406.05946), sections 3 and
4. π_aligned is a model trained with harmful-prefix augmentation; from it, fine-tuning goes on with

    L = Σ_t −(2 / β_t) log σ(β_t log π(y_t) / π_aligned(y_t)),   β_1 = 0.5, β_2…5 = 2, β_t = 0.1 after,

whose gradient fades for a token that is already likelier than under π_aligned, sooner where β_t is large: the first
tokens stay as they were aligned. Harmful prefixes have k = 0 tokens for half of the safety examples, else U{1 … 100}.

Different here: the source fine-tunes a chat model's alignment in this way and measures what a user's later fine-tuning
leaves of it; here both stages see the same triples and helpful examples, and share the budget by halves
(`first_share`). The first stage is derta's `harmful-prefix` with its own cuts, k ~ U{0 … |r̂|}. The sum over tokens is
divided by the number of targets in the batch, as everywhere here.
"""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from derta.tokens.encoder import EncodedExample
from experiments.baselines.base import Baseline, register_baseline
from experiments.baselines.sequences import Part, TokenSequence, draw_prefix, helpful, is_target, safe, target_log_probs
from experiments.baselines.trainer import BaselineTrainer


def constrained_loss(log_ratio: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """Return −(2 / β) log σ(β · log-ratio) of each token."""
    return -2 / beta * logsigmoid(beta * log_ratio)


def betas(mask: torch.Tensor, first: float, early: float, later: float) -> torch.Tensor:
    """Return β of every position of (N, T): by the place of its target in the response, 1, 2 … 5, or after."""
    place = mask.long().cumsum(dim=1)
    return torch.where(place <= 1, first, torch.where(place <= 5, early, later))


class ConstrainedSFT(BaselineTrainer):
    """Goes on from a model trained with harmful prefixes, held to it most at the first tokens."""

    stage = "harmful-prefix"
    needs_reference = True

    def sequences(self, example: EncodedExample, draws: np.random.Generator) -> list[TokenSequence]:
        """Put the safe response after a harmful prefix."""
        if not example.is_safety:
            return [helpful(example)]
        prefix = draw_prefix(draws, len(example.rejected), self.constants["longest_prefix"])
        return [safe(example, self.white_space, prefix)] if example.chosen and not example.fixed_cut else []

    def loss(self, model: Any, batch: dict[str, Part]) -> torch.Tensor:
        """Return the constrained loss per target."""
        total, count = torch.zeros((), device=self.args.device), 0
        for part in batch.values():
            with torch.no_grad():
                reference = target_log_probs(self.reference, part)
            mask = is_target(part)
            beta = betas(mask, self.constants["beta_first"], self.constants["beta_early"], self.constants["beta_later"])
            losses = constrained_loss(target_log_probs(model, part) - reference, beta)
            total, count = total + losses[mask].sum(), count + int(mask.sum())
        return total / count


register_baseline(
    Baseline(
        "constrained-sft",
        "from harmful-prefix, fine-tuning that holds the first tokens to it",
        "arXiv 2406.05946",
        ConstrainedSFT,
        {"beta_first": 0.5, "beta_early": 2.0, "beta_later": 0.1, "longest_prefix": 100, "first_share": 0.5},
        first="harmful-prefix",
    )
)
