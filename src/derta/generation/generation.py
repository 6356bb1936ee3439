"""Batched generation for a known list of requests."""

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.generation.decoding import evaluating, make_decoder
from derta.generation.jobs import make_job
from derta.generation.requests import Generation, Request, encode
from derta.guard.calibration import Calibration
from derta.threads import threads_for


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    max_new_tokens: int = 256,
    batch_size: int | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    top_logprobs: int = 0,
    max_batch_tokens: int | None = None,
    guard: Calibration | None = None,
) -> list[Generation]:
    """Continue every request; results come in the order of the requests.

    The batch is a matter of speed only: each output is what the request would get alone (up to rounding).

    Args:
        model (`PreTrainedModel`): Generates.
        tokenizer (`PreTrainedTokenizerBase`): Is the model's tokenizer.
        requests (`Sequence[Request]`): Hold what the model gets.
        max_new_tokens (`int`, *optional*, defaults to 256): the most that it writes for a request.
        batch_size (`int`, *optional*): Bounds the requests in a batch; depends on the model's size by default.
        chat_template_kwargs (`dict`, *optional*): Go to the chat template.
        temperature (`float`, *optional*, defaults to 0): 0 is greedy.
        seed (`int`, *optional*, defaults to 0): Seeds the draws, with the request and its index and nothing else.
        top_logprobs (`int`, *optional*, defaults to 0): Records log-probabilities, with so many alternatives a token.
        max_batch_tokens (`int`, *optional*): Bounds the cached tokens; by default as many as fit
            a part of the free memory.
        guard (`Calibration`, *optional*): Stops every answer at which the model would rather refuse.

    Raises:
        InputError: a request can't be encoded, or doesn't fit the model's context with `max_new_tokens`.
    """
    results = dict(
        stream(
            model,
            tokenizer,
            requests,
            max_new_tokens,
            batch_size,
            chat_template_kwargs,
            temperature=temperature,
            seed=seed,
            top_logprobs=top_logprobs,
            max_batch_tokens=max_batch_tokens,
            guard=guard,
        )
    )
    return [results[index] for index in range(len(requests))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    max_new_tokens: int = 256,
    batch_size: int | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    top_logprobs: int = 0,
    max_batch_tokens: int | None = None,
    guard: Calibration | None = None,
) -> Iterator[tuple[int, Generation]]:
    """Yield `(index, generation)` as requests are answered: see [`generate`]."""
    contexts = encode(tokenizer, requests, chat_template_kwargs)
    jobs = [
        make_job(
            model,
            tokenizer,
            request,
            context,
            max_new_tokens,
            temperature=temperature,
            seed=seed,
            number=number,
            top_logprobs=top_logprobs,
            guard=guard,
        )
        for number, (request, context) in enumerate(zip(requests, contexts, strict=True))
    ]
    indices = {job: index for index, job in enumerate(jobs)}
    decoder = make_decoder(model, batch_size, max_batch_tokens)
    for job in jobs:
        decoder.add(job)
    while decoder.busy:
        with evaluating(model), threads_for(model):
            over = decoder.step()
        for job in over:
            yield indices[job], job.generation()
