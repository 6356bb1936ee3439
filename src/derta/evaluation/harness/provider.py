"""`derta/PATH`, a model provider for Inspect: a Hugging Face model in this process, batched, with three ways into it.

`inspect eval … --model derta/PATH` takes what `derta.generation.load_model` takes: a model or adapter directory, a hub
name, or `organism`. A chat goes through the chat template; a last message of the assistant is an answer begun for it,
and the model continues that very turn; a single user message with the metadata of `RAW` reaches the model without any
chat formatting. Generation is greedy unless the configuration sets a temperature.

Inspect's own `hf` provider closes a begun turn, has no raw path and fails at temperature 0.
"""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.attacks import Weights
from derta.evaluation.config import MAX_TOKENS
from derta.generation import ChatRequest, Engine, Generation, RawRequest, Request, load_model
from derta.generation.refusal import check_guard
from derta.guard.calibration import load_calibration
from derta.names import model_path
from derta.run_identity import check_trained_with, read_identity, template_options

RAW = {"raw": True}
"""Metadata of a user message that isn't to be formatted as a chat."""
FINISHED = {"finished": True}
"""Metadata of a last assistant message that is whole: the model is to judge it, not to go on with it."""
CONNECTIONS = 256
"""Requests that may wait at once: the engine sizes its batches itself."""


class DertaAPI(ModelAPI):
    """A model in this process, run by `derta.generation.Engine`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (Inspect's signature)
        *,
        device: str | None = None,
        dtype: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        guard: str | None = None,
        **unknown: Any,
    ) -> None:
        """Say which model; it is loaded when it is first used, for Inspect also makes instances just to look them up.

        Args:
            model_name: what `load_model` takes.
            base_url: unused, of Inspect's interface; so are `api_key` and `config`.
            api_key: unused.
            config: unused.
            device: defaults to the GPU if there is one.
            dtype: `bfloat16`, `float32`, …; defaults to the checkpoint's own on a GPU, to float32 on a CPU.
            chat_template_kwargs: defaults to what the model was tuned with, if derta tuned it.
            guard: a calibration of `derta guard calibrate`: answers at which the model would rather refuse are stopped.
            unknown: options that don't exist.

        Raises:
            InputError: an option is unknown or wrong.
        """
        if unknown:
            option = next(iter(unknown))
            raise InputError(
                f"`model_arg` {option}: no such option; there are device, dtype, chat_template_kwargs, guard"
            )
        super().__init__(model_name, base_url, api_key, [], config)
        if dtype is not None and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise InputError(f"`model_arg` dtype={dtype}: no such type; give bfloat16, float16 or float32")
        self._device, self._dtype = device, getattr(torch, dtype) if dtype else None
        self._chat_template_kwargs = chat_template_kwargs
        self.guard = load_calibration(Path(guard)) if guard else None
        self._starting = threading.Lock()
        self._started: tuple[Weights, Engine] | None = None

    @property
    def weights(self) -> Weights:
        """The model itself, loaded.

        Raises:
            InputError: it can't be loaded.
        """
        return self._running[0]

    @property
    def engine(self) -> Engine:
        """What answers; see `weights`."""
        return self._running[1]

    @property
    def _running(self) -> tuple[Weights, Engine]:
        with self._starting:
            if self._started is None:
                model, tokenizer = load_model(self.model_name, self._device, self._dtype)
                if self.guard:
                    check_guard(self.guard, self.model_name, tokenizer)
                tuned = tuned_with(self.model_name)
                check_trained_with(tuned, tokenizer, self.model_name)
                template_kwargs = self._chat_template_kwargs or template_options(tuned)
                engine = Engine(model, tokenizer, chat_template_kwargs=template_kwargs, guard=self.guard)
                self._started = Weights(model, tokenizer, template_kwargs, engine.exclusive), engine
            return self._started

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer one conversation; many at a time are batched."""
        if tools:
            raise InputError(f"derta/{self.model_name}: tools aren't supported")
        future = self.engine.submit(
            to_request(input),
            max_new_tokens=config.max_tokens or MAX_TOKENS,
            temperature=config.temperature or 0.0,
            seed=config.seed or 0,
            top_logprobs=(config.top_logprobs or 1) if config.logprobs else 0,
        )
        return _output(self.model_name, await asyncio.wrap_future(future))

    def max_tokens(self) -> int | None:
        """Return how many tokens an answer has at most by default."""
        return MAX_TOKENS

    def max_connections(self) -> int:
        """Return how many requests may wait at once."""
        return CONNECTIONS

    async def aclose(self) -> None:
        """Stop the engine, if it ever ran."""
        if self._started:
            self._started[1].close()


@modelapi(name="derta")
def derta() -> type[ModelAPI]:
    """Register the provider with Inspect."""
    return DertaAPI


def tuned_with(name: str) -> dict[str, Any]:
    """Read how a model was tuned from the `derta.json` that training leaves beside the weights, if there is one.

    Raises:
        InputError: the file is damaged.
    """
    return read_identity(Path(model_path(name))) or {}


def to_messages(request: Request) -> list[ChatMessage]:
    """Return a request in Inspect's form: see the module's first lines."""
    if isinstance(request, RawRequest):
        return [ChatMessageUser(content=request.text, metadata=dict(RAW))]
    messages = [_message(message) for message in request.messages]
    if request.is_finished:
        messages[-1].metadata = dict(FINISHED)
    return [*messages, ChatMessageAssistant(content=request.prefix)] if request.prefix else messages


def to_request(messages: Sequence[ChatMessage]) -> Request:
    """Undo `to_messages`.

    Raises:
        InputError: a raw message stands among others.
    """
    raw = [message for message in messages if (message.metadata or {}).get("raw")]
    if raw:
        if len(messages) != 1:
            raise InputError("a raw prompt is a single message: nothing can stand before or after it")
        return RawRequest(messages[0].text)
    last = messages[-1]
    begun = last.text if last.role == "assistant" and not (last.metadata or {}).get("finished") else ""
    turns = messages[:-1] if begun else messages
    return ChatRequest(tuple(cast(Message, {"role": turn.role, "content": turn.text}) for turn in turns), begun)


def _message(message: Message) -> ChatMessage:
    kinds: dict[str, Any] = {"user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem}
    return cast(ChatMessage, kinds[message["role"]](content=message["content"]))


def _output(name: str, generation: Generation) -> ModelOutput:
    written = [
        Logprob(
            token=each.token,
            logprob=each.logprob,
            top_logprobs=[TopLogprob(token=token, logprob=logprob) for token, logprob in each.top],
        )
        for each in generation.logprobs
    ]
    stopped = generation.stopped_at
    choice = ChatCompletionChoice(
        message=ChatMessageAssistant(content=generation.continuation, model=name, source="generate"),
        stop_reason="content_filter" if stopped is not None else "stop" if generation.finished else "max_tokens",
        logprobs=Logprobs(content=written) if written else None,
    )
    usage = ModelUsage(output_tokens=generation.tokens, total_tokens=generation.tokens)
    metadata: dict[str, Any] = {"problem": generation.problem} if generation.problem else {}
    metadata |= {"stopped_at": stopped} if stopped is not None else {}
    return ModelOutput(model=name, choices=[choice], usage=usage, metadata=metadata or None)
