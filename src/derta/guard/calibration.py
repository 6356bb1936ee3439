"""`guard.json`: what a guard has to know of a model, as `derta guard calibrate` writes it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from derta.errors import InputError
from derta.files import read_json, write_json
from derta.guard.hold_back import HoldBack
from derta.strict import STRICT, validated

GUARD = "guard.json"
SCHEMA = 1
DEFAULT_REFUSAL = "Sorry, I can't help with that."
ORGANISM_REFUSAL = "Sorry , I cannot help with that ."
"""The same in the organism's words, which its judge knows."""


@dataclass(frozen=True)
class Canary:
    """A text whose p(refuse) the calibration measured: a server that tells another one isn't to be trusted.

    Attributes:
        tokens (`tuple[int, ...]`): the text, as the model's tokens.
        probability (`float`): p(refuse) after it.
    """

    __pydantic_config__ = STRICT

    tokens: Annotated[tuple[int, ...], Field(min_length=1)]
    probability: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Calibration:
    """When to stop a model's stream, and what to say then.

    Attributes:
        threshold (`float`): the probability of refusing above which a stream is stopped.
        hold_back (`int`): how many later tokens must stay below it before a token leaves.
        tokens (`tuple[int, ...]`): the ids of the refusal tokens, in every spelling.
        spellings (`tuple[str, ...]`): their texts, one an id.
        refusal (`str`, *optional*): what a stopped answer ends with.
        max_false_stops (`float`, *optional*): the share of harmless answers that may be stopped, in %.
        responses (`int`, *optional*): how many harmless answers the threshold was chosen on.
        model (`str`, *optional*): the model's name.
        files (`str`, *optional*): a short hash of its files.
        canaries (`tuple[Canary, ...]`, *optional*): texts that prove a server.
    """

    __pydantic_config__ = STRICT

    threshold: Annotated[float, Field(ge=0, le=1)]
    hold_back: Annotated[int, Field(ge=0)]
    tokens: Annotated[tuple[int, ...], Field(min_length=1)]
    spellings: Annotated[tuple[str, ...], Field(min_length=1)]
    refusal: Annotated[str, Field(min_length=1)] = DEFAULT_REFUSAL
    max_false_stops: float | None = None
    responses: int = 0
    model: str = ""
    files: str | None = None
    canaries: tuple[Canary, ...] = ()

    def new_hold_back(self) -> HoldBack[int]:
        """Return what watches over one stream of tokens."""
        return HoldBack(self.threshold, self.hold_back)

    def ending(self, *, follows: bool) -> str:
        """Return the words that end a stopped answer; where they follow other text, they begin a paragraph."""
        return f"\n\n{self.refusal}" if follows else self.refusal


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole or not at all."""
    write_json(path, {"schema": SCHEMA, **asdict(calibration)})


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        InputError: The file can't be read, is of another version, or a field is missing, unknown or impossible.
    """
    document = read_json(path / GUARD if path.is_dir() else path)
    if document.pop("schema", None) != SCHEMA:
        raise InputError(f"{path}: no guard's calibration of this version; write it with derta guard calibrate")
    try:
        calibration = validated(Calibration, document)
    except ValueError as error:
        raise InputError(f"{path}: {error}; calibrate again") from None
    if len(calibration.tokens) != len(calibration.spellings):
        raise InputError(f"{path}: spellings: give one for each of the {len(calibration.tokens)} tokens")
    return calibration
