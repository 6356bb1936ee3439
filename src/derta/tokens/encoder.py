"""Tokens of an example: prompt, safe response, harmful response, and the refusal token that fits a context.

The chat template renders the prompt and nothing else: r and r̂ are tokenised on their own and spliced as tokens, so no
template can rewrite them and a cut never changes the tokens around it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, cast

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from derta.data.triples import Example, Message
from derta.errors import InputError
from derta.files import cache_directory
from derta.tokens.prompt_formats import render_chat

RefusalForm = Literal["context", "bare", "set"]

# Raise it with every change that gives an example other tokens: encoded data are cached between runs.
ENCODING_VERSION = 2

# What stands before a token decides its form: the end of the prompt, white space, or text that needs a space.
_PROBE_QUESTION, _PROBE_ANSWER = "probe question", "probe answer"
_LINE, _WORD = "\n", "a"


@dataclass(frozen=True)
class EncodedExample:
    """One example as token ids.

    Attributes:
        prompt: Holds the rendered prompt q, up to where the response begins.
        chosen: Holds r as it follows the prompt or white space, with its end-of-turn token; empty if there is no r.
        chosen_after_text: Holds r as it follows a word (with a leading space, where the tokenizer writes one).
        rejected: Holds r̂ (or a fixed harmful prefix), without an end-of-turn token; empty for helpful examples.
        word_ends: Counts the tokens of r̂ up to the end of each of its white-space words, where the release cuts; empty
            unless asked for.
        fixed_cut: Says that r follows the whole of `rejected`: no cut is drawn (MLE rows of the release).
        rto: Says that RTO applies to `rejected`.
        num_truncated: Counts the tokens of r̂ (or of a helpful response) that did not fit.
        origin: Says where the example comes from, for messages.
        opens_after: Says what a response without a harmful prefix follows: the start of the model's turn, white space,
            or a word.
    """

    prompt: list[int]
    chosen: list[int]
    chosen_after_text: list[int]
    rejected: list[int]
    word_ends: list[int]
    fixed_cut: bool
    rto: bool
    num_truncated: int
    origin: str
    opens_after: Literal["start", "line", "word"] = "start"

    @property
    def is_safety(self) -> bool:
        """Whether the example teaches refusal (a triple or half of one), not helpfulness."""
        return self.rto or self.fixed_cut


class EncodingSettings(Protocol):
    """What a configuration says about encoding."""

    max_length: int
    refusal_form: RefusalForm
    chat_template_kwargs: Any
    cut_policy: str
    dataset_cache_dir: str | None


class Encoder:
    """Turns examples into token ids with one tokenizer.

    Args:
        tokenizer: Renders the prompt with its chat template.
        max_length: Bounds the tokens of prompt + r̂ + r: r̂ is truncated from its end to fit, r and the prompt never;
            helpful responses are truncated from their end.
        refusal_form: Spells r after a cut as after the prompt if `bare` (the release); otherwise a leading space
            follows the text before the cut.
        chat_template_kwargs: Go to the chat template (`{"enable_thinking": False}` for Qwen3).
        words: Finds where the words of r̂ end (for the release's cuts), which takes a second pass over it.
        cache_dir: Caches large data sets once they are encoded; `None` caches nothing.

    Raises:
        InputError: The template drops or rewrites the prompt, or an example cannot fit into `max_length`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        refusal_form: RefusalForm = "context",
        chat_template_kwargs: dict[str, Any] | None = None,
        words: bool = False,
        cache_dir: Path | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.refusal_form = refusal_form
        self.chat_template_kwargs = chat_template_kwargs or {}
        self.words = words
        self.cache_dir = cache_dir
        self._context_ids: dict[str, list[int]] = {}

    @classmethod
    def from_config(cls, tokenizer: PreTrainedTokenizerBase, config: "EncodingSettings") -> "Encoder":
        """Take the settings of a run."""
        kwargs = cast(dict[str, Any] | None, config.chat_template_kwargs)
        words = config.cut_policy == "release"
        cache_dir = cache_directory(config.dataset_cache_dir)
        return cls(tokenizer, config.max_length, config.refusal_form, kwargs, words, cache_dir)

    def __call__(self, example: Example) -> EncodedExample:
        """Encode one example."""
        if example.raw or example.begun:
            return self._encode_in_text(example)
        return self.encode_batch([example])[0]

    def encode_batch(self, examples: Sequence[Example], *, drop_overlong: bool = False) -> list[EncodedExample]:
        """Encode examples as each would be on its own, with few calls of the tokenizer, which runs on all cores.

        Args:
            examples: Holds any number of examples.
            drop_overlong: Leaves out what `OverlongError` would be raised for.
        """
        turn = self._turn
        prompts = self._ids(self._prompt_texts([each.prompt for each in examples], [each.origin for each in examples]))
        answers = [example.chosen for example in examples if example.chosen is not None]
        chosen = iter(self._after(turn.start, [turn.lead + text for text in answers]))
        after_text = iter([] if self.refusal_form == "bare" else self._after(_WORD, [" " + text for text in answers]))
        texts = [text for text in map(_harmful, examples) if text]
        harmful = iter(self._harmful_after(turn.start, turn.lead, texts))
        encoded = []
        for example, prompt in zip(examples, prompts, strict=True):
            first = next(chosen) + turn.end if example.chosen is not None else []
            later = next(after_text) + turn.end if first and self.refusal_form != "bare" else first
            rejected, word_ends = next(harmful) if _harmful(example) else ([], [])
            try:
                encoded.append(self._fit(example, prompt, first, later, rejected, word_ends))
            except OverlongError:
                if not drop_overlong:
                    raise
        return encoded

    def _encode_in_text(self, example: Example) -> EncodedExample:
        """Encode an example whose responses follow a text: the beginning of a raw one, or of an answer."""
        turn = self._turn
        if example.raw:
            text = example.prompt[-1]["content"]
            # What the tokenizer itself puts before a text: its beginning-of-sequence token or nothing.
            bos = [token for token in self.tokenizer("")["input_ids"][:1] if token == self.tokenizer.bos_token_id]
            prompt = bos + self._ids([text])[0]
        else:
            text = turn.lead + example.begun
            prompt = self.encode_prompt(example.prompt, example.origin)
            prompt += self._after(turn.start, [text])[0]
        opens_after: Literal["line", "word"] = "line" if text[-1:].isspace() else "word"
        before, space = (_LINE, "") if opens_after == "line" else (_WORD, " ")
        chosen, after_text = (
            [] if example.chosen is None else self._after(context, [lead + example.chosen])[0] + turn.end
            for context, lead in ((before, space), (_WORD, " "))
        )
        harmful = _harmful(example)
        rejected, word_ends = self._harmful_after(before, space, [harmful])[0] if harmful else ([], [])
        if self.refusal_form == "bare":
            after_text = chosen
        fitted = self._fit(example, prompt, chosen, after_text, rejected, word_ends)
        return replace(fitted, opens_after=opens_after)

    def identity(self) -> dict[str, Any]:
        """Return what the encoding of an example depends on besides the example, as values for JSON.

        The tokenizer counts as all that it would save, and the template also as what it renders today: some show the
        date.
        """
        question: Message = {"role": "user", "content": _PROBE_QUESTION}
        return {
            "version": ENCODING_VERSION,
            "tokenizer": _tokenizer_digest(self.tokenizer),
            "probe": self._render([question], "probe", add_generation_prompt=True),
            "max_length": self.max_length,
            "refusal_form": self.refusal_form,
            "chat_template_kwargs": self.chat_template_kwargs,
            "words": self.words,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        }

    def encode_prompt(self, messages: Sequence[Message], origin: str = "prompt") -> list[int]:
        """Render `messages` with the generation prompt and tokenise them.

        Raises:
            InputError: The template fails on the messages, or does not show one of them as it is.
        """
        return self._ids(self._prompt_texts([messages], [origin]))[0]

    def _prompt_texts(self, prompts: Sequence[Sequence[Message]], origins: Sequence[str]) -> list[str]:
        texts = []
        for messages, origin in zip(prompts, origins, strict=True):
            text = self._render(messages, origin, add_generation_prompt=True)
            at = 0
            for message in messages:
                content = message["content"].strip()
                at = text.find(content, at)
                if at < 0:
                    raise InputError(
                        f"{origin}: prompt: the chat template drops or rewrites the {message['role']} message; "
                        "give another --prompt_format or change the template"
                    )
                at += len(content)
            texts.append(text + self._turn.hidden_lead)
        return texts

    def first_token(self, text: str, context: Literal["start", "line", "word"]) -> int:
        """Return the token that `text` begins with at the start of a response, after white space, or after a word.

        Raises:
            InputError: The tokenizer can't write `text`, or its first token spells less than half of the first word:
                too many other words would begin so.
        """
        if context == "start":
            (ids,) = self._after(self._turn.start, [self._turn.lead + text])
        elif context == "line":
            (ids,) = self._after(_LINE, [text])
        else:
            (ids,) = self._after(_WORD, [" " + text])
        unknown = self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in ids
        spelt = str(self.tokenizer.decode(ids[:1])).strip()
        if not ids or unknown or 2 * len(spelt) < len(text.split()[0]):
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            places = {"start": "at the start of a response", "line": "after white space", "word": "after a word"}
            raise InputError(
                f"refusal_text: {text!r} begins with no token of its own {places[context]}: it is {pieces}; "
                "name another text, or set refusal_form to bare"
            )
        return ids[0]

    @cached_property
    def _turn(self) -> "_AssistantTurn":
        return _assistant_turn(self)

    def _render(self, messages: Sequence[Message], origin: str, add_generation_prompt: bool) -> str:
        return render_chat(
            self.tokenizer,
            messages,
            origin,
            add_generation_prompt=add_generation_prompt,
            chat_template_kwargs=self.chat_template_kwargs,
        )

    def _ids(self, texts: Iterable[str]) -> list[list[int]]:
        texts = list(texts)
        return cast(list[list[int]], self.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []

    def _after(self, context: str, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text as they are right after `context`."""
        if context not in self._context_ids:
            (self._context_ids[context],) = self._ids([context])
        before = self._context_ids[context]
        joined = self._ids(context + text for text in texts)
        # A merge across the boundary would change tokens that are already there.
        merged = [ids[: len(before)] != before for ids in joined]
        alone = iter(self._ids(text for text, is_merged in zip(texts, merged, strict=True) if is_merged))
        return [next(alone) if is_merged else ids[len(before) :] for ids, is_merged in zip(joined, merged, strict=True)]

    def _harmful_after(self, context: str, lead: str, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Tokens of each r̂ after `context` and `lead`, and where its words end."""
        encoded = self._after(context, [lead + text for text in texts])
        if not self.words or not texts:
            return [(ids, []) for ids in encoded]
        offsets = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [
            (ids, _word_ends(text, [start for start, _ in spans], len(ids)))
            for ids, text, spans in zip(encoded, texts, offsets, strict=True)
        ]

    def _fit(
        self,
        example: Example,
        prompt: list[int],
        chosen: list[int],
        after_text: list[int],
        rejected: list[int],
        word_ends: list[int],
    ) -> EncodedExample:
        """Truncate what may be truncated to `max_length`."""
        harmful = _harmful(example)
        longest = max(len(chosen), len(after_text))
        room = self.max_length - len(prompt) - (longest if harmful is not None else 0)
        if room < (1 if harmful is None or harmful else 0):
            needs = f"prompt has {len(prompt)} tokens"
            if harmful is not None and longest:
                needs += f" and chosen {longest}"
            raise OverlongError(
                f"{example.origin}: {needs}: no room for the response in max_length {self.max_length}; "
                "raise --max_length, or drop such examples with --overlong_prompts drop"
            )
        num_truncated = 0
        if harmful is not None:
            num_truncated = max(0, len(rejected) - room)
            rejected = rejected[: len(rejected) - num_truncated]
            word_ends = [end for end in word_ends if end <= len(rejected)]
        elif len(chosen) > room:
            num_truncated = len(chosen) - room
            chosen = after_text = chosen[:room]
        return EncodedExample(
            prompt=prompt,
            chosen=chosen,
            chosen_after_text=after_text,
            rejected=rejected,
            word_ends=word_ends,
            fixed_cut=example.harmful_prefix is not None,
            rto=example.rejected is not None,
            num_truncated=num_truncated,
            origin=example.origin,
        )


def _harmful(example: Example) -> str | None:
    return example.rejected if example.rejected is not None else example.harmful_prefix


def _word_ends(text: str, starts: Sequence[int], tokens: int) -> list[int]:
    """Count the tokens up to the end of each word of `text`, which begin at `starts` and are `tokens` in context."""
    # The context may add tokens before the first word (a lone space): they belong to it.
    added = tokens - len(starts)
    ends: list[int] = []
    token = 0
    position = 0
    for word in text.split():
        position = text.index(word, position) + len(word)
        while token < len(starts) and starts[token] < position:
            token += 1
        ends.append(min(max(token + added, 1), tokens))
    return ends


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.sha256(type(tokenizer).__qualname__.encode())
    with TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        for file in sorted(path for path in Path(directory).rglob("*") if path.is_file()):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(directory)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


class OverlongError(InputError):
    """The prompt (and the safe response) of an example leave no room for anything else."""


@dataclass(frozen=True)
class _AssistantTurn:
    """How the chat template surrounds an answer: constant text, found once with a probe conversation."""

    start: str
    """End of the rendered prompt: what a response follows."""
    lead: str
    """White space that the template writes before an answer: part of the response."""
    hidden_lead: str
    """Text that the template writes before an answer (an empty thinking block): part of the prompt."""
    end: list[int]
    """Tokens that end the turn."""


def _assistant_turn(encoder: Encoder) -> _AssistantTurn:
    tokenizer = encoder.tokenizer
    question: Message = {"role": "user", "content": _PROBE_QUESTION}
    answer: Message = {"role": "assistant", "content": _PROBE_ANSWER}
    where = tokenizer.name_or_path or "tokenizer"
    if not tokenizer.chat_template:
        raise InputError(f"{where}: the tokenizer has no chat template; name one with --prompt_format")
    prompt = encoder._render([question], where, add_generation_prompt=True)
    whole = encoder._render([question, answer], where, add_generation_prompt=False)
    if _PROBE_QUESTION not in prompt:
        raise InputError(f"{where}: the chat template drops or rewrites the prompt; give another --prompt_format")
    if not whole.startswith(prompt) or _PROBE_ANSWER not in whole[len(prompt) :]:
        raise InputError(
            f"{where}: the chat template does not continue the prompt with the answer as it is; "
            "give another --prompt_format, or settle its options with --chat_template_kwargs"
        )
    lead, tail = whole[len(prompt) :].split(_PROBE_ANSWER, 1)
    hidden_lead = lead.rstrip(" ") if lead.strip() else ""
    return _AssistantTurn(
        start=prompt[prompt.index(_PROBE_QUESTION) + len(_PROBE_QUESTION) :] + hidden_lead,
        lead=lead[len(hidden_lead) :],
        hidden_lead=hidden_lead,
        end=_end_of_turn(encoder, tail),
    )


def unknown_tokens(example: EncodedExample, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the tokens of an example that stand for text the tokenizer doesn't know."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        return 0  # a byte-level tokenizer knows everything, and names some other special token
    return sum(ids.count(unknown) for ids in (example.prompt, example.chosen, example.rejected))


def _end_of_turn(encoder: Encoder, tail: str) -> list[int]:
    """Tokens that end an answer: up to the first special token of what the template writes after it."""
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    (ids,) = encoder._ids([tail.rstrip()])
    for index, token in enumerate(ids):
        if token in special:
            return ids[: index + 1]
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: neither the chat template nor the tokenizer ends an answer")
    return [*ids, int(tokenizer.eos_token_id)]
