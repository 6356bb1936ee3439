"""Circuit breakers (representation rerouting): a LoRA that turns hidden states of harmful responses away.

Source: Zou et al., "Improving Alignment and Robustness with Circuit Breakers" (arXiv 2406.04313).

    L = α [c · mean ‖h − h₀‖₂ + (1 − c) · mean relu cos(h, h₀)],   c = step / (2 · steps),

the first mean over all tokens and layers of retained data, the second over the tokens of harmful responses at two
layers; h₀ are the hidden states without the adapter. α = 10 (Llama-3), layers 10 and 20 of 32, LoRA of rank 16 on the
linear layers of 0 … 20; 150 steps of 16, lr 1e-4. The adapter is merged at the end.

Different here: the source starts from a chat model that refuses; here `first_share` of the budget makes one (`vanilla`,
in full), and the rest is rerouting. Retained are the helpful examples and the safe responses to the triples' prompts,
as in the source, which also retains answers of its over-refusal test set; none of that here. Layers are given as shares
of the model's depth (10/32 and 20/32). The rate is a multiple of the recipe's, `learning_rate_scale`: 1e-4 against 2e-5
for 8 B would be 5. The adapter begins at random values (PEFT's `init_lora_weights: False`), not as one that changes
nothing: where h = h₀ the cosine's gradient is 0, and only rounding in bf16 leads away from there.
"""

import copy
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cosine_similarity, relu

from derta.errors import InputError
from experiments.baselines.base import Baseline, register_baseline
from experiments.baselines.sequences import Part, TokenSequence, rejected
from experiments.baselines.trainer import BaselineTrainer


def retain_loss(hidden: torch.Tensor, original: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean distance of hidden states (L, N, T, H) over layers and the tokens of `mask` (N, T)."""
    distances: torch.Tensor = (hidden - original)[:, mask].norm(dim=-1)
    return distances.mean()


def rerouting_loss(hidden: torch.Tensor, original: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of relu cos(h, h₀) over layers and the tokens of `mask` (N, T)."""
    return relu(cosine_similarity(hidden, original, dim=-1)[:, mask]).mean()


class CircuitBreakers(BaselineTrainer):
    """Trains an adapter on a vanilla model's hidden states and merges it."""

    stage = "vanilla"

    def sequences(self, example: Any, draws: Any) -> list[TokenSequence]:
        """Return what is retained, and the harmful response."""
        kept = super().sequences(example, draws)
        return [*kept, rejected(example)] if example.rto else kept

    def train_stages(self) -> None:
        """Train the vanilla model, and put the adapter on it."""
        super().train_stages()
        depth = self.model.config.get_text_config().num_hidden_layers
        self.layers = sorted({max(1, round(float(share) * depth)) for share in self.constants["layers"]})
        if not self.layers or self.layers[-1] > depth:
            raise InputError("`constants` layers: give shares of the model's depth, from 0 to 1")
        head = self.model.get_output_embeddings()
        linear = {
            name.rpartition(".")[2]
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
        adapter = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.constants["lora_r"],
            lora_alpha=self.constants["lora_alpha"],
            target_modules=sorted(linear),
            layers_to_transform=list(range(self.layers[-1])),
            # At h = h₀ the gradient of cos(h, h₀) is 0.
            init_lora_weights=False,
        )
        self.model = self.model_wrapped = get_peft_model(self.model, adapter)

    def loss(self, model: Any, batch: dict[str, Part]) -> torch.Tensor:
        """Return the loss of retaining and rerouting."""
        progress = self.state.global_step / (2 * self.state.max_steps)
        # Their tokens weigh alike, whether helpful or safe.
        kept = [part for name, part in batch.items() if name != "rejected"]
        total = torch.zeros((), device=self.args.device)
        if kept:
            sizes = [part["attention_mask"].sum() for part in kept]
            losses = [retain_loss(*self._hidden(model, part), part["attention_mask"].bool()) for part in kept]
            mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
            total = total + progress * mean
        if "rejected" in batch:
            hidden, original = self._hidden(model, batch["rejected"])
            # A target stands where its token is read.
            mask = batch["rejected"]["targets"] >= 0
            total = total + (1 - progress) * rerouting_loss(hidden[self.layers], original[self.layers], mask)
        return float(self.constants["alpha"]) * total

    def _hidden(self, model: Any, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the hidden states after the embeddings and after every layer, with the adapter and without."""
        inputs = {name: part[name] for name in ("input_ids", "attention_mask")}
        hidden = torch.stack(model(**inputs, use_cache=False, output_hidden_states=True).hidden_states)
        with torch.no_grad(), self.model.disable_adapter():
            original = torch.stack(model(**inputs, use_cache=False, output_hidden_states=True).hidden_states)
        return hidden, original

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter in a checkpoint, and the whole model with the adapter merged in at the end."""
        if _internal_call:
            super().save_model(output_dir, _internal_call)
            return
        self._require_finite_weights()
        adapted = self.model
        self.model = copy.deepcopy(adapted).merge_and_unload()
        try:
            super().save_model(output_dir)
        finally:
            self.model = adapted


register_baseline(
    Baseline(
        "circuit-breakers",
        "from vanilla, a LoRA that turns hidden states of r̂ away (RR)",
        "arXiv 2406.04313",
        CircuitBreakers,
        {
            "alpha": 10.0,
            "layers": [10 / 32, 20 / 32],
            "lora_r": 16,
            "lora_alpha": 16,
            "first_share": 0.5,
            "learning_rate_scale": 5.0,
        },
        first="vanilla",
    )
)
