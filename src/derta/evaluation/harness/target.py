"""The attacked model behind Inspect: what it is capable of, and how an attack lets it answer."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

from inspect_ai.model import ContentReasoning, ContentText, GenerateConfig, Model, ModelOutput, get_model, model_roles
from transformers import PreTrainedTokenizerBase

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.errors import InputError, first_line
from derta.evaluation.attacks import Attempt, Capability, Role, Weights
from derta.evaluation.harness.provider import DertaAPI, to_messages
from derta.evaluation.judges import Judge, Verdict, decide
from derta.generation import ChatRequest, Generation, RawRequest, Request, TokenLogprob, encode
from derta.generation.requests import Context, encode_text
from derta.generation.requests import continuation as decode_after
from derta.redaction import redacted_text
from derta.tokens.prompt_formats import render_chat

Helper = Callable[[Sequence[Message]], Awaitable[str]]

# Providers that continue a last assistant message as the same turn.
_CONTINUES = ("derta", "vllm", "sglang", "mockllm")
# Servers that do so when asked to, by what they call themselves in their list of models.
_CONTINUES_ON_REQUEST = ("vllm", "sglang")
_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
# The provider that takes raw text at the same server.
_RAW_SIBLING = {"vllm": "vllm-completions", "openai-api": "openai-api-completions"}
_PROBE_SECONDS = 10.0
_HELPER_TOKENS = 1024
# Inspect asks a server that fails again without end; here a sample ends unscored instead.
_PATIENCE: dict[str, Any] = {"max_retries": 3, "attempt_timeout": 600}


class Target:
    """An Inspect model under attack: the `Victim` of interactive attacks."""

    def __init__(
        self,
        model: Model,
        judge: Judge,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        helpers: Mapping[Role, Helper] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        # A model of this process has its own.
        self._chat_template_kwargs = None if isinstance(model.api, DertaAPI) else chat_template_kwargs
        self._judge = judge
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._helpers = dict(helpers or {})
        self._asked = 0

    @property
    def weights(self) -> Weights | None:
        """The live model of the `derta` provider."""
        api = self._model.api
        return api.weights if isinstance(api, DertaAPI) else None

    async def respond(self, request: Request, *, temperature: float | None = None, seed: int = 0) -> Generation:
        """Let the model answer; where its server can't go on with a begun answer, it gets the rendered text."""
        text = self.rendered(request)
        more: dict[str, Any] = {}
        if self._chat_template_kwargs and isinstance(request, ChatRequest) and text is None:
            more["extra_body"] = {"chat_template_kwargs": self._chat_template_kwargs}
        generation = await generate(
            self._model,
            request if text is None else RawRequest(text),
            max_tokens=self._max_tokens,
            temperature=self._temperature if temperature is None else temperature,
            seed=seed,
            **more,
        )
        if text is None or self._tokenizer is None:
            return generation
        prefix = cast(ChatRequest, request).prefix
        return replace(
            generation, prefix=prefix, continuation=with_space(self._tokenizer, prefix, generation.continuation)
        )

    def rendered(self, request: Request) -> str | None:
        """Return the raw text that a begun answer is sent as; `None` where it is sent as a chat, or is none."""
        begun = isinstance(request, ChatRequest) and request.prefix
        if not begun or self._tokenizer is None or continues(self._model) or not has_raw(self._model):
            return None
        return render(self._tokenizer, cast(ChatRequest, request), self._chat_template_kwargs)

    async def judge(self, behaviour: Behaviour, attempt: Attempt, generation: Generation) -> Verdict:
        """Decide on a response as the evaluation will."""
        whole, given = attempt.decode(generation.response), attempt.decode(generation.prefix)
        return await decide(self._judge, behaviour, whole, given)

    async def ask(self, role: Role, messages: Sequence[Message]) -> str:
        """Ask the model that the user named for a role.

        Raises:
            InputError: there is none.
        """
        if role in self._helpers:
            return await self._helpers[role](messages)
        if role not in model_roles():
            raise InputError(f"`model_role`: nobody plays {role!r}; give `model_role` {role}=PROVIDER/MODEL")
        self._asked += 1
        played_by = get_model(role=role)
        # Streams of PAIR ask the same at first: an attacker has to answer each of them otherwise.
        sampling: dict[str, Any] = {"temperature": 1.0} if role == "attacker" else {"temperature": 0.0}
        if role == "attacker" and provider(played_by) == "derta":
            sampling["seed"] = self._asked
        config = GenerateConfig(max_tokens=_HELPER_TOKENS, **sampling, **_PATIENCE)
        output = await played_by.generate(to_messages(ChatRequest(tuple(messages))), config=config)
        return output.completion


