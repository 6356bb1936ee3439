from derta.inference.generation import (
    ChatRequest,
    Context,
    Generation,
    RawRequest,
    Request,
    encode,
    first_tokens,
    generate,
    stream,
)
from derta.inference.loading import load_model

__all__ = [
    "ChatRequest",
    "Context",
    "Generation",
    "RawRequest",
    "Request",
    "encode",
    "first_tokens",
    "generate",
    "load_model",
    "stream",
]
