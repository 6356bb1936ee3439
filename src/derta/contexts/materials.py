"""What contexts are made of: the words of a language, the training data themselves, and what the user brings."""

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from derta.contexts.encodings import Exchange
from derta.contexts.wordings import Say, Wordings
from derta.data.similarity import Similarity
from derta.data.triples import Example

_CANDIDATES = 20_000
"""Helpful examples at most among which neighbours are sought: more would cost time at every access."""
_NEAREST = 4
"""Neighbours among which one is drawn."""
_TRIES = 16


class Examples(Protocol):
    """Examples that are read one at a time."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example: ...


class Materials:
    """What contexts are made of.

    Args:
        examples: Holds the training data.
        helpful: Says where its helpful examples are, as indices.
        triples: Says where its triples are.
        wordings: Holds the words of its language.
        vocabulary: Holds the texts of a tokenizer's tokens, for noise.
        role_plays: Stand beside those of `wordings`: the user's own.
        small_talk: Stands beside that of `wordings`.
    """

    def __init__(
        self,
        examples: Examples,
        helpful: Sequence[int],
        triples: Sequence[int],
        wordings: Wordings,
        vocabulary: Sequence[str] = (),
        role_plays: Sequence[Say] = (),
        small_talk: Sequence[Exchange] = (),
    ) -> None:
        self.examples = examples
        self.wordings = wordings
        self.vocabulary = vocabulary
        self.role_plays = (*wordings.role_plays, *role_plays)
        self.small_talk = (*wordings.small_talk, *small_talk)
        self._helpful, self._triples = helpful, triples

    def helpful(self, rng: random.Random, other_than: str) -> Exchange | None:
        """Draw a helpful example that is one question, another one than this, with its answer."""
        return self._draw(self._helpful, rng, other_than, "chosen")

    def refused(self, rng: random.Random, other_than: str) -> Exchange | None:
        """Draw the question and the safe response of another triple."""
        return self._draw(self._triples, rng, other_than, "chosen")

    def answered_harm(self, rng: random.Random, other_than: str) -> Exchange | None:
        """Draw the question and the harmful response of another triple."""
        return self._draw(self._triples, rng, other_than, "rejected")

    def neighbour(self, request: str, rng: random.Random) -> Exchange | None:
        """Draw one of the helpful examples whose questions are nearest to `request` by TF-IDF, with its answer."""
        if self._index is None:
            return None
        similarity, exchanges = self._index
        scores = similarity.to(request)
        near = np.argsort(-scores, kind="stable")[: 4 * _NEAREST].tolist()
        found = [exchanges[i] for i in near if scores[i] > 0 and exchanges[i][0] != request]
        return rng.choice(found[:_NEAREST]) if found else None

    def _draw(self, among: Sequence[int], rng: random.Random, other_than: str, response: str) -> Exchange | None:
        for _ in range(_TRIES if len(among) else 0):
            example = self.examples[int(rng.choice(among))]
            question, answer = question_of(example), getattr(example, response)
            if question is not None and question != other_than and answer is not None:
                return question, answer
        return None

    @cached_property
    def _index(self) -> tuple[Similarity, list[Exchange]] | None:
        """Helpful questions with their answers, compared when the first neighbour is sought."""
        some = self._helpful[:: max(1, len(self._helpful) // _CANDIDATES)]
        examples = [self.examples[int(index)] for index in some]
        exchanges = [(question_of(each) or "", each.chosen or "") for each in examples if question_of(each)]
        try:
            return Similarity([question for question, _ in exchanges]), exchanges
        except ValueError:  # no words at all
            return None


def question_of(example: Example) -> str | None:
    """Return the question of an example that is one user turn; `None` for any other."""
    (first, *others) = example.prompt
    return first["content"] if not others and first["role"] == "user" else None
