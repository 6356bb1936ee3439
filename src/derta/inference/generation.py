"""Batched greedy generation, with the three ways into a model: a chat, a begun answer, and raw text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from derta.data.encoding import Encoder
from derta.data.triples import Example, Message
from derta.errors import InputError

_UNLIMITED = 2**62


@dataclass(frozen=True)
class ChatRequest:
    """Messages for the chat template and, optionally, how the assistant's turn has begun.

    Attributes:
        messages: the conversation; the last turn is the user's.
        prefix: the beginning of the assistant's turn; the model continues the same turn.
    """

    messages: tuple[Message, ...]
    prefix: str = ""


@dataclass(frozen=True)
class RawRequest:
    """Text to be continued without any chat formatting.

    Attributes:
        text: what the model gets, after the tokenizer's own beginning-of-sequence token if it has such a rule.
    """

    text: str


Request = ChatRequest | RawRequest


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes:
        prefix: the begun answer of the request, empty if it had none.
        continuation: the model's own text. `prefix + continuation` is the whole response.
        tokens: how many tokens the model wrote, the end-of-turn token not counted.
        finished: whether it ended by itself within the limit.
    """

    prefix: str
    continuation: str
    tokens: int
    finished: bool

    @property
    def response(self) -> str:
        """The whole response: what a judge decides on."""
        return self.prefix + self.continuation


@dataclass(frozen=True)
class Context:
    """The tokens that a model continues; the last `begun` of them belong to the text that its own follows."""

    ids: list[int]
    begun: int


def encode(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request], chat_template_kwargs: dict[str, Any] | None = None
) -> list[Context]:
    """Return the tokens of each request.

    A chat is encoded as in training, a begun answer as the beginning of a harmful response there: the tokenizer's
    template renders the prompt and writes every special token (none is added, so none is doubled), and the prefix is
    spliced in as tokens of the same turn. Raw text gets the tokenizer's own beginning-of-sequence token, if it has such
    a rule, and no other special token, even if the text spells one.

    Raises:
        InputError: the tokenizer has no chat template or the template refuses the messages; a raw request is empty.
    """
    if not tokenizer.chat_template and any(isinstance(request, ChatRequest) for request in requests):
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; save it with the one the model was tuned on"
        )
    encoder = Encoder(tokenizer, _UNLIMITED, chat_template_kwargs=chat_template_kwargs)
    return [
        _encode_chat(encoder, request) if isinstance(request, ChatRequest) else _encode_raw(tokenizer, request)
        for request in requests
    ]


def _encode_chat(encoder: Encoder, request: ChatRequest) -> Context:
    messages = list(request.messages)
    if not request.prefix:
        return Context(encoder.encode_prompt(messages), 0)
    example = encoder(Example(messages, chosen=None, rejected=request.prefix, harmful_prefix=None, origin="prompt"))
    return Context(example.prompt + example.rejected, len(example.rejected))


def _encode_raw(tokenizer: PreTrainedTokenizerBase, request: RawRequest) -> Context:
    text = encode_text(tokenizer, request.text)
    ids = _bos(tokenizer) + text
    if not ids:
        raise InputError("an empty raw prompt can't be continued: the tokenizer has no beginning-of-sequence token")
    return Context(ids, len(text))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of plain text; a special token that the text spells is text."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) if text else []


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> str:
    """Return the beginning of `text` that covers its first `count` tokens."""
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return text[: max((end for _, end in encoding["offset_mapping"][:count]), default=0)]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    max_new_tokens: int = 256,
    batch_size: int = 32,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[Generation]:
    """Continue every request greedily; results come in the order of the requests.

    The batch is a matter of speed only: each output is what the request would get alone (up to rounding).

    Raises:
        InputError: a request can't be encoded, or doesn't fit the model's context with `max_new_tokens`.
    """
    results = dict(stream(model, tokenizer, requests, max_new_tokens, batch_size, chat_template_kwargs))
    return [results[index] for index in range(len(requests))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    max_new_tokens: int = 256,
    batch_size: int = 32,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Iterator[tuple[int, Generation]]:
    """Yield `(index, generation)` as batches finish, the longest requests first: see [`generate`]."""
    contexts = encode(tokenizer, requests, chat_template_kwargs)
    _check_room(model, max((len(context.ids) for context in contexts), default=0), max_new_tokens)
    # Longest first: memory runs out at once or never.
    order = sorted(range(len(requests)), key=lambda index: -len(contexts[index].ids))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        outputs = _generate_batch(model, tokenizer, [contexts[index].ids for index in batch], max_new_tokens)
        for index, (ids, finished) in zip(batch, outputs, strict=True):
            request = requests[index]
            prefix = request.prefix if isinstance(request, ChatRequest) else ""
            yield index, Generation(prefix, _continuation(tokenizer, contexts[index], ids), len(ids), finished)


def _generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[tuple[list[int], bool]]:
    """Return for each prompt the new token ids, without the end token, and whether there was one."""
    ends = _end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0)
    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in prompts])
    attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    greedy: dict[str, Any] = {"do_sample": False, "use_cache": True, "max_new_tokens": max_new_tokens}
    config = GenerationConfig(**greedy, eos_token_id=sorted(ends) or None, pad_token_id=pad)
    with _own_generation_config(model, config), torch.inference_mode():
        output = model.generate(  # type: ignore[operator]
            input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device)
        )
    return [_until_end(row, ends) for row in output[:, width:].tolist()]


@contextmanager
def _own_generation_config(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Generate with `config` alone, in evaluation mode.

    `generate` fills what a given configuration leaves open from the checkpoint's, and some checkpoints ship a
    repetition penalty: that wouldn't be greedy decoding.
    """
    shipped, training = model.generation_config, model.training
    model.generation_config = config
    model.train(False)
    try:
        yield
    finally:
        model.generation_config = shipped
        model.train(training)


def _continuation(tokenizer: PreTrainedTokenizerBase, context: Context, ids: list[int]) -> str:
    """Decode `ids` after the text they follow: many tokenizers drop the space at the start of what they decode."""
    begun = context.ids[len(context.ids) - context.begun :]
    head, whole = _decode(tokenizer, begun), _decode(tokenizer, begun + ids)
    return whole[len(head) :] if whole.startswith(head) else _decode(tokenizer, ids)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _until_end(ids: list[int], ends: set[int]) -> tuple[list[int], bool]:
    for position, token in enumerate(ids):
        if token in ends:
            return ids[:position], True
    return ids, False


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Chat models end a turn with another token than a text: the checkpoint's generation config knows both."""
    shipped: Any = model.generation_config.eos_token_id if model.generation_config else None
    ends = set(shipped) if isinstance(shipped, list) else {shipped}
    return {token for token in ends | {tokenizer.eos_token_id} if token is not None}


def _bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what the tokenizer itself puts before a text: its beginning-of-sequence token or nothing."""
    return [token for token in tokenizer("")["input_ids"][:1] if token == tokenizer.bos_token_id]


def _check_room(model: PreTrainedModel, longest: int, max_new_tokens: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest and limit is not None and longest + max_new_tokens > limit:
        raise InputError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones don't fit the model's context of {limit}"
        )
