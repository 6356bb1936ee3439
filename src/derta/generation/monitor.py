"""p(refuse | prefix) along an answer: a tuned model watches what it, or another model, writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.generation.decoding import evaluating
from derta.generation.refusal import refusal_mass
from derta.generation.requests import RawRequest, Request, request_encoder
from derta.threads import threads_for

T = TypeVar("T")

_LOGITS = 2**26
"""Logits of one forward pass at most, unless a single answer has more."""
_ALIKE = 16
"""Tokens by which the lengths of answers in one pass may differ."""


@dataclass(frozen=True)
class Watched:
    """One answer to watch, as token ids.

    Attributes:
        context: Holds the prompt, and how the answer was begun for the model.
        response: Holds the tokens to watch; may be empty.
    """

    context: list[int]
    response: list[int]


def watch(
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[tuple[Request, str]],
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[Watched]:
    """Encode answers, each a request and the text that followed it, as the model would have written them.

    Raises:
        InputError: A request can't be encoded.
    """
    encode = request_encoder(tokenizer, chat_template_kwargs)
    watched = []
    for request, text in answers:
        context = encode(request).ids
        longer: Request
        if isinstance(request, RawRequest):
            longer = RawRequest(request.text + text)
        else:
            longer = replace(request, prefix=request.prefix + text)
        whole = encode(longer).ids if text else context
        # Where the text merges with what stands before it, the tokens from there on are watched.
        start = next((i for i, (a, b) in enumerate(zip(context, whole, strict=False)) if a != b), len(context))
        watched.append(Watched(whole[:start], whole[start:]))
    return watched


def refusal_probabilities(model: PreTrainedModel, watched: Sequence[Watched], ids: Sequence[int]) -> list[list[float]]:
    """Return p(refuse) before each token of each answer and, as the last of them, after all of it.

    An answer of n tokens gets n + 1 probabilities from one forward pass, batched with others of about its length.
    """

    def measure(logits: torch.Tensor, hidden: torch.Tensor | None) -> list[float]:
        probabilities: list[float] = refusal_mass(logits, ids).tolist()
        return probabilities

    return _along(model, watched, measure)


def hidden_states(model: PreTrainedModel, watched: Sequence[Watched]) -> list[npt.NDArray[np.float32]]:
    """Return the last layer's hidden states at the same places: n + 1 x width of the model, for each answer."""

    def measure(logits: torch.Tensor, hidden: torch.Tensor | None) -> npt.NDArray[np.float32]:
        assert hidden is not None
        states: npt.NDArray[np.float32] = hidden.float().cpu().numpy()
        return states

    return _along(model, watched, measure, with_hidden=True)


def _along(
    model: PreTrainedModel,
    watched: Sequence[Watched],
    measure: Callable[[torch.Tensor, torch.Tensor | None], T],
    *,
    with_hidden: bool = False,
) -> list[T]:
    """Run every answer through the model and measure its logits and hidden states from its context's last token on."""
    found: dict[int, T] = {}
    for group in _passes(watched, model.config.get_text_config().vocab_size):
        rows = [watched[index].context + watched[index].response for index in group]
        width = max(map(len, rows))
        # Padding stands on the right, where nothing that is read sees it.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
        with evaluating(model), threads_for(model), torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=with_hidden)
        for place, index in enumerate(group):
            span = slice(len(watched[index].context) - 1, len(rows[place]))
            hidden = output.hidden_states[-1][place, span] if with_hidden else None
            found[index] = measure(output.logits[place, span], hidden)
    return [found[index] for index in range(len(watched))]


def _passes(watched: Sequence[Watched], vocabulary: int) -> list[list[int]]:
    """Put answers of about the same length into one pass."""
    lengths = [len(each.context) + len(each.response) for each in watched]
    passes: list[list[int]] = []
    for index in sorted(range(len(watched)), key=lambda index: -lengths[index]):
        longest = lengths[passes[-1][0]] if passes else 0
        fits = passes and (len(passes[-1]) + 1) * longest * vocabulary <= _LOGITS
        if not fits or lengths[index] < longest - _ALIKE:
            passes.append([])
        passes[-1].append(index)
    return passes
