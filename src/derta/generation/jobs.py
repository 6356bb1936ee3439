"""One request on its way through a model: what it has written so far, and how its next token is chosen."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError
from derta.generation.refusal import refusal_mass, token_bias
from derta.generation.requests import (
    ChatRequest,
    Context,
    Generation,
    Request,
    TokenLogprob,
    check_context,
    continuation,
    decode,
)
from derta.guard.calibration import Calibration
from derta.guard.hold_back import HoldBack


@dataclass(eq=False)
class Job:
    """A request, encoded, and what the model has written.

    Attributes:
        context: the tokens that the model continues.
        prefix: the begun answer of the request.
        limit: how many tokens the model may write.
        ends: the tokens that end an answer.
        temperature: 0 takes the likeliest token.
        top_logprobs: how many alternatives to record a token; 0 records nothing.
        stop: texts that end an answer and aren't part of it.
        bias: what is added to the logits of some tokens before one is chosen.
        guard: stops an answer at which the model would rather refuse; `None` lets everything pass.
        refusal: p(refuse) before the next token, where there is a guard.
        released: the tokens that the guard let go.
        draws: where sampling gets its numbers: the request's own, so that no other request changes them.
        written: the tokens so far, the end-of-turn token left out.
        over: whether nothing more is to be written.
        finished: whether the model, or a stop text, ended the answer.
        problem: `non-finite` if the model's logits stopped being numbers: there is no next token then.
    """

    tokenizer: PreTrainedTokenizerBase
    context: Context
    prefix: str
    limit: int
    ends: frozenset[int]
    temperature: float = 0.0
    top_logprobs: int = 0
    stop: tuple[str, ...] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    guard: Calibration | None = None
    refusal: float = 0.0
    released: list[int] = field(default_factory=list)
    draws: random.Random = field(default_factory=random.Random)
    written: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    over: bool = False
    finished: bool = False
    problem: str = ""

    def __post_init__(self) -> None:
        self._hold_back: HoldBack[int] | None = self.guard.new_hold_back() if self.guard else None

    @property
    def stopped_at(self) -> int | None:
        """How many tokens were written when the guard stopped the answer; `None` if it didn't."""
        return self._hold_back.stopped_at if self._hold_back else None

    def write(self, token: int, logprob: TokenLogprob | None) -> None:
        """Take the model's next token."""
        if self.problem:
            self.over = True
            return
        ends = token in self.ends
        if self._hold_back:
            self.released += (
                self._hold_back.end([self.refusal]) if ends else self._hold_back.push(token, [self.refusal])
            )
        if ends or self.stopped_at is not None:
            self.over = self.finished = True
            return
        self.written.append(token)
        if logprob:
            self.logprobs.append(logprob)
        self.finished = bool(self.stop) and _cut(self._text(self.written), self.stop) is not None
        self.over = self.finished or len(self.written) >= self.limit
        if self._hold_back and self.over:
            self.released += self._hold_back.end()

    def generation(self) -> Generation:
        """Return what was written, up to the first stop text; where a guard stopped it, what had left and its words."""
        if self.guard and self.stopped_at is not None:
            text = self._text(self.released)
            text += self.guard.ending(follows=bool(text.strip() or self.context.begun))
            told = tuple(self.logprobs[: len(self.released)])
            return Generation(self.prefix, text, len(self.released), True, told, stopped_at=self.stopped_at)
        # What a broken model left unfinished stays with the guard.
        text = self._text(self.released if self.guard else self.written)
        cut = _cut(text, self.stop)
        return Generation(self.prefix, text[:cut], len(self.written), self.finished, tuple(self.logprobs), self.problem)

    def _text(self, ids: list[int]) -> str:
        return continuation(self.tokenizer, self.context, ids)


def _cut(text: str, stop: Sequence[str]) -> int | None:
    return min((at for at in map(text.find, stop) if at >= 0), default=None)


