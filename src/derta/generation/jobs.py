"""One request on its way through a model: what it has written so far, and how its next token is chosen."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from derta.errors import InputError
from derta.generation.refusal import refusal_mass
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

_NOT_DECODED: Mapping[str, Any] = {
    "num_beams": 1, "num_beam_groups": 1, "penalty_alpha": None, "dola_layers": None, "guidance_scale": 1,
    "constraints": None, "force_words_ids": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "min_length": 0, "min_new_tokens": 0, "exponential_decay_length_penalty": None, "watermarking_config": None,
    "encoder_repetition_penalty": 1, "encoder_no_repeat_ngram_size": 0, "token_healing": False,
}  # fmt: skip
"""What a generation configuration may ask for and isn't done here, with the value that asks for nothing."""


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
        stop_strings: texts that end an answer and are part of it: the checkpoint's own.
        processors: what the checkpoint's generation configuration makes of logits before a token is chosen.
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
    stop_strings: tuple[str, ...] = ()
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
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
        endings = (*self.stop, *self.stop_strings)
        self.finished = bool(endings) and _cut(self._text(self.written), endings) is not None
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
    configuration = model.generation_config or GenerationConfig()
    endings = configuration.stop_strings or ()
    return Job(
        tokenizer,
        context,
        request.prefix if isinstance(request, ChatRequest) else "",
        max_new_tokens,
        end_tokens(model, tokenizer),
        temperature,
        top_logprobs,
        tuple(filter(None, stop)),
        (endings,) if isinstance(endings, str) else tuple(endings),
        _logits_processors(configuration, len(context.ids), model.device),
        guard,
        draws=random.Random(f"{seed} {number} {context.ids}"),
    )


def _logits_processors(
    configuration: GenerationConfig, prompt_length: int, device: torch.device
) -> LogitsProcessorList:
    """Return what `generate` would do to the logits of a greedy answer, in its order.

    Temperature and the cuts of sampling aren't among them: a request says how it wants to be sampled.

    Raises:
        InputError: The configuration asks for what isn't done here.
    """
    for name, neutral in _NOT_DECODED.items():
        value = getattr(configuration, name, None)
        if value is not None and value != neutral:
            raise InputError(f"generation_config.json: {name}: {value!r} isn't done here; leave it out of the file")
    where: dict[str, Any] = {"device": str(device)}
    processors = LogitsProcessorList()
    if configuration.sequence_bias:
        processors.append(SequenceBiasLogitsProcessor(configuration.sequence_bias))
    if configuration.repetition_penalty not in (None, 1):
        processors.append(RepetitionPenaltyLogitsProcessor(float(configuration.repetition_penalty)))
    if configuration.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(configuration.no_repeat_ngram_size))
    if configuration.bad_words_ids:
        processors.append(NoBadWordsLogitsProcessor(configuration.bad_words_ids, configuration.eos_token_id))
    if configuration.suppress_tokens:
        processors.append(SuppressTokensLogitsProcessor(configuration.suppress_tokens, **where))
    if configuration.begin_suppress_tokens:
        begin = configuration.begin_suppress_tokens
        processors.append(SuppressTokensAtBeginLogitsProcessor(begin, prompt_length, **where))
    return processors


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return what ends an answer: a chat model's turn ends otherwise than a text, and its checkpoint knows both."""
    shipped = model.generation_config.eos_token_id if model.generation_config else None
    ends = shipped if isinstance(shipped, list) else [shipped]
    return frozenset(token for token in [*ends, tokenizer.eos_token_id] if token is not None)


def choose(logits: torch.Tensor, jobs: Sequence[Job]) -> list[tuple[int, TokenLogprob | None]]:
    """Choose each job's next token from its row of `logits` (jobs x vocabulary)."""
    logits = logits.float()
    # Probabilities are told before any change: a guard's threshold is on the model's own.
    chosen = _processed(logits, jobs)
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


def _processed(logits: torch.Tensor, jobs: Sequence[Job]) -> torch.Tensor:
    if not any(job.processors for job in jobs):
        return logits
    rows = []
    # Row by row: what processors look at are the row's own tokens, and rows differ in length.
    for row, job in zip(logits.split(1), jobs, strict=True):
        ids = torch.tensor([job.context.ids + job.written], device=logits.device)
        rows.append(job.processors(cast(torch.LongTensor, ids), cast(torch.FloatTensor, row)))
    return torch.cat(rows)


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
