"""Log-probabilities of targets without ever holding the full logits.

Each chunk of targets is projected once: its logits become log-probabilities and, at once, gradients, and are gone
before the next chunk (the idea of Liger Kernel's fused linear cross-entropy, Hsu et al., arXiv 2410.10989, in plain
torch and for log-probabilities of each target, of a token or of a set of tokens).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Targets:
    """What to predict at each of N positions.

    Attributes:
        ids: N token ids.
        of_set: N bools: the target is the probability mass of all refusal tokens in place of the one token.
        refusal_ids: ids whose probabilities add up.
        weights: N float32: what the caller multiplies each log-probability with, up to a common factor; `None` if it
            can't know. Decides the speed, never the result.
    """

    ids: torch.Tensor
    of_set: torch.Tensor
    refusal_ids: torch.Tensor
    weights: torch.Tensor | None = None

    def __getitem__(self, part: slice) -> "Targets":
        weights = None if self.weights is None else self.weights[part]
        return Targets(self.ids[part], self.of_set[part], self.refusal_ids, weights)


def target_log_probs(
    hidden: torch.Tensor, targets: Targets, head: torch.nn.Module, transform: Transform | None, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target, and of the refusal tokens together, at each position.

    Args:
        hidden: final hidden states at target positions, N x D.
        targets: N of them.
        head: the output head, from n x D to n x V.
        transform: what the architecture does to the logits after its head, entry by entry.
        chunk: positions whose logits may exist at a time.

    Returns:
        Two float32 tensors of N; the second carries no gradient.
    """
    if not _is_sharded(head):
        return _in_chunks(hidden, targets, head, head if _is_plain(head) else None, transform, chunk)
    # All ranks gather the head together whenever it is called: call it once, however many chunks a rank has.
    forward = head.forward
    head.forward = lambda states: _in_chunks(
        states, targets, forward, head if _is_matrix(head) else None, transform, chunk
    )
    try:
        log_probs, refusal = head(hidden)
    finally:
        del head.forward
    return log_probs, refusal