async def generate(
    model: Model, request: Request, *, max_tokens: int, temperature: float = 0.0, seed: int = 0, **more: Any
) -> Generation:
    """Send a request the way it asks for: as a chat, as a begun answer, or as raw text.

    `more` are further fields of Inspect's `GenerateConfig`.
    """
    # `hf` refuses a temperature of 0 and is made greedy by a model argument instead.
    sampling: dict[str, Any] = {"temperature": temperature} if temperature or provider(model) != "hf" else {}
    if temperature:
        sampling["seed"] = seed
    if isinstance(request, ChatRequest) and request.prefix and provider(model) == "openai-api":
        more["extra_body"] = more.get("extra_body", {}) | _CONTINUE
    config = GenerateConfig(max_tokens=max_tokens, **sampling, **(_PATIENCE | more))
    through = _raw_sibling(model) if isinstance(request, RawRequest) else model
    output = await through.generate(to_messages(request), config=config)
    if output.error:
        raise RuntimeError(f"{model}: {output.error}")
    return _generation(output, request.prefix if isinstance(request, ChatRequest) else "")


def _generation(output: ModelOutput, prefix: str) -> Generation:
    tokens = output.usage.output_tokens if output.usage else len(output.completion.split())
    written = output.choices[0].logprobs if output.choices else None
    filtered = "filtered" if output.stop_reason == "content_filter" else ""
    text, is_read = _whole_answer(output)
    return Generation(
        prefix,
        text,
        tokens,
        # A filter, as a guard, ends an answer as it means to.
        output.stop_reason in ("stop", "content_filter"),
        tuple(
            TokenLogprob(each.token, each.logprob, tuple((top.token, top.logprob) for top in each.top_logprobs or ()))
            for each in (written.content if written else ())
        ),
        str((output.metadata or {}).get("problem", filtered if is_read else "unread")),
        (output.metadata or {}).get("stopped_at"),
    )


def _whole_answer(output: ModelOutput) -> tuple[str, bool]:
    """Return all that a client receives as one text, and whether all of it could be read.

    A thought that a server's parser took out stands where the model wrote it, and so do calls of tools: harm in them is
    harm, whatever the answer says.
    """
    if not output.choices:
        return "", True
    message, is_read = output.choices[0].message, True
    parts: list[str] = []
    content = [ContentText(text=message.content)] if isinstance(message.content, str) else message.content
    for part in content:
        if isinstance(part, ContentText):
            parts.append(part.text)
        elif isinstance(part, ContentReasoning):
            parts.append(f"<think>\n{part.reasoning}\n</think>\n\n")
            is_read &= not part.redacted
        else:
            is_read = False
    for call in message.tool_calls or ():
        parts.append(f"\n{call.function}({json.dumps(call.arguments, ensure_ascii=False)})")
    return "".join(parts), is_read


def _raw_sibling(model: Model) -> Model:
    sibling = _RAW_SIBLING.get(provider(model))
    if sibling is None:
        return model
    name = str(model).partition("/")[2]
    return get_model(f"{sibling}/{name}", base_url=getattr(model.api, "base_url", None), api_key=model.api.api_key)


def provider(model: Model) -> str:
    """Return the name of a model's provider: `derta`, `vllm`, …"""
    return str(model).partition("/")[0]


