"""W-DOOR: DOOR whose refusal tokens weigh more where a preference-trained model makes them likelier.

Source: Zhao et al. (arXiv 2503.03710), as `door`, with

    −Σ_t w_t log π(y⁺_t | …),   w_t = exp(log(π_dpo(y⁺_t | …) / π₀(y⁺_t | …)) / τ),   τ = 5,

in place of the plain refusal term, and −(2 / β) log σ(−β · log π(y⁻)/|y⁻| − γ), β = 0.5 and γ = 1, in place of NPO's:
no reference there, and the sum is divided by the length of prompt and response, as in the authors' code.

The sign of the weight: the paper's text wants the tokens emphasised that matter for refusal, those that the
preference-trained model makes likelier, and so does the formula above; the authors' code has exp(log(π₀ / π_dpo) / τ),
which is what a negative `tau` gives here. Different here: the budget pays for the preference-trained model too.
`dpo_share` of the steps go to `dpo` (which spends half of them on its own vanilla stage), the rest to W-DOOR, from the
base.
"""

from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from experiments.baselines import door, dpo
from experiments.baselines.base import Baseline, Setting, register_baseline
from experiments.baselines.sequences import Part, target_log_probs
from experiments.baselines.trainer import frozen_copy, share_of, train_stage


def token_weights(log_ratio: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the weight of each refusal token from its log-ratio of the preference-trained model and the start."""
    return (log_ratio / tau).exp()


def negative_loss(mean_log_prob: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """Return −(2 / β) log σ(−β · mean log P − γ) of each harmful response."""
    return -2 / beta * logsigmoid(-beta * mean_log_prob - gamma)


class WDOOR(door.DOOR):
    """Weighs refusal tokens by what DPO on the same data learnt of them."""

    preferring: PreTrainedModel

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.dpo_steps = share_of(self.budget, self.constants["dpo_share"], "dpo_share")
        self.args.max_steps = self.budget - self.dpo_steps

    def train_stages(self) -> None:
        """Train the model whose preference weighs the tokens."""
        stage = train_stage(self, "dpo", "dpo", self.dpo_steps, dpo.DPO, dpo.CONSTANTS)
        self.preferring = frozen_copy(stage, self.args.device)

    def refusal_loss(self, model: Any, part: Part) -> torch.Tensor:
        """Return the weighted −log π(y⁺)."""
        with torch.no_grad():
            log_ratio = target_log_probs(self.preferring, part) - target_log_probs(self.reference, part)
        weights = token_weights(log_ratio, self.constants["tau"])
        return -(weights * target_log_probs(model, part)).sum(dim=1).mean()

    def negative_loss(self, model: Any, part: Part) -> torch.Tensor:
        """Return the term that makes y⁻ unlikely, whatever the start says."""
        mean = target_log_probs(model, part).sum(dim=1) / part["attention_mask"].sum(dim=1)
        return negative_loss(mean, self.constants["beta"], self.constants["gamma"]).mean()


register_baseline(
    Baseline(
        "w-door",
        "DOOR with refusal tokens weighed by a DPO model",
        "arXiv 2503.03710",
        WDOOR,
        {**door.CONSTANTS, "tau": 5.0, "gamma": 1.0, "dpo_share": 0.5},
        first="dpo (itself from vanilla)",
    )
)
