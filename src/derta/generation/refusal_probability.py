"""p(refuse | what is written so far) along an answer: a tuned model watches what it, or another model, writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.generation.decoding import evaluating
from derta.generation.refusal import refusal_mass
from derta.generation.requests import RawRequest, Request, request_encoder
from derta.threads import threads_for

# A pass of more logits than this (tokens x vocabulary) would take 256 MiB and more; a single long answer may.
_MAX_LOGITS = 2**26
# Answers of one pass are padded to the longest: their lengths differ by no more tokens than this.
_MAX_PADDING = 16


@dataclass(frozen=True)
class EncodedAnswer:
    """An answer as token ids.

    Attributes:
        context: the prompt, and how the answer was begun for the model.
        response: the tokens to watch; may be empty.
    """

    context: list[int]
    response: list[int]


def encode_answers(
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[tuple[Request, str]],
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[EncodedAnswer]:
    """Encode answers, each a request and the text that followed it, as the model would have written them."""
    encode = request_encoder(tokenizer, chat_template_kwargs)
    encoded = []
    for request, text in answers:
        context = encode(request).ids
        longer: Request
        if isinstance(request, RawRequest):
            longer = RawRequest(request.text + text)
        else:
            longer = replace(request, prefix=request.prefix + text)
        whole = encode(longer).ids if text else context
        # Where the text merges with what stands before it, the tokens from there on are watched.
        start = 0
        while start < min(len(context), len(whole)) and context[start] == whole[start]:
            start += 1
        encoded.append(EncodedAnswer(whole[:start], whole[start:]))
    return encoded


def refusal_probabilities(
    model: PreTrainedModel, answers: Sequence[EncodedAnswer], ids: Sequence[int]
) -> list[list[float]]:
    """Return p(refuse) before each token of each answer and, as the last of them, after all of it.

    An answer of n tokens gets n + 1 probabilities from one forward pass, batched with others of about its length.
    """
    found: dict[int, list[float]] = {}
    for group in _passes(answers, model.config.get_text_config().vocab_size):
        rows = [answers[index].context + answers[index].response for index in group]
        width = max(map(len, rows))
        # Padding stands on the right, where nothing that is read sees it.
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
        with evaluating(model), threads_for(model), torch.inference_mode():
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        for place, index in enumerate(group):
            # The context's last token gives the probability before the answer's first one.
            span = slice(len(answers[index].context) - 1, len(rows[place]))
            found[index] = refusal_mass(logits[place, span], ids).tolist()
    return [found[index] for index in range(len(answers))]


def _passes(answers: Sequence[EncodedAnswer], vocabulary: int) -> list[list[int]]:
    """Put answers of about the same length into one pass, the longest first."""
    lengths = [len(each.context) + len(each.response) for each in answers]
    passes: list[list[int]] = []
    for index in sorted(range(len(answers)), key=lambda index: -lengths[index]):
        longest = lengths[passes[-1][0]] if passes else 0
        fits = passes and (len(passes[-1]) + 1) * longest * vocabulary <= _MAX_LOGITS
        if not fits or lengths[index] < longest - _MAX_PADDING:
            passes.append([])
        passes[-1].append(index)
    return passes