def make_job(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: Request,
    context: Context,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    number: int = 0,
    top_logprobs: int = 0,
    stop: Sequence[str] = (),
    guard: Calibration | None = None,
) -> Job:
    """Return the job of an encoded request; what it draws depends on its seed, number and tokens alone.

    Raises:
        InputError: it doesn't fit the model's context, or an option is out of range.
    """
    check_context(model, context, max_new_tokens)
    if not temperature >= 0:
        raise InputError(f"temperature: {temperature}; give 0 for greedy decoding, or more")
    if top_logprobs < 0:
        raise InputError(f"top_logprobs: {top_logprobs}; give 0 for none, or more")
    return Job(
        tokenizer,
        context,
        request.prefix if isinstance(request, ChatRequest) else "",
        max_new_tokens,
        end_tokens(model, tokenizer),
        temperature,
        top_logprobs,
        tuple(filter(None, stop)),
        token_bias(model),
        guard,
        draws=random.Random(f"{seed} {number} {context.ids}"),
    )


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return what ends an answer: a chat model's turn ends otherwise than a text, and its checkpoint knows both."""
    shipped = model.generation_config.eos_token_id if model.generation_config else None
    ends = shipped if isinstance(shipped, list) else [shipped]
    return frozenset(token for token in [*ends, tokenizer.eos_token_id] if token is not None)


def choose(logits: torch.Tensor, jobs: Sequence[Job]) -> list[tuple[int, TokenLogprob | None]]:
    """Choose each job's next token from its row of `logits` (jobs x vocabulary)."""
    logits = logits.float()
    # Probabilities are told before any bias: a guard's threshold doesn't depend on it.
    chosen = _biased(logits, jobs)
    tokens: list[int] = chosen.argmax(dim=-1).tolist()
    for job, is_finite in zip(jobs, logits.amax(dim=-1).isfinite().tolist(), strict=True):
        if not is_finite:
            job.problem = "non-finite"
    sampled = [row for row, job in enumerate(jobs) if job.temperature > 0]
    if sampled:
        for row, token in zip(sampled, _sample(chosen[sampled], [jobs[row] for row in sampled]), strict=True):
            tokens[row] = token
    guarded = [row for row, job in enumerate(jobs) if job.guard]
    if guarded:
        # All of an engine's jobs have one guard.
        masses = refusal_mass(logits[guarded], cast(Calibration, jobs[guarded[0]].guard).tokens).tolist()
        for row, mass in zip(guarded, masses, strict=True):
            jobs[row].refusal = mass
    told = [row for row, job in enumerate(jobs) if job.top_logprobs]
    scores = dict(zip(told, logits[told].log_softmax(dim=-1), strict=True)) if told else {}
    return [
        (token, _logprob(jobs[row], token, scores[row]) if row in scores else None) for row, token in enumerate(tokens)
    ]


def _biased(logits: torch.Tensor, jobs: Sequence[Job]) -> torch.Tensor:
    added = [(row, token, value) for row, job in enumerate(jobs) for token, value in job.bias.items()]
    if not added:
        return logits
    rows, tokens, values = zip(*added, strict=True)
    places = (torch.tensor(rows, device=logits.device), torch.tensor(tokens, device=logits.device))
    return logits.index_put(places, torch.tensor(values, device=logits.device), accumulate=True)


def _sample(logits: torch.Tensor, jobs: Sequence[Job]) -> list[int]:
    """Invert the distribution function at one drawn number a job: rounding hardly ever changes the token."""
    temperatures = torch.tensor([[job.temperature] for job in jobs], device=logits.device)
    # The largest logit is taken off first: a very small temperature would overflow.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperatures
    cumulative = scaled.softmax(dim=-1).double().cumsum(dim=-1)
    drawn = torch.tensor([[job.draws.random()] for job in jobs], dtype=torch.double, device=logits.device)
    found = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)[:, 0]
    return [int(token) for token in found.clamp(max=logits.shape[-1] - 1)]


def _logprob(job: Job, token: int, scores: torch.Tensor) -> TokenLogprob:
    values, ids = scores.topk(min(job.top_logprobs, len(scores)))
    top = tuple((_token_text(job, id), value) for id, value in zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(_token_text(job, token), float(scores[token]), top)


def _token_text(job: Job, token: int) -> str:
    text = decode(job.tokenizer, [token])
    # Special tokens decode to nothing; as alternatives they need a name.
    return text or str(job.tokenizer.convert_ids_to_tokens(token))
