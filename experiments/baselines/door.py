"""DOOR: refusal after harmful prefixes, and unlearning of the harmful response.

Source: Zhao et al., "Improving LLM Safety Alignment with Dual-Objective Optimization" (arXiv 2503.03710).

    L = α [−log π(y⁺ | x, y⁻_<k) − (2 / β) log σ(−β log π(y⁻ | x) / π₀(y⁻ | x))] + (1 − α) · −log π(y | x),

log-probabilities summed over tokens, each term a mean over its own examples: y⁺ the safe and y⁻ the harmful response,
π₀ the frozen start, the last term on helpful data. α = 0.2, β = 0.5; k = 0 for half of the examples, else U{1 … 100}.

Different here: one batch of the mixture takes the place of one batch each of safety and of utility data, and the start
is the same base as every method's, not a chat model that refuses already. The authors' learning rate is 1e-5 for 8 B;
here it is the recipe's (`learning_rate_scale` multiplies it).
"""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from derta.tokens.encoder import EncodedExample
from experiments.baselines.base import Baseline, register_baseline
from experiments.baselines.sequences import Part, TokenSequence, draw_prefix, helpful, rejected, safe, target_log_probs
from experiments.baselines.trainer import BaselineTrainer


def unlearning_loss(log_ratio: torch.Tensor, beta: float) -> torch.Tensor:
    """Return NPO's −(2 / β) log σ(−β · log-ratio) of each harmful response."""
    return -2 / beta * logsigmoid(-beta * log_ratio)


class DOOR(BaselineTrainer):
    """Trains refusal after harmful prefixes and pushes the harmful response down."""

    needs_reference = True

    def sequences(self, example: EncodedExample, draws: np.random.Generator) -> list[TokenSequence]:
        """Return the safe response after a harmful prefix, and the harmful response."""
        if not example.is_safety:
            return [helpful(example)]
        if not example.chosen or not example.rto:
            return []
        prefix = draw_prefix(draws, len(example.rejected), self.constants["longest_prefix"])
        return [safe(example, self.white_space, prefix), rejected(example)]

    def loss(self, model: Any, batch: dict[str, Part]) -> torch.Tensor:
        """Return DOOR's loss."""
        safety, alpha = torch.zeros((), device=self.args.device), self.constants["alpha"]
        if "safe" in batch:
            safety = self.refusal_loss(model, batch["safe"]) + self.negative_loss(model, batch["rejected"])
        utility = -target_log_probs(model, batch["helpful"]).sum(dim=1).mean() if "helpful" in batch else 0.0
        total: torch.Tensor = alpha * safety + (1 - alpha) * utility
        return total

    def refusal_loss(self, model: Any, part: Part) -> torch.Tensor:
        """Return −log π(y⁺) after harmful prefixes."""
        return -target_log_probs(model, part).sum(dim=1).mean()

    def negative_loss(self, model: Any, part: Part) -> torch.Tensor:
        """Return the term that makes y⁻ less likely than under the start."""
        with torch.no_grad():
            reference = target_log_probs(self.reference, part).sum(dim=1)
        return unlearning_loss(target_log_probs(model, part).sum(dim=1) - reference, self.constants["beta"]).mean()


CONSTANTS = {"alpha": 0.2, "beta": 0.5, "longest_prefix": 100, "learning_rate_scale": 1.0}

register_baseline(
    Baseline("door", "refusal after harmful prefixes and unlearning of r̂", "arXiv 2503.03710", DOOR, CONSTANTS)
)
