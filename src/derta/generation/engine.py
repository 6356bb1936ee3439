"""Batched generation: an engine that answers whatever is asked while it runs, and `generate` for a known list."""

import atexit
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.generation.decoding import evaluating, make_decoder
from derta.generation.jobs import Job, make_job
from derta.generation.requests import Generation, Request, encode, request_encoder
from derta.guard.calibration import Calibration
from derta.threads import threads_for


class Engine:
    """Batches requests as they come: one joins the batch when there is room and leaves it when it is answered.

    Every answer is what the request would get alone (up to rounding). The methods may be called from any thread. Use it
    as a context manager, or call `close`.

    Args:
        model (`PreTrainedModel`): the model; one thread of the engine uses it, others in `exclusive` only, and its
            weights stay as they are, because what prompts share is kept.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.
        chat_template_kwargs (`dict`, *optional*): options of the chat template.
        batch_size (`int`, *optional*): the most requests in a batch; depends on the model's size by default.
        max_batch_tokens (`int`, *optional*): the most cached tokens; by default as many as fit a part of the free
            memory.
        guard (`Calibration`, *optional*): when to stop an answer at which the model would rather refuse.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template_kwargs: dict[str, Any] | None = None,
        batch_size: int | None = None,
        max_batch_tokens: int | None = None,
        guard: Calibration | None = None,
    ) -> None:
        self._model = model
        self._guard = guard
        self._tokenizer = tokenizer
        self._encode = request_encoder(tokenizer, chat_template_kwargs)
        self._decoder = make_decoder(model, batch_size, max_batch_tokens)
        self._encoding = threading.Lock()
        self._state = threading.Condition()
        self._submitted: deque[tuple[Job, Future[Generation]]] = deque()
        self._running: dict[Job, Future[Generation]] = {}
        self._owner: int | None = None
        self._depth = 0
        self._wanted = 0
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="derta-engine", daemon=True)
        self._worker.start()
        # A daemon thread inside the model while the interpreter goes down would crash it.
        atexit.register(self.close)

    def submit(
        self,
        request: Request,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        top_logprobs: int = 0,
        stop: Sequence[str] = (),
    ) -> Future[Generation]:
        """Queue a request and return the future of its answer.

        Args:
            request (`Request`): what the model gets.
            max_new_tokens (`int`, *optional*, defaults to 256): the most tokens that it writes.
            temperature (`float`, *optional*, defaults to 0): 0 is greedy.
            seed (`int`, *optional*, defaults to 0): the seed of the draws; the same request and seed give the same
                answer.
            top_logprobs (`int`, *optional*, defaults to 0): how many alternatives to record a token, with their
                log-probabilities; 0 records nothing.
            stop (`Sequence[str]`, *optional*): texts that end the answer and aren't part of it.

        The future raises `InputError` if the request can't be encoded or doesn't fit the model's context; an error
        of the model itself reaches every request that was under way. A future that is cancelled before its request
        joins a batch costs nothing.

        Raises:
            RuntimeError: the engine is closed.
        """
        answer: Future[Generation] = Future()
        try:
            # A fast tokenizer can't be shared by threads while an option of it changes.
            with self._encoding:
                context = self._encode(request)
            job = make_job(
                self._model,
                self._tokenizer,
                request,
                context,
                max_new_tokens,
                temperature=temperature,
                seed=seed,
                top_logprobs=top_logprobs,
                stop=stop,
                guard=self._guard,
            )
        # A template may raise anything; it concerns this request alone.
        except Exception as error:
            answer.set_exception(error)
            return answer
        with self._state:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._submitted.append((job, answer))
            self._state.notify_all()
        return answer

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Use the model alone: the engine pauses between two steps, and goes on afterwards.

        A thread that waits for one of the engine's answers in here waits for ever.
        """
        me = threading.get_ident()
        with self._state:
            self._wanted += 1
            self._state.wait_for(lambda: self._owner in (None, me))
            self._wanted -= 1
            self._owner = me
            self._depth += 1
        try:
            yield
        finally:
            with self._state:
                self._depth -= 1
                if not self._depth:
                    self._owner = None
                self._state.notify_all()

    def close(self) -> None:
        """Stop the engine after its current step; requests that aren't answered are cancelled."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._worker.join()
        atexit.unregister(self.close)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        while self._take_turn():
            try:
                with evaluating(self._model), threads_for(self._model):
                    over = self._decoder.step() if self._decoder.busy else []
                finished = [(job, job.generation()) for job in over]
            # Whatever the model raises, those who wait must hear of it.
            except Exception as error:
                self._decoder.clear()
                self._fail(error)
                finished = []
            finally:
                self._end_turn()
            for job, generation in finished:
                self._running.pop(job).set_result(generation)
        self._decoder.clear()
        self._fail(CancelledError())

    def _take_turn(self) -> bool:
        """Wait until there is something to do and the model is free, take in what was submitted; `False` at the end."""
        with self._state:
            self._state.wait_for(
                lambda: (
                    self._closed
                    or (self._owner is None and not self._wanted and bool(self._submitted or self._running))
                )
            )
            if not self._closed:
                self._owner = threading.get_ident()
            submitted, self._submitted = self._submitted, deque()
        for job, answer in submitted:
            if self._closed:
                answer.cancel()
            elif answer.set_running_or_notify_cancel():
                self._running[job] = answer
                self._decoder.add(job)
        return not self._closed

    def _end_turn(self) -> None:
        with self._state:
            self._owner = None
            self._state.notify_all()

    def _fail(self, error: BaseException) -> None:
        running, self._running = self._running, {}
        for answer in running.values():
            answer.set_exception(error)


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
        model (`PreTrainedModel`): the model.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.
        requests (`Sequence[Request]`): what the model gets.
        max_new_tokens (`int`, *optional*, defaults to 256): the most that it writes for a request.
        batch_size (`int`, *optional*): the most requests in a batch; depends on the model's size by default.
        chat_template_kwargs (`dict`, *optional*): options of the chat template.
        temperature (`float`, *optional*, defaults to 0): 0 is greedy.
        seed (`int`, *optional*, defaults to 0): the seed of the draws, with the request and its index and nothing
            else.
        top_logprobs (`int`, *optional*, defaults to 0): how many alternatives to record a token, with their
            log-probabilities; 0 records nothing.
        max_batch_tokens (`int`, *optional*): the most cached tokens; by default as many as fit a part of the free
            memory.
        guard (`Calibration`, *optional*): when to stop an answer at which the model would rather refuse.

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
