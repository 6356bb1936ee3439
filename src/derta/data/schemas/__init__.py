"""Schemas: which columns a public data set has, and what its rows become.

Every schema turns rows into canonical ones (`prompt`, `chosen`, `rejected`, and `harmful_prefix` for the DeRTa
release). What it can't use it counts, with the reason. A schema of your own is a file with a `SCHEMA`, which
`--schema FILE.py` names; one that everybody should have is a line in `SCHEMAS` more.
"""

from derta.data.schemas.chats import MESSAGES, SHAREGPT
from derta.data.schemas.plain import (
    ALPACA,
    CIRCUIT_BREAKERS,
    LLAMA_FACTORY,
    PREFERENCE,
    PROMPT_COMPLETION,
)
from derta.data.schemas.safety import BEAVERTAILS, DERTA_RELEASE, PKU_SAFERLHF, WILDJAILBREAK
from derta.data.schemas.schema import Schema, each, flag, pairs, text

__all__ = ["PREFERENCE", "SCHEMAS", "Schema", "each", "flag", "pairs", "text"]

# A row belongs to the first of these whose required columns it has and whose values fit.
SCHEMAS: tuple[Schema, ...] = (
    LLAMA_FACTORY,
    MESSAGES,
    SHAREGPT,
    PREFERENCE,
    CIRCUIT_BREAKERS,
    PKU_SAFERLHF,
    BEAVERTAILS,
    WILDJAILBREAK,
    DERTA_RELEASE,
    ALPACA,
    PROMPT_COMPLETION,
)
