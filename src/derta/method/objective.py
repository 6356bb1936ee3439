r"""The DeRTa objective (Yuan et al., ACL 2025, Eq. 2) for any causal language model of transformers.

    L(θ) = − E[ log P(r | q, r̂_<k) ]                      SAFE: MLE with harmful response prefix
           − E[ Σ_t log P(sorry | q, r̂_<t) ]               RTO: reinforced transition optimisation

and − log P(r | q) on helpful data (HELPFUL). Token trees (`derta.method.tree`) carry both lines in one forward pass;
only target positions reach the vocabulary projection, in chunks: the full logits never exist.
"""

import functools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from derta.method.attention import TreeAttention, attend_by_tree
from derta.method.chunked_log_probs import Targets, target_log_probs
from derta.method.tree import NO_TARGET, Term

LossNormalization = Literal["pooled", "per-term"]
TERMS = (Term.HELPFUL, Term.SAFE, Term.RTO)

# Logits of one chunk: 2^25 float32 values are 128 MiB.
CHUNK_VALUES = 2**25


@dataclass(frozen=True)
class TermSums:
    """Sums over the targets of a batch, one entry for each of `TERMS` (float32 tensors of shape [3]).

    Attributes:
        nll: negative log-likelihood; carries the gradient.
        refusal: probability of the refusal token(s), without gradient. At HELPFUL targets it is the false alarm.
        count: number of targets.
    """

    nll: torch.Tensor
    refusal: torch.Tensor
    count: torch.Tensor


def combine(
    sums: TermSums, counts: torch.Tensor, rto_weight: float = 1.0, normalization: LossNormalization = "pooled"
) -> torch.Tensor:
    """Return the loss of a batch that is part of an optimizer step.

    Args:
        sums: of this batch.
        counts: targets of each term in the whole step (all ranks, all accumulation), shape [3].
        rto_weight: λ.
        normalization: `pooled`: (Σ HELPFUL + Σ SAFE + λ Σ RTO) / number of targets. `per-term`: the same sum of means,
            each term over its own targets.
    """
    weights = sums.nll.new_tensor([1.0, 1.0, rto_weight])
    denominator = counts.sum() if normalization == "pooled" else counts
    return (weights * sums.nll / denominator.clamp(min=1)).sum()


def install_objective(
    model: PreTrainedModel,
    refusal_ids: Sequence[int],
    refusal_set: bool = False,
    term_weights: Sequence[float] | None = (1.0, 1.0, 1.0),
) -> None:
    """Teach a causal language model's `forward` to take a batch of trees and return `TermSums` fields.

    The instance's own `forward` is wrapped, so that whatever wraps the model (DDP, FSDP2, DeepSpeed, PEFT, autocast)
    still sees one ordinary call of it; without `targets` it does what it always did. There is no way to train on a
    model without this: a stock `forward` returns no sums, and the trainer stops.

    Args:
        model: unwrapped causal language model.
        refusal_ids: the refusal tokens.
        refusal_set: an RTO target stands for the probability mass of all of them.
        term_weights: what the loss multiplies each entry of `nll` with, up to a common factor; `None` if that isn't
            known beforehand. It decides how fast an output head is trained, never the result.

    Raises:
        InputError: attention or output head of the model cannot be expressed.
    """
    attend_by_tree(model)
    attention = TreeAttention(model.config)
    transform = logit_transform(model.config)
    stock_forward = type(model).forward

    @functools.wraps(stock_forward)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        targets, terms = kwargs.pop("targets", None), kwargs.pop("terms", None)
        if targets is None:
            return stock_forward(self, *args, **kwargs)
        hidden = self.get_decoder()(
            input_ids=kwargs["input_ids"],
            attention_mask=attention(kwargs["spans"], self.dtype),
            position_ids=kwargs["position_ids"],
            use_cache=False,
        ).last_hidden_state
        return sums_of_terms(self, hidden, targets, terms)

    # How many targets there are only their values tell, which a compiler doesn't know.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def sums_of_terms(
        self: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor, terms: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        head = self.get_output_embeddings()
        refusals = torch.tensor(list(refusal_ids), device=targets.device)
        at = targets != NO_TARGET
        membership = F.one_hot(terms[at] - 1, len(TERMS)).float()
        log_probs, refusal = target_log_probs(
            hidden[at],
            Targets(
                ids=targets[at],
                of_set=(terms[at] == Term.RTO) & refusal_set,
                refusal_ids=refusals,
                weights=None if term_weights is None else membership @ membership.new_tensor(list(term_weights)),
            ),
            head,
            transform,
            chunk=max(1, CHUNK_VALUES // self.config.get_text_config().vocab_size),
        )
        # Rank-independent shape, and zero gradients (not none) where a rank has no targets of its own.
        nll = -(membership * log_probs[:, None]).sum(0) + 0 * hidden.sum()
        return {
            "nll": nll,
            "refusal": (membership * refusal.exp()[:, None]).sum(0),
            "count": membership.sum(0),
        }

    model.forward = types.MethodType(forward, model)


def logit_transform(config: PreTrainedConfig) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what the architecture does to the logits after its output head: scaling (Cohere, Granite) or capping."""
    text = config.get_text_config()
    cap = getattr(text, "final_logit_softcapping", None)
    multiplier = getattr(text, "logit_scale", None)
    divisor = getattr(text, "logits_scaling", None)
    if cap is None and multiplier is None and divisor is None:
        return None

    def transform(logits: torch.Tensor) -> torch.Tensor:
        if multiplier is not None:
            logits = logits * multiplier
        if divisor is not None:
            logits = logits / divisor
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    return transform
