"""Generation with a model in this process; names are imported on first use, so that what only names them is quick."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from derta.generation.engine import Engine, generate, stream
    from derta.generation.loading import load_model, load_tokenizer
    from derta.generation.requests import (
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

_MODULES = {
    "Engine": "engine",
    "generate": "engine",
    "stream": "engine",
    "load_model": "loading",
    "load_tokenizer": "loading",
}
"""Where a name is; the others are in `requests`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'derta.generation' has no attribute {name!r}")
    return getattr(import_module(f"derta.generation.{_MODULES.get(name, 'requests')}"), name)
