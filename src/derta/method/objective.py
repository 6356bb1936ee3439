r"""The DeRTa objective (Yuan et al., ACL 2025, Eq. 2) for any causal language model of transformers.

    L(θ) = − E[ log P(r | q, r̂_<k) ]                      SAFE: MLE with harmful response prefix
           − E[ Σ_t log P(sorry | q, r̂_<t) ]               RTO: reinforced transition optimisation

and − log P(r | q) on helpful data (HELPFUL). Token trees (`derta.method.tree`) carry both lines in one forward pass:
`install_objective` runs it, `sum_terms` adds up the log-probabilities of each term, and `combine` weighs the sums.
"""

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from derta.method.attention import TreeAttention, attend_by_tree
from derta.method.chunked_log_probs import Targets, chunk_values, logit_transform, target_log_probs
from derta.method.tree import NO_TARGET, Term

LossNormalization = Literal["pooled", "per-term"]
TERMS = (Term.HELPFUL, Term.SAFE, Term.RTO)


@dataclass(frozen=True)
class TermSums:
    """Sums over the targets of a batch, with one entry for each of `TERMS` (float32 tensors of shape [3]).

    Attributes:
        nll: Adds up −log P of the targets; carries the gradient.
        refusal: Adds up the probability of the refusal token(s), without gradient. At HELPFUL targets it is the false
            alarm.
        count: Counts the targets.
    """

    nll: torch.Tensor
    refusal: torch.Tensor
    count: torch.Tensor


def combine(
    sums: TermSums, counts: torch.Tensor, rto_weight: float = 1.0, normalization: LossNormalization = "pooled"
) -> torch.Tensor:
    """Return the loss of a batch that is part of an optimizer step: L(θ) of Eq. 2 as a mean over targets.

    Args:
        sums: Holds the sums of this batch.
        counts: Counts the targets of each term in the whole step (all ranks, all accumulation), shape [3].
        rto_weight: Weighs RTO (λ).
        normalization: `pooled` returns (Σ HELPFUL + Σ SAFE + λ Σ RTO) / number of targets; `per-term` divides each
            sum by the number of its own targets instead.
    """
    weights = sums.nll.new_tensor([1.0, 1.0, rto_weight])
    denominator = counts.sum() if normalization == "pooled" else counts
    return (weights * sums.nll / denominator.clamp(min=1)).sum()


# The values alone tell how many targets there are, which a compiler doesn't know.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def sum_terms(
    model: PreTrainedModel,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    terms: torch.Tensor,
    refusal_ids: Sequence[int],
    refusal_set: bool = False,
    term_weights: Sequence[float] | None = None,
) -> dict[str, torch.Tensor]:
    """Add up log P of each term's targets; returns the fields of `TermSums`.

    Only hidden states at targets reach the vocabulary projection, in chunks: the full logits never exist.

    Args:
        model: Projects hidden states to logits with its output head.
        hidden: Holds the decoder's final hidden states, rows x tokens x width.
        targets: Holds the token to predict after each position, or `NO_TARGET` (rows x tokens).
        terms: Holds the `Term` of each target, or 0 (rows x tokens).
        refusal_ids: Lists the refusal tokens ("sorry" in Eq. 2).
        refusal_set: Lets an RTO target stand for the probability mass of all refusal tokens.
        term_weights: See `install_objective`.
    """
    at = targets != NO_TARGET
    term_of_target = F.one_hot(terms[at] - 1, len(TERMS)).float()
    # Not a matrix product, which autocast would round.
    weights = None if term_weights is None else (term_of_target * term_of_target.new_tensor(list(term_weights))).sum(1)
    log_probs, refusal_log_probs = target_log_probs(
        hidden[at],
        Targets(
            ids=targets[at],
            use_refusal_set=(terms[at] == Term.RTO) & refusal_set,
            refusal_ids=torch.tensor(list(refusal_ids), device=targets.device),
            weights=weights,
        ),
        model.get_output_embeddings(),
        logit_transform(model.config),
        chunk=max(1, chunk_values(hidden.device.type) // model.config.get_text_config().vocab_size),
    )
    return {
        # A rank without targets of its own gets zero gradients, not none.
        "nll": -(term_of_target * log_probs[:, None]).sum(0) + 0 * hidden.sum(),
        "refusal": (term_of_target * refusal_log_probs.exp()[:, None]).sum(0),
        "count": term_of_target.sum(0),
    }


def install_objective(
    model: PreTrainedModel,
    refusal_ids: Sequence[int],
    refusal_set: bool = False,
    term_weights: Sequence[float] | None = (1.0, 1.0, 1.0),
) -> None:
    """Teach a causal language model's `forward` to take a batch of trees and return the fields of `TermSums`.

    The instance's own `forward` is wrapped, so that whatever wraps the model (DDP, FSDP2, DeepSpeed, PEFT, autocast)
    still sees one ordinary call of it; without `targets` it does what it always did. There is no way to train on a
    model without this: a stock `forward` returns no sums, and the trainer stops.

    Args:
        model: The unwrapped causal language model.
        refusal_ids: Lists the refusal tokens.
        refusal_set: Lets an RTO target stand for the probability mass of all of them.
        term_weights: Says what the loss multiplies each entry of `nll` with, up to a common factor; `None` if that
            isn't known beforehand. It decides how fast an output head is trained, never the result.

    Raises:
        InputError: The model's attention cannot express a token tree.
    """
    attend_by_tree(model)
    attention = TreeAttention(model.config)
    stock_forward = type(model).forward

    @functools.wraps(stock_forward)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        targets, terms = kwargs.pop("targets", None), kwargs.pop("terms", None)
        if targets is None:
            return stock_forward(self, *args, **kwargs)
        hidden = self.get_decoder()(
            input_ids=kwargs["input_ids"],
            attention_mask=attention(kwargs["visible_ranges"], self.dtype),
            position_ids=kwargs["position_ids"],
            use_cache=False,
        ).last_hidden_state
        return sum_terms(self, hidden, targets, terms, refusal_ids, refusal_set, term_weights)

    model.forward = types.MethodType(forward, model)
