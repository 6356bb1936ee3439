from derta.inference.generation import (
    ChatRequest,
    Generation,
    Message,
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
    "Generation",
    "Message",
    "RawRequest",
    "Request",
    "encode",
    "first_tokens",
    "generate",
    "load_model",
    "stream",
]
