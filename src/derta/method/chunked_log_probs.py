"""Log-probabilities of targets without ever holding the full logits.

Each chunk of targets is projected once: its logits become log-probabilities and, at once, gradients, and are gone
before the next chunk (the idea of Liger Kernel's fused linear cross-entropy, Hsu et al., arXiv 2410.10989, in plain
torch and for log-probabilities of each target, of a token or of a set of tokens).
"""

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F
from torch.utils._triton import has_triton
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig

CHUNK_VALUES = 2**25
"""Logits that may exist at a time: as float32, 128 MiB."""
CHUNK_VALUES_ON_GPUS = 2**28
"""The same on GPUs, which are slow at many small chunks of a large vocabulary: 1 GiB."""

Transform = Callable[[torch.Tensor], torch.Tensor]


def chunk_values(device: str) -> int:
    """Return how many logits may exist at a time on a kind of device."""
    return CHUNK_VALUES if device == "cpu" else CHUNK_VALUES_ON_GPUS


@dataclass(frozen=True)
class Targets:
    """What to predict at each of N positions.

    Attributes:
        ids: Holds N token ids.
        use_refusal_set: Holds N bools; where true, the target is the probability mass of all refusal tokens in place
            of the one token.
        refusal_ids: Lists the refusal tokens.
        weights: Holds what the caller multiplies each log-probability with, up to a common factor (N float32); `None`
            if it can't know. Decides the speed, never the result.
    """

    ids: torch.Tensor
    use_refusal_set: torch.Tensor
    refusal_ids: torch.Tensor
    weights: torch.Tensor | None = None

    def __getitem__(self, part: slice) -> "Targets":
        weights = None if self.weights is None else self.weights[part]
        return Targets(self.ids[part], self.use_refusal_set[part], self.refusal_ids, weights)


