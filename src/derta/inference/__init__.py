from derta.inference.engine import Engine
from derta.inference.generation import generate, stream
from derta.inference.guarded import GuardedModel
from derta.inference.loading import load_model, load_tokenizer
from derta.inference.requests import (
    ChatRequest,
    Context,
    ContextFullError,
    Generation,
    RawRequest,
    Request,
    TokenLogprob,
    check_room,
    encode,
    first_tokens,
)

__all__ = [
    "ChatRequest",
    "Context",
    "ContextFullError",
    "Engine",
    "Generation",
    "GuardedModel",
    "RawRequest",
    "Request",
    "TokenLogprob",
    "check_room",
    "encode",
    "first_tokens",
    "generate",
    "load_model",
    "load_tokenizer",
    "stream",
]