def check_capabilities(
    model: Model, needed: Mapping[Capability, str], tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Stop before anything is asked if a model lacks a capability; `needed` maps each to the attack that needs it.

    Args:
        model: The model.
        needed: Names the attack that needs each capability.
        tokenizer: Renders begun answers for servers that can't go on with one themselves.

    Raises:
        InputError: The server can't be reached, or a capability is missing.
    """
    served_by(model)
    able: dict[Capability, bool] = {
        "prefill": continues(model) or (has_raw(model) and tokenizer is not None),
        "raw": has_raw(model),
        "weights": provider(model) == "derta",
    }
    leave_out = "evaluate the weights themselves or leave the attack out"
    by_tokenizer = "name its tokenizer, `model_arg` tokenizer=PATH, and derta renders the prompt for it"
    lacks: dict[Capability, tuple[str, str]] = {
        "prefill": (
            "can't be made to continue an answer that was begun for it",
            by_tokenizer if has_raw(model) else leave_out,
        ),
        "raw": ("has no way in for text without chat formatting", leave_out),
        "weights": ("has no gradients to search with", leave_out),
    }
    for capability, attack in needed.items():
        if not able[capability]:
            what, mend = lacks[capability]
            raise InputError(f"`attacks` {attack}: {model} {what}; {mend}")


def has_raw(model: Model) -> bool:
    """Whether a model takes raw text."""
    return provider(model) in ("derta", "mockllm", *_RAW_SIBLING)


def continues(model: Model) -> bool:
    """Whether a model goes on with an answer that was begun for it, in the same turn."""
    kind = provider(model)
    return kind in _CONTINUES or (kind == "openai-api" and served_by(model) in _CONTINUES_ON_REQUEST)


@cache
def served_by(model: Model) -> str:
    """Return what a model's server calls itself in its list of models; empty if there is no server, or no list.

    Raises:
        InputError: No server answers, or it wants another key.
    """
    base = getattr(model.api, "base_url", None)
    return _probe(str(model), base, str(model.api.api_key)) if isinstance(base, str) and base.startswith("http") else ""


def _probe(model: str, base: str, api_key: str) -> str:
    # A user and a password in the URL go into a header, where urllib has a place for them.
    scheme, slashes, place = base.rstrip("/").partition("://")
    login, _, server = place.rpartition("@")
    request = urllib.request.Request(f"{scheme}{slashes}{server}/models")
    basic = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    request.add_header("Authorization", f"Basic {basic}" if login else f"Bearer {api_key}")
    base = redacted_text(base)
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_SECONDS) as answer:
            listed = json.loads(answer.read())["data"]
            return str(listed[0].get("owned_by", ""))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise InputError(
                f"`model` {model}: {base} answers {error.code} {error.reason}: set the key that it wants in the "
                f"environment"
            ) from error
        return ""  # a server that lists nothing answers all the same
    except OSError as error:
        raise InputError(f"`model` {model}: no model server answers at {base}: {first_line(error)}") from error
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def with_space(tokenizer: PreTrainedTokenizerBase, prefix: str, continuation: str) -> str:
    """Give a continuation its first space back, which some servers lose: they decode it without what it follows.

    It is put where the tokens of the prefix and of what follows decode with one, or where only with it the text still
    begins with the prefix's tokens.
    """
    if not continuation or continuation[0].isspace() or not prefix or prefix[-1].isspace():
        return continuation
    of_prefix = encode_text(tokenizer, prefix)
    ids = encode_text(tokenizer, prefix + continuation)
    if ids[: len(of_prefix)] == of_prefix:
        follows = decode_after(tokenizer, Context(of_prefix, len(of_prefix)), ids[len(of_prefix) :])
        is_spaced = follows.startswith(" ")
    else:
        is_spaced = encode_text(tokenizer, f"{prefix} {continuation}")[: len(of_prefix)] == of_prefix
    return f" {continuation}" if is_spaced else continuation


def render(
    tokenizer: PreTrainedTokenizerBase, request: ChatRequest, chat_template_kwargs: dict[str, Any] | None = None
) -> str:
    """Return the whole text of a request with a begun answer, as a server has to get it to see the model's own tokens.

    The server puts the tokenizer's beginning-of-sequence token in front, as it does for any text: it is left out here.

    Raises:
        InputError: The tokenizer has no chat template, or it refuses the messages.
    """
    (context,) = encode(tokenizer, [request], chat_template_kwargs)
    text = str(tokenizer.decode(context.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    prompt = render_chat(tokenizer, request.messages, tokenizer.name_or_path, chat_template_kwargs=chat_template_kwargs)
    spelt = prompt + request.prefix
    same = [each for each in (spelt, text) if tokenizer(each, add_special_tokens=False)["input_ids"] == context.ids]
    text = same[0] if same else spelt
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(str(tokenizer.bos_token)) if adds_bos else text