def target_log_probs(
    hidden: torch.Tensor, targets: Targets, head: torch.nn.Module, transform: Transform | None, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the log-probability of each target, and of the refusal tokens together, at each position.

    Args:
        hidden: Holds the final hidden states at target positions, N x D.
        targets: Says what to predict at each of them.
        head: Projects n x D to n x V.
        transform: Does to the logits what the architecture does after its head (see `logit_transform`).
        chunk: Bounds the number of positions whose logits exist at a time.

    Returns:
        Two float32 tensors of N; the second carries no gradient.
    """
    is_matrix = type(head).forward is torch.nn.Linear.forward and type(head.weight) in (
        torch.nn.Parameter,
        torch.Tensor,
    )
    # FSDP2 and DeepSpeed ZeRO-3 hold the head in parts and gather it for each call.
    if isinstance(head, FSDPModule) or any(hasattr(p, "ds_id") for p in head.parameters()):
        # All ranks gather together: call the head once, however many chunks a rank has.
        forward = head.forward
        head.forward = lambda states: _in_chunks(
            states, targets, forward, head if is_matrix else None, transform, chunk
        )
        try:
            log_probs, refusal = head(hidden)
        finally:
            del head.forward
        return log_probs, refusal
    is_hooked = "forward" in vars(head) or any(
        (head._forward_hooks, head._forward_pre_hooks, head._backward_hooks, head._backward_pre_hooks)
    )
    return _in_chunks(hidden, targets, head, head if is_matrix and not is_hooked else None, transform, chunk)


def logit_transform(config: PreTrainedConfig) -> Transform | None:
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


def _in_chunks(
    hidden: torch.Tensor,
    targets: Targets,
    project: Callable[[torch.Tensor], torch.Tensor],
    linear: torch.nn.Module | None,
    transform: Transform | None,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`target_log_probs` with any projection to logits; `linear` if that is a plain matrix, which is faster."""

    def log_probs_of(hidden: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        logits = project(hidden)
        logits = (logits if transform is None else transform(logits)).float()
        normalizer = torch.logsumexp(logits, dim=-1)
        refusal = torch.logsumexp(logits[:, targets.refusal_ids], dim=-1) - normalizer
        of_token = logits.gather(-1, targets.ids[:, None])[:, 0] - normalizer
        return torch.where(targets.use_refusal_set, refusal, of_token), refusal.detach()

    count = len(targets.ids)
    if count <= chunk:
        return log_probs_of(hidden, targets)
    if targets.weights is not None and linear is not None:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        projection = _Projection(targets, transform, chunk, torch.is_grad_enabled(), dtype)
        log_probs, refusal = _LinearLogProbs.apply(hidden, linear.weight, linear.bias, projection)  # type: ignore[no-untyped-call]
        return log_probs, refusal
    # Logits of a chunk live during its forward and again during its backward, never side by side.
    parts = [
        checkpoint(log_probs_of, hidden[i : i + chunk], targets[i : i + chunk], use_reentrant=False)
        for i in range(0, count, chunk)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@dataclass(frozen=True)
class _Projection:
    """What `_LinearLogProbs` computes, besides the tensors that autograd looks at."""

    targets: Targets
    transform: Transform | None
    chunk: int
    with_gradients: bool
    dtype: torch.dtype


@dataclass
class _Gradients:
    """Gradients of Σ weight · log p for the head, and of each log p for its own hidden state."""

    hidden: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None


class _LinearLogProbs(torch.autograd.Function):
    """`target_log_probs` of a plain linear head, with its gradients computed in the forward pass.

    A hidden state belongs to one target, so its gradient is kept apart and scaled by `grad_output` in the backward
    pass. The head's gradient is a sum over targets under `Targets.weights`; if `grad_output` isn't proportional to
    them, it is computed anew.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, projection: _Projection
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needed = [projection.with_gradients and need for need in ctx.needs_input_grad[:3]]
        log_probs, refusal, ctx.gradients = _project(hidden, weight, bias, projection, needed)
        ctx.projection = projection
        ctx.save_for_backward(hidden, weight, bias)
        ctx.mark_non_differentiable(refusal)
        return log_probs, refusal

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, projection = ctx.gradients, ctx.projection
        if gradients is None:
            raise RuntimeError("the loss was already differentiated: run its forward pass again")
        ctx.gradients = None
        if gradients.weight is not None or gradients.bias is not None:
            weights = projection.targets.weights
            largest = weights.abs().argmax()
            factor = grad_output[largest] / weights[largest]
            if torch.allclose(grad_output, factor * weights, rtol=1e-6, atol=0.0):
                for of_head in (gradients.weight, gradients.bias):
                    if of_head is not None:
                        of_head.mul_(factor)
            else:
                needed = [False, gradients.weight is not None, gradients.bias is not None]
                reweighted = replace(projection, targets=replace(projection.targets, weights=grad_output))
                of_hidden = gradients.hidden
                hidden, weight, bias = ctx.saved_tensors
                gradients = _project(hidden, weight, bias, replace(reweighted, with_gradients=True), needed)[2]
                gradients.hidden = of_hidden
        if gradients.hidden is not None:
            gradients.hidden.mul_(grad_output[:, None])
        return gradients.hidden, gradients.weight, gradients.bias, None


def _project(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, projection: _Projection, needed: list[bool]
) -> tuple[torch.Tensor, torch.Tensor, _Gradients]:
    """Project chunk after chunk; return log-probabilities of targets and refusals, and the gradients needed."""
    gradients = _Gradients(
        *(
            torch.zeros_like(tensor) if tensor is not None and need else None
            for tensor, need in zip((hidden, weight, bias), needed, strict=True)
        )
    )
    log_probs, refusal = hidden.new_empty(2, len(hidden), dtype=torch.float32)
    matrix, offset = weight.to(projection.dtype), None if bias is None else bias.to(projection.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, len(hidden), projection.chunk):
            part = slice(start, start + projection.chunk)
            states, targets = hidden[part].to(projection.dtype), projection.targets[part]
            projected = F.linear(states, matrix, offset)
            logits = projected
            if projection.transform is not None:
                with torch.enable_grad():
                    logits = projection.transform(projected.requires_grad_())
            log_probs[part], refusal[part], grad_logits = _for_device(logits.device.type)(
                logits.detach(), targets.ids, targets.use_refusal_set, targets.refusal_ids
            )
            if not any(needed):
                continue
            if logits is not projected:
                (grad_logits,) = torch.autograd.grad(logits, projected, grad_logits)
            if gradients.hidden is not None:
                gradients.hidden[part] = grad_logits @ matrix
            if gradients.weight is not None or gradients.bias is not None:
                assert targets.weights is not None
                weights = targets.weights[:, None]
                weighted = (states * weights).to(states.dtype)
            if gradients.weight is not None and gradients.weight.dtype == states.dtype:
                gradients.weight.addmm_(grad_logits.T, weighted)
            elif gradients.weight is not None:
                gradients.weight.add_(grad_logits.T @ weighted)
            if gradients.bias is not None:
                gradients.bias.add_((grad_logits * weights).sum(0))
    return log_probs, refusal, gradients


def _log_probs_and_grad(
    logits: torch.Tensor, ids: torch.Tensor, use_refusal_set: torch.Tensor, refusal_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of the targets and of the refusal tokens, and the gradient of the first (n x V).

    Computed in float32; the gradient has the type of the logits and may take their place.
    """
    dtype, ids, in_set = logits.dtype, ids[:, None], use_refusal_set[:, None]
    logits = logits.float()
    of_token = logits.gather(-1, ids)[:, 0]
    of_refusals = logits[:, refusal_ids]
    largest = logits.amax(-1, keepdim=True)
    grad = logits.sub_(largest).exp_()
    total = grad.sum(-1, keepdim=True)
    grad = grad.div_(total.neg())
    normalizer = (largest + total.log())[:, 0]
    # −p everywhere, rounded to the logits' type only after what the target adds.
    at_token = (grad.gather(-1, ids) + ~in_set).to(dtype)
    at_refusals = (grad[:, refusal_ids] + of_refusals.softmax(-1) * in_set).to(dtype)
    grad = grad.to(dtype)
    grad[:, refusal_ids] = at_refusals
    grad.scatter_(-1, ids, torch.where(in_set, grad.gather(-1, ids), at_token))
    refusal = of_refusals.logsumexp(-1) - normalizer
    return torch.where(use_refusal_set, refusal, of_token - normalizer), refusal, grad


@functools.cache
def _for_device(device: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return `_log_probs_and_grad`, on GPUs as a few fused kernels: one by one, its passes over memory take longest."""
    compilers = os.environ.get("CC", "cc"), "gcc", "clang"
    can_compile = device == "cuda" and has_triton() and any(map(shutil.which, compilers))
    return torch.compile(_log_probs_and_grad, dynamic=True) if can_compile else _log_probs_and_grad
