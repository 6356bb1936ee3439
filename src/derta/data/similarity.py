"""Which of many texts are most like one: cosine of TF-IDF vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Similarity:
    """Compares texts with those that it is made of.

    Args:
        texts: Are compared with, in this order.

    Raises:
        ValueError: They hold no words.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # Importing it takes a second, and most runs don't need it.
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer: Any = TfidfVectorizer(sublinear_tf=True)
        self._vectors = self._vectorizer.fit_transform(texts)

    def to(self, text: str) -> np.ndarray:
        """Return how like each of them a text is, from 0 to 1."""
        scores: np.ndarray = (self._vectors @ self._vectorizer.transform([text]).T).toarray().ravel()
        return scores
