"""Contexts: what may stand around an example, so that the form of a request says nothing about its harm.

A model that sees triples as plain questions alone learns that whatever looks otherwise is answered. So triples and
helpful examples stand in the same contexts with the same weights. Each kind is a function in `kinds.py`. Nothing that
a context adds is ever a target: it is prompt, or read as r̂ is.

Public: `CONTEXTS`, `SETS`, `Contexts`, `Drawn`, `Materials`, `Wordings`, `ENGLISH`, `context_weights`.
"""

from derta.contexts.draws import SETS, Contexts, Drawn, context_weights
from derta.contexts.encodings import Encoding
from derta.contexts.kinds import CONTEXTS, register_context
from derta.contexts.materials import Materials
from derta.contexts.wordings import ENGLISH, Opening, Wordings

__all__ = [
    "CONTEXTS",
    "ENGLISH",
    "SETS",
    "Contexts",
    "Drawn",
    "Encoding",
    "Materials",
    "Opening",
    "Wordings",
    "context_weights",
    "register_context",
]