def _in_chunks(
    hidden: torch.Tensor,
    targets: Targets,
    project: Callable[[torch.Tensor], torch.Tensor],
    linear: torch.nn.Module | None,
    transform: Transform | None,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`target_log_probs` with any projection to logits; `linear` if it is but a matrix, which is faster."""

    def at_once(hidden: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        logits = project(hidden)
        logits = (logits if transform is None else transform(logits)).float()
        normalizer = torch.logsumexp(logits, dim=-1)
        refusal = torch.logsumexp(logits[:, targets.refusal_ids], dim=-1) - normalizer
        of_token = logits.gather(-1, targets.ids[:, None])[:, 0] - normalizer
        return torch.where(targets.of_set, refusal, of_token), refusal.detach()

    count = len(targets.ids)
    if count <= chunk:
        return at_once(hidden, targets)
    if targets.weights is not None and linear is not None:
        options = _Options(targets, transform, chunk, torch.is_grad_enabled(), _compute_dtype(hidden))
        log_probs, refusal = _LinearLogProbs.apply(hidden, linear.weight, linear.bias, options)  # type: ignore[no-untyped-call]
        return log_probs, refusal
    # Logits of a chunk live during its forward and again during its backward, never side by side.
    parts = [
        checkpoint(at_once, hidden[i : i + chunk], targets[i : i + chunk], use_reentrant=False)
        for i in range(0, count, chunk)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _is_sharded(head: torch.nn.Module) -> bool:
    """Whether ranks hold the head in parts and gather it for each call: FSDP2, DeepSpeed ZeRO-3."""
    return isinstance(head, FSDPModule) or any(hasattr(p, "ds_id") for p in head.parameters())


def _is_plain(head: torch.nn.Module) -> bool:
    """Whether the head is a matrix at hand: not sharded, quantised, adapted, hooked or offloaded."""
    return (
        _is_matrix(head)
        and "forward" not in vars(head)
        and not (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks)
    )


def _is_matrix(head: torch.nn.Module) -> bool:
    return type(head).forward is torch.nn.Linear.forward and type(head.weight) in (torch.nn.Parameter, torch.Tensor)


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


@dataclass(frozen=True)
class _Options:
    targets: Targets
    transform: Transform | None
    chunk: int
    with_gradients: bool
    dtype: torch.dtype


@dataclass
class _Gradients:
    """Of Σ weight · log p with respect to the head; of each log p with respect to its own hidden state."""

    hidden: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None


class _LinearLogProbs(torch.autograd.Function):
    """`target_log_probs` of a plain linear head, with its gradients computed in the forward pass.

    A hidden state belongs to one target, so its gradient is kept apart and scaled in the backward pass, whatever
    arrives there. The head's gradient is a sum over targets under `Targets.weights`; if what arrives isn't
    proportional to them, it is computed anew.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, options: _Options
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wants = [options.with_gradients and wanted for wanted in ctx.needs_input_grad[:3]]
        log_probs, refusal, ctx.gradients = _sweep(hidden, weight, bias, options, wants)
        ctx.options = options
        ctx.save_for_backward(hidden, weight, bias)
        ctx.mark_non_differentiable(refusal)
        return log_probs, refusal

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, arriving: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, options = ctx.gradients, ctx.options
        if gradients is None:
            raise RuntimeError("the loss was already differentiated: run its forward pass again")
        ctx.gradients = None
        if gradients.weight is not None or gradients.bias is not None:
            weights = options.targets.weights
            largest = weights.abs().argmax()
            factor = arriving[largest] / weights[largest]
            if torch.allclose(arriving, factor * weights, rtol=1e-6, atol=0.0):
                for of_head in (gradients.weight, gradients.bias):
                    if of_head is not None:
                        of_head.mul_(factor)
            else:
                hidden, weight, bias = ctx.saved_tensors
                wants = [False, gradients.weight is not None, gradients.bias is not None]
                targets = Targets(options.targets.ids, options.targets.of_set, options.targets.refusal_ids, arriving)
                options = _Options(targets, options.transform, options.chunk, True, options.dtype)
                of_hidden = gradients.hidden
                gradients = _sweep(hidden, weight, bias, options, wants)[2]
                gradients.hidden = of_hidden
        if gradients.hidden is not None:
            gradients.hidden.mul_(arriving[:, None])
        return gradients.hidden, gradients.weight, gradients.bias, None


def _sweep(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, options: _Options, wants: list[bool]
) -> tuple[torch.Tensor, torch.Tensor, _Gradients]:
    """Project chunk after chunk; return log-probabilities of targets and refusals, and the gradients wanted."""
    gradients = _Gradients(
        *(
            torch.zeros_like(tensor) if tensor is not None and wanted else None
            for tensor, wanted in zip((hidden, weight, bias), wants, strict=True)
        )
    )
    log_probs, refusal = hidden.new_empty(2, len(hidden), dtype=torch.float32)
    matrix, offset = weight.to(options.dtype), None if bias is None else bias.to(options.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, len(hidden), options.chunk):
            part = slice(start, start + options.chunk)
            states, targets = hidden[part].to(options.dtype), options.targets[part]
            projected = F.linear(states, matrix, offset)
            logits = projected
            if options.transform is not None:
                with torch.enable_grad():
                    logits = options.transform(projected.requires_grad_())
            values = logits.detach().float()
            log_probs[part], refusal[part], slope = _slopes(values, targets)
            if not any(wants):
                continue
            slope = slope.to(logits.dtype)
            if logits is not projected:
                (slope,) = torch.autograd.grad(logits, projected, slope)
            if gradients.hidden is not None:
                gradients.hidden[part] = slope @ matrix
            if gradients.weight is not None or gradients.bias is not None:
                assert targets.weights is not None
                slope.mul_(targets.weights[:, None])
            if gradients.weight is not None:
                _add_product(gradients.weight, slope.T, states)
            if gradients.bias is not None:
                gradients.bias.add_(slope.sum(0))
    return log_probs, refusal, gradients


def _slopes(logits: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of the targets and of the refusal tokens, and the gradient of the first (n x V).

    The gradient takes the place of the float32 logits: nothing else of their size exists.
    """
    of_token = logits.gather(-1, targets.ids[:, None])[:, 0]
    of_refusals = logits[:, targets.refusal_ids]
    largest = logits.amax(-1, keepdim=True)
    slope = logits.sub_(largest).exp_()
    total = slope.sum(-1, keepdim=True)
    slope.div_(total.neg_())
    normalizer = (largest + total.neg().log())[:, 0]
    slope.scatter_add_(-1, targets.ids[:, None], (~targets.of_set)[:, None].to(slope.dtype))
    slope.index_add_(-1, targets.refusal_ids, of_refusals.softmax(-1) * targets.of_set[:, None])
    refusal = of_refusals.logsumexp(-1) - normalizer
    return torch.where(targets.of_set, refusal, of_token - normalizer), refusal, slope


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
