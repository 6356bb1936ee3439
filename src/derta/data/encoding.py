"""Tokens of an example: prompt, safe response, harmful response, and the refusal token that fits a context.

The chat template renders the prompt and nothing else: r and r̂ are tokenised on their own and spliced as tokens, so no
template can rewrite them and a cut never changes the tokens around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, cast

from transformers import PreTrainedTokenizerBase

from derta.data.triples import Example, Message
from derta.errors import InputError

RefusalForm = Literal["context", "bare", "set"]

# What stands before a token decides its form: the end of the prompt, white space, or text that needs a space.
_PROBE_QUESTION, _PROBE_ANSWER = "probe question", "probe answer"
_LINE, _WORD = "\n", "a"


@dataclass(frozen=True)
class EncodedExample:
    """One example as token ids.

    Attributes:
        prompt: the rendered prompt q, up to where the response begins.
        chosen: r as it follows the prompt or white space, end-of-turn token included; empty if there is no r.
        chosen_after_text: r as it follows a word (with a leading space, where the tokenizer writes one).
        rejected: r̂ (or a fixed harmful prefix), without an end-of-turn token; empty for helpful examples.
        word_ends: number of tokens of r̂ at the end of each of its white-space words, where the release cuts; empty
            unless asked for.
        fixed_cut: r follows the whole of `rejected` and no cut is drawn (MLE rows of the release).
        rto: RTO applies to `rejected`.
        shortened: how many tokens of r̂ (or of a helpful response) did not fit.
        origin: where the example comes from, for messages.
    """

    prompt: list[int]
    chosen: list[int]
    chosen_after_text: list[int]
    rejected: list[int]
    word_ends: list[int]
    fixed_cut: bool
    rto: bool
    shortened: int
    origin: str

    @property
    def is_safety(self) -> bool:
        """Whether the example teaches refusal (a triple or half of one), not helpfulness."""
        return self.rto or self.fixed_cut


class EncodingSettings(Protocol):
    """What a configuration says about encoding."""

    max_length: int
    refusal_form: RefusalForm
    chat_template_kwargs: Any
    cut_policy: Literal["uniform", "release"]


class Encoder:
    """Turns examples into token ids with one tokenizer.

    Args:
        tokenizer: its chat template renders the prompt.
        max_length: tokens that prompt + r̂ + r may take: r̂ is shortened from its end to fit, r and the prompt never;
            helpful responses are shortened from their end.
        refusal_form: `bare` spells r after a cut as after the prompt (the release); otherwise a leading space
            follows the text before the cut.
        chat_template_kwargs: passed to the chat template (`{"enable_thinking": False}` for Qwen3).
        words: find where the words of r̂ end (for the release's cuts), which takes a second pass over it.

    Raises:
        InputError: the template drops or rewrites the prompt, or an example cannot fit into `max_length`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        refusal_form: RefusalForm = "context",
        chat_template_kwargs: dict[str, Any] | None = None,
        words: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.refusal_form = refusal_form
        self.chat_template_kwargs = chat_template_kwargs or {}
        self.words = words
        self._context_ids: dict[str, list[int]] = {}

    @classmethod
    def from_config(cls, tokenizer: PreTrainedTokenizerBase, config: "EncodingSettings") -> "Encoder":
        """Take the settings of a run."""
        kwargs = cast(dict[str, Any] | None, config.chat_template_kwargs)
        return cls(tokenizer, config.max_length, config.refusal_form, kwargs, config.cut_policy == "release")

    def __call__(self, example: Example) -> EncodedExample:
        """Encode one example."""
        prompt = self.encode_prompt(example.prompt, example.origin)
        chosen: list[int] = []
        after_text: list[int] = []
        if example.chosen is not None:
            chosen = self._after(self._turn.start, self._turn.lead + example.chosen) + self._turn.end
            after_text = chosen
            if self.refusal_form != "bare":
                after_text = self._after(_WORD, " " + example.chosen) + self._turn.end

        harmful = example.rejected if example.rejected is not None else example.harmful_prefix
        rejected, word_ends = self._encode_harmful(harmful) if harmful else ([], [])
        longest = max(len(chosen), len(after_text))
        room = self.max_length - len(prompt) - (longest if harmful is not None else 0)
        self._check_room(example, len(prompt), longest, room, harmful)

        shortened = 0
        if harmful is not None:
            shortened = max(0, len(rejected) - room)
            rejected = rejected[: len(rejected) - shortened]
            word_ends = [end for end in word_ends if end <= len(rejected)]
        elif len(chosen) > room:
            shortened = len(chosen) - room
            chosen = after_text = chosen[:room]
        return EncodedExample(
            prompt=prompt,
            chosen=chosen,
            chosen_after_text=after_text,
            rejected=rejected,
            word_ends=word_ends,
            fixed_cut=example.harmful_prefix is not None,
            rto=example.rejected is not None,
            shortened=shortened,
            origin=example.origin,
        )

    def encode_prompt(self, messages: Sequence[Message], origin: str = "prompt") -> list[int]:
        """Render `messages` with the generation prompt and tokenise them.

        Raises:
            InputError: the template fails on the messages, or does not show one of them as it is.
        """
        rendered = self._render(messages, origin, add_generation_prompt=True)
        at = 0
        for message in messages:
            content = message["content"].strip()
            at = rendered.find(content, at)
            if at < 0:
                raise InputError(
                    f"{origin}: prompt: the chat template drops or rewrites the {message['role']} message; "
                    "give another --prompt_format or change the template"
                )
            at += len(content)
        return self._ids(rendered + self._turn.hidden_lead)

    def token_in(self, text: str, context: Literal["start", "line", "word"]) -> int:
        """Return the one token that `text` is at the start of a response, after white space, or after a word.

        Raises:
            InputError: `text` is several tokens there; the message says which.
        """
        if context == "start":
            ids = self._after(self._turn.start, self._turn.lead + text)
        elif context == "line":
            ids = self._after(_LINE, text)
        else:
            ids = self._after(_WORD, " " + text)
        unknown = self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in ids
        if len(ids) != 1 or unknown:
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            places = {"start": "at the start of a response", "line": "after white space", "word": "after a word"}
            raise InputError(
                f"refusal_text: {text!r} is not one token of this tokenizer {places[context]}: it is {pieces}; "
                "name a text that is one token"
            )
        return ids[0]

    @cached_property
    def _turn(self) -> "_AssistantTurn":
        return _assistant_turn(self)

    def _render(self, messages: Sequence[Message], origin: str, add_generation_prompt: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": message["role"], "content": message["content"]} for message in messages],
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **self.chat_template_kwargs,
                )
            )
        except Exception as error:  # jinja2's own errors, and whatever a template calls
            reason = " ".join(str(error).split())
            raise InputError(f"{origin}: prompt: the chat template refuses these messages: {reason}") from error

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _after(self, context: str, text: str) -> list[int]:
        """Tokens of `text` as they are right after `context`."""
        if context not in self._context_ids:
            self._context_ids[context] = self._ids(context)
        before = self._context_ids[context]
        joined = self._ids(context + text)
        # A merge across the boundary would change tokens that are already there.
        return joined[len(before) :] if joined[: len(before)] == before else self._ids(text)

    def _encode_harmful(self, text: str) -> tuple[list[int], list[int]]:
        ids = self._after(self._turn.start, self._turn.lead + text)
        if not self.words:
            return ids, []
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        starts = [start for start, _ in offsets]
        # The context may add tokens before the first word (a lone space): they belong to it.
        added = len(ids) - len(starts)
        ends: list[int] = []
        token = 0
        position = 0
        for word in text.split():
            position = text.index(word, position) + len(word)
            while token < len(starts) and starts[token] < position:
                token += 1
            ends.append(min(max(token + added, 1), len(ids)))
        return ids, ends

    def _check_room(self, example: Example, prompt: int, chosen: int, room: int, harmful: str | None) -> None:
        if room >= (1 if harmful is None or harmful else 0):
            return
        needs = f"prompt has {prompt} tokens"
        if harmful is not None and chosen:
            needs += f" and chosen {chosen}"
        raise OverlongError(
            f"{example.origin}: {needs}: no room for the response in max_length {self.max_length}; "
            "raise --max_length, or drop such examples with --overlong_prompts drop"
        )


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


def _end_of_turn(encoder: Encoder, tail: str) -> list[int]:
    """Tokens that end an answer: up to the first special token of what the template writes after it."""
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    ids = encoder._ids(tail.rstrip())
    for index, token in enumerate(ids):
        if token in special:
            return ids[: index + 1]
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: neither the chat template nor the tokenizer ends an answer")
    return [*ids, int(tokenizer.eos_token_id)]
