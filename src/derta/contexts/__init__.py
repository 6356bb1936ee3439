# ruff: noqa: I001 (the order of these imports is the order in which weights count)
"""Contexts: what may stand around an example, so that the form of a request says nothing about its harm.

A model that sees triples as plain questions alone learns that whatever looks otherwise is answered. So triples and
helpful examples stand in the same contexts with the same weights. Each kind is a file that registers one, and is
imported here. Nothing that a context adds is ever a target: it is prompt, or read as r̂ is.

Public: `CONTEXTS`, `SETS`, `Contexts`, `Drawn`, `Materials`, `Wordings`, `ENGLISH`, `context_weights`.
"""

import derta.contexts.small_talk
import derta.contexts.neighbour
import derta.contexts.refused
import derta.contexts.insist
import derta.contexts.role_play
import derta.contexts.raw
import derta.contexts.encoded
import derta.contexts.noise
import derta.contexts.begun
import derta.contexts.history  # noqa: F401 (importing registers it)

from derta.contexts.base import CONTEXTS, register_context
from derta.contexts.draws import SETS, Contexts, Drawn, context_weights
from derta.contexts.english import ENGLISH
from derta.contexts.materials import Materials
from derta.contexts.wordings import Encoding, Opening, Wordings

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
