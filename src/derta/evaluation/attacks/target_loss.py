"""The loss of a target answer after a request: what the searching attacks lower, and its gradient."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from derta.errors import InputError
from derta.evaluation.attacks.base import Victim, Weights
from derta.generation import ChatRequest, encode

# Logits of one pass: 1 GB in float32. On a GPU that holds less, passes are halved until they fit.
_LOGITS = 2**28
# Only these can be repeated for a batch.
_PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


def weights_of(victim: Victim, attack: str) -> Weights:
    """Return the live model of `victim`.

    Raises:
        InputError: it is behind an API.
    """
    if victim.weights is None:
        raise InputError(f"`attacks` {attack}: needs the weights of the attacked model, not an API; name a local model")
    return victim.weights


def target_tokens(weights: Weights, request: ChatRequest, target: str) -> list[int]:
    """Return the tokens of the answer `target` as it begins the assistant's turn after `request`."""
    (context,) = encode(weights.tokenizer, [ChatRequest(request.messages, target)], weights.chat_template_kwargs)
    return context.ids[len(context.ids) - context.begun :]


@dataclass(frozen=True)
class TargetScores:
    """How near each of N contexts brings the model to the target.

    Attributes:
        losses: (N,) mean negative log-likelihood of the target's tokens, in nats, float32 on the CPU.
        said: (N,) whether the whole target is what the model says greedily.
    """

    losses: torch.Tensor
    said: torch.Tensor


class TargetLoss:
    """The loss of one target under one model, in batches.

    The model is in evaluation mode and stays as it is: no gradient is left on its weights. Contexts are padded on the
    right, where causal attention never sees it, and what they all begin with is computed once.
    """

    def __init__(self, weights: Weights, target: Sequence[int]) -> None:
        """Take the tokens that the answer should begin with, at least one."""
        self._weights = weights
        self._model = weights.model
        self._embed = weights.model.get_input_embeddings()
        self._target = list(target)
        self._rows = max(1, _LOGITS // (len(target) * self._model.config.get_text_config().vocab_size))

    @property
    def table(self) -> torch.Tensor:
        """The input embeddings, (V, hidden)."""
        return cast(torch.Tensor, self._embed.weight).detach()

    def __call__(self, contexts: Sequence[list[int]]) -> TargetScores:
        """Score the target after each context, all of it in no more memory than there is."""
        begin = _shared(contexts)
        cache = self._run(torch.tensor([contexts[0][:begin]]), None, 1)[1] if begin else None
        # Layers with a state of another kind can't be repeated: those models read every context in full.
        if cache is not None and any(type(layer) not in _PLAIN_LAYERS for layer in cache.layers):
            begin, cache = 0, None
        losses, said = [], []
        done = 0
        while done < len(contexts):
            chunk = contexts[done : done + self._rows]
            try:
                scores = self._score(chunk, begin, cache)
            except torch.OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                self._rows = len(chunk) // 2
                continue
            losses.append(scores.losses)
            said.append(scores.said)
            done += len(chunk)
        return TargetScores(torch.cat(losses), torch.cat(said))

    def gradient(self, context: list[int], places: slice) -> torch.Tensor:
        """Return the gradient of the loss by the one-hot tokens at `places`: (places, V), on the model's device.

        It goes through the input embeddings, by a constant too small in models that scale them.
        """
        ids = torch.tensor([context + self._target[:-1]], device=self._model.device)
        with self._weights.exclusive(), torch.enable_grad():
            embeddings = self._embed(ids).detach().requires_grad_()
            logits = self._model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=len(self._target)).logits
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits[0].float(), self._on_device()), embeddings)
        return torch.matmul(gradient[0, places], self.table.T)

    def _score(self, contexts: Sequence[list[int]], begin: int, cache: Cache | None) -> TargetScores:
        """Score contexts in one pass; their first `begin` tokens are in `cache`."""
        width = max(map(len, contexts)) + len(self._target) - 1
        rows = [context + self._target[:-1] for context in contexts]
        ids = torch.tensor([(row + [0] * (width - len(row)))[begin:] for row in rows])
        kept = width - min(map(len, contexts)) + 1
        logits, _ = self._run(ids, _repeated(cache, len(rows)), kept)
        first = torch.tensor([len(context) - 1 - (width - kept) for context in contexts], device=logits.device)
        places = first[:, None] + torch.arange(len(self._target), device=logits.device)
        answers = logits[torch.arange(len(rows), device=logits.device)[:, None], places]
        target = self._on_device().expand(len(rows), -1)
        losses = F.cross_entropy(answers.float().transpose(1, 2), target, reduction="none").mean(1)
        return TargetScores(losses.cpu(), (answers.argmax(-1) == target).all(1).cpu())

    def _run(self, ids: torch.Tensor, cache: Cache | None, kept: int) -> tuple[torch.Tensor, Cache | None]:
        """Run the model; without a cache it makes one, which costs next to nothing."""
        cache = cache if cache is not None else DynamicCache(config=self._model.config)
        with self._weights.exclusive(), torch.no_grad():
            output = self._model(
                input_ids=ids.to(self._model.device), past_key_values=cache, use_cache=True, logits_to_keep=kept
            )
        return output.logits, cache

    def _on_device(self) -> torch.Tensor:
        return torch.tensor(self._target, device=self._model.device)


def _shared(contexts: Sequence[list[int]]) -> int:
    """Return how many tokens all contexts begin with, short of the last of each; 0 for a single one."""
    if len(contexts) < 2:
        return 0
    same = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*contexts, strict=False)))
    return min(same, min(map(len, contexts)) - 1)


def _repeated(cache: Cache | None, rows: int) -> Cache | None:
    """Return a copy of a cache of one row for `rows` rows: a pass writes to the cache that it gets."""
    cache = copy.deepcopy(cache)
    if cache is not None:
        cache.batch_repeat_interleave(rows)
    return cache
