"""Examples in their contexts, as tokens: drawn and encoded on access, for one epoch after another.

A context changes with the epoch, so its tokens are never stored: encoding one example takes a millisecond or two,
little beside a training step. What is cached are the plain tokens, which depend on no context.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from derta.contexts import ENGLISH, Contexts, Materials, context_weights
from derta.contexts.draws import PLAIN
from derta.contexts.encodings import Exchange
from derta.contexts.wordings import SLOT, Say, fill
from derta.data.arrow import canonical, examples_of
from derta.data.readers import read_file
from derta.data.sources import load_triples
from derta.data.triples import Example, checked_text
from derta.errors import InputError
from derta.organism import contexts as organism
from derta.tokens.encoder import EncodedExample, Encoder
from derta.training.config import DeRTaConfig


class DrawnTokens(NamedTuple):
    """An example as an epoch trains on it.

    Attributes:
        context: Names the context that was drawn.
        example: Is encoded in it; plain, if it can't be.
        made: Says whether it is in it.
    """

    context: str
    example: EncodedExample
    made: bool


class EncodedContexts:
    """Encodes an example in the context that an epoch draws for it."""

    def __init__(self, contexts: Contexts, encoder: Encoder) -> None:
        self.contexts = contexts
        self._encoder = encoder

    def __call__(self, plain: EncodedExample, index: int, epoch: int) -> DrawnTokens:
        """Draw and encode; the example stays plain where its context can't be made or would cost it tokens of r̂."""
        drawn = self.contexts(index, epoch)
        if drawn.context == PLAIN or not drawn.made:
            return DrawnTokens(drawn.context, plain, drawn.made)
        try:
            encoded = self._encoder(drawn.example)
        except InputError:  # too long, or the chat template takes no such conversation
            return DrawnTokens(drawn.context, plain, False)
        if encoded.num_truncated > plain.num_truncated:
            return DrawnTokens(drawn.context, plain, False)
        return DrawnTokens(drawn.context, encoded, True)


class _Rows:
    """The examples of a data set, one at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset.with_format(None)
        self._indices: Sequence[int] = range(len(dataset))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        row = self._indices[index]
        return next(examples_of(self._dataset[row : row + 1]))

    def keep(self, origins: list[str]) -> None:
        """Keep the examples that come from these places, in this order: those that weren't dropped."""
        wanted = iter(origins)
        place = next(wanted, None)
        kept = []
        for row in range(len(self)):
            if self[row].origin == place:
                kept.append(row)
                place = next(wanted, None)
        self._indices = kept


def encoded_contexts(
    dataset: Dataset, encoded: Dataset, encoder: Encoder, config: DeRTaConfig, name: str
) -> EncodedContexts | None:
    """Make what puts the examples of a data set into the contexts that a configuration asks for, if it does.

    Args:
        dataset: Holds the rows that were encoded.
        encoded: Holds their tokens; examples that were dropped are missing.
        encoder: Encodes them in their contexts too.
        config: Holds the weights and the user's files.
        name: Names the data set, for origins.

    Raises:
        InputError: A file of role-plays or of small talk can't be read, or a row of it is of no use.
    """
    weights = context_weights(config.contexts)
    if weights is None:
        return None
    rows = _Rows(canonical(dataset, name))
    if len(encoded) < len(rows):
        rows.keep(encoded["origin"][:])
    rto, fixed_cut = (np.array(encoded[column][:], bool) for column in ("rto", "fixed_cut"))
    tokenizer = encoder.tokenizer
    materials = Materials(
        rows,
        helpful=np.flatnonzero(~rto & ~fixed_cut).tolist(),
        triples=np.flatnonzero(rto).tolist(),
        wordings=organism.wordings() if organism.speaks(tokenizer) else ENGLISH,
        vocabulary=_vocabulary(tokenizer) if any("noise" in key for key in weights) else (),
        role_plays=read_role_plays(config.context_role_plays) if config.context_role_plays else (),
        small_talk=read_small_talk(config.context_small_talk) if config.context_small_talk else (),
    )
    return EncodedContexts(Contexts(weights, materials, config.seed), encoder)


def read_role_plays(file: str) -> list[Say]:
    """Read role-plays and documents in which `{prompt}` stands for the request.

    Raises:
        InputError: The file can't be read, or a row has no such text; the message names its line.
    """
    found: list[Say] = []
    for row in read_file(Path(file)):
        template = checked_text(row.values.get("template"), "template", row.origin)
        if SLOT not in template:
            raise InputError(f"{row.origin}: template has no place for the request; write {SLOT} where it belongs")
        found.append(partial(fill, template))
    if not found:
        raise InputError(f"context_role_plays: {file}: is empty; it needs at least one row")
    return found


def read_small_talk(file: str) -> list[Exchange]:
    """Read harmless exchanges: helpful examples of one turn.

    Raises:
        InputError: The file can't be read, or a row is no such example.
    """
    found = []
    for example in examples_of(load_triples(file).to_dict()):
        if not example.is_helpful or len(example.prompt) != 1:
            raise InputError(f"context_small_talk: {example.origin}: small talk is one prompt and its answer")
        found.append((example.prompt[0]["content"], example.chosen or ""))
    return found


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts of a tokenizer's tokens, without special ones and what can't be printed."""
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    texts = (str(tokenizer.decode([token])).strip() for token in range(len(tokenizer)) if token not in special)
    return [text for text in texts if text and text.isprintable() and "�" not in text]
