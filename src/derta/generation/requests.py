"""What a model is asked and what it writes: a chat, a begun answer and raw text, as tokens and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from derta.data.triples import Example, Message
from derta.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_UNLIMITED = 2**62


class ContextFullError(InputError):
    """A request and the answer to it don't fit the model's context."""


@dataclass(frozen=True)
class ChatRequest:
    """Messages for the chat template and, optionally, how the assistant's turn has begun.

    Attributes:
        messages: the conversation; the last turn is the user's, or a finished one of the assistant's that the model
            is to judge.
        prefix: the beginning of the assistant's turn; the model continues the same turn.
    """

    messages: tuple[Message, ...]
    prefix: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether the assistant has answered, and the model is asked about the conversation."""
        return not self.prefix and bool(self.messages) and self.messages[-1]["role"] == "assistant"


@dataclass(frozen=True)
class RawRequest:
    """Text to be continued without any chat formatting.

    Attributes:
        text: what the model gets, after the tokenizer's own beginning-of-sequence token if it has such a rule.
    """

    text: str


Request = ChatRequest | RawRequest


@dataclass(frozen=True)
class TokenLogprob:
    """One token that a model wrote.

    Attributes:
        token: its text.
        logprob: its natural log-probability, before any temperature.
        top: the likeliest tokens at its place and their log-probabilities, likeliest first.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes:
        prefix: the begun answer of the request, empty if it had none.
        continuation: the model's own text. `prefix + continuation` is the whole response.
        tokens: how many tokens the model wrote, the end-of-turn token not counted.
        finished: whether it ended by itself, or at a stop text, within the limit.
        logprobs: of each of these tokens, if they were asked for.
        problem: what else made the model stop: `filtered` by its server, or `non-finite` logits.
        stopped_at: how many tokens were written when a guard stopped it and refused in the model's place; `None` if it
            didn't.
    """

    prefix: str
    continuation: str
    tokens: int
    finished: bool
    logprobs: tuple[TokenLogprob, ...] = ()
    problem: str = ""
    stopped_at: int | None = None

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
    tokenizer: "PreTrainedTokenizerBase",
    requests: Sequence[Request],
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[Context]:
    """Return the tokens of each request.

    A chat is encoded as in training, a begun answer as the beginning of a harmful response there: the tokenizer's
    template renders the prompt and writes every special token (none is added, so none is doubled), and the prefix is
    spliced in as tokens of the same turn. Raw text gets the tokenizer's own beginning-of-sequence token, if it has such
    a rule, and no other special token, even if the text spells one.

    Raises:
        InputError: the tokenizer has no chat template or the template refuses the messages; a raw request is empty.
    """
    context = request_encoder(tokenizer, chat_template_kwargs)
    return [context(request) for request in requests]


def request_encoder(
    tokenizer: "PreTrainedTokenizerBase", chat_template_kwargs: dict[str, Any] | None = None
) -> Callable[[Request], Context]:
    """Return what encodes one request after another as [`encode`] does: the chat template is studied once."""
    from derta.tokens.encoder import Encoder
    from derta.tokens.prompt_formats import render_chat

    make_encoder = cache(lambda: Encoder(tokenizer, _UNLIMITED, chat_template_kwargs=chat_template_kwargs))

    def context(request: Request) -> Context:
        if isinstance(request, RawRequest):
            text = encode_text(tokenizer, request.text)
            # What the tokenizer itself puts before a text: its beginning-of-sequence token or nothing.
            bos = [token for token in tokenizer("")["input_ids"][:1] if token == tokenizer.bos_token_id]
            if not bos + text:
                raise InputError(
                    "an empty raw prompt can't be continued: the tokenizer has no beginning-of-sequence token"
                )
            return Context(bos + text, len(text))
        if not tokenizer.chat_template:
            where = tokenizer.name_or_path
            raise InputError(
                f"{where}: the tokenizer has no chat template; save it with the one the model was tuned on"
            )
        messages = list(request.messages)
        if request.is_finished:
            # A whole conversation that the model is to judge: what comes next is the template's affair.
            rendered = render_chat(
                tokenizer, messages, tokenizer.name_or_path, chat_template_kwargs=chat_template_kwargs
            )
            return Context(list(tokenizer(rendered, add_special_tokens=False)["input_ids"]), 0)
        encoder = make_encoder()
        if not request.prefix:
            return Context(encoder.encode_prompt(messages), 0)
        example = encoder(Example(messages, chosen=None, rejected=request.prefix, harmful_prefix=None, origin="prompt"))
        return Context(example.prompt + example.rejected, len(example.rejected))

    return context


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the token ids of plain text; a special token that the text spells is text."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) if text else []


def first_tokens(tokenizer: "PreTrainedTokenizerBase", text: str, count: int) -> str:
    """Return the beginning of `text` that covers its first `count` tokens."""
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return text[: max((end for _, end in encoding["offset_mapping"][:count]), default=0)]


def continuation(tokenizer: "PreTrainedTokenizerBase", context: Context, ids: list[int]) -> str:
    """Decode `ids` after the text they follow: many tokenizers drop the space at the start of what they decode."""
    begun = context.ids[len(context.ids) - context.begun :]
    head, whole = decode(tokenizer, begun), decode(tokenizer, begun + ids)
    return whole[len(head) :] if whole.startswith(head) else decode(tokenizer, ids)


def decode(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    """Return the text of token ids, special tokens left out."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def check_room(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    requests: Sequence[Request],
    max_new_tokens: int,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> None:
    """Check that every request can be encoded and fits the model's context with `max_new_tokens` after it.

    Raises:
        InputError: One can't be encoded.
        ContextFullError: One doesn't fit.
    """
    for context in encode(tokenizer, requests, chat_template_kwargs):
        check_context(model, context, max_new_tokens)


def check_context(model: "PreTrainedModel", context: Context, max_new_tokens: int) -> None:
    """Check one encoded request: see [`check_room`]."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens: {max_new_tokens}; let the model write at least 1 token")
    length, limit = len(context.ids), getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and length + max_new_tokens > limit:
        raise ContextFullError(
            f"a prompt of {length} tokens and {max_new_tokens} new ones don't fit the model's context of {limit}"
        )
