"""What is `rejected` anywhere is learnt nowhere: the check over all sources of a run.

Texts are compared by their words: case, white space, punctuation, zero-width characters and the ways to write a
character (NFKC) make no difference. A `chosen` that is a rejected text, or holds one of six words or more, stops; so
does one that holds its own row's, from three words on. Limit: a paraphrase, a part of a rejected text, or a short one
inside a longer answer is not found, nor what has no spaces before and after it in Chinese or Japanese.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from derta.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# Words of a rejected text that is looked for inside other rows' responses, and inside its own row's.
_CONTAINED, _CONTAINED_OWN = 6, 3
_SHORT = 200  # characters that so few words have at most
_BATCH = 10_000

_PUNCTUATION = {code: " " for code in range(128) if not chr(code).isalnum()}
_INVISIBLE_RANGES = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E)),
    *((0x2060, 0x206F), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xE0000, 0xE01EF)),
)
_INVISIBLE = {code: None for first, last in _INVISIBLE_RANGES for code in range(first, last + 1)}
_WORD = re.compile(r"[^\W_]+")


def plain_words(text: str) -> list[str]:
    """Return the words by which texts are compared."""
    # Most texts are ASCII, where all of it is one pass.
    if text.isascii():
        return text.lower().translate(_PUNCTUATION).split()
    return _WORD.findall(unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold())


class Responses(NamedTuple):
    """The responses of a row, and where it stands."""

    origin: str
    chosen: str | None
    rejected: str | None


class RejectedTexts:
    """Index of all rejected texts of a run, by which a response that is or holds one is found.

    A text of many words is found inside another one by its longest word: what stands around each occurrence of that
    word is compared by its hash.
    """

    def __init__(self) -> None:
        self._origins: dict[int, str] = {}
        self._places: dict[str, set[tuple[int, int]]] = {}

    def add(self, row: Responses) -> None:
        """Index the rejected response of a row, if it has one."""
        words = plain_words(row.rejected or "")
        if not words:
            return
        self._origins.setdefault(hash(" ".join(words)), row.origin)
        if len(words) >= _CONTAINED:
            longest = max(words, key=len)
            self._places.setdefault(longest, set()).add((words.index(longest), len(words)))

    def problem(self, row: Responses) -> InputError | None:
        """Say what is wrong with a row whose `chosen` is or holds a rejected text."""
        if row.chosen is None or not self._origins:
            return None
        words = plain_words(row.chosen)
        text = " ".join(words)
        origin, verb = self._origins.get(hash(text)) if words else None, "is"
        if origin is None:
            origin, verb = self._find_contained(words), "holds"
        if origin is None and row.rejected and len(row.rejected) < _SHORT:
            own = plain_words(row.rejected)
            if len(own) >= _CONTAINED_OWN and f" {' '.join(own)} " in f" {text} ":
                origin = row.origin
        if origin is None:
            return None
        where = "its own row" if origin == row.origin else origin
        return InputError(
            f"{row.origin}: chosen {verb} the rejected response of {where} (case, spaces and punctuation aside), "
            f"which would be learnt; drop or mend one of them"
        )

    def _find_contained(self, words: list[str]) -> str | None:
        if self._places.keys().isdisjoint(words):
            return None
        for index, word in enumerate(words):
            for offset, length in self._places.get(word, ()):
                begin = index - offset
                if begin >= 0 and begin + length <= len(words):
                    origin = self._origins.get(hash(" ".join(words[begin : begin + length])))
                    if origin is not None:
                        return origin
        return None


def find_targets(sources: Sequence[Callable[[], Iterable[Responses]]]) -> Iterator[tuple[int, InputError]]:
    """Yield each response to learn that is or holds a rejected text of any source, with the number of its source.

    Args:
        sources: Begin to read the responses of each source; called twice.
    """
    rejected = RejectedTexts()
    for read in sources:
        for row in read():
            rejected.add(row)
    for number, read in enumerate(sources):
        for row in read():
            problem = rejected.problem(row)
            if problem is not None:
                yield number, problem


def check_targets(datasets: "Iterable[Dataset]") -> None:
    """Stop at the first response to learn that is or holds a rejected text of any of these canonical data sets.

    Raises:
        InputError: There is one; the message names its row and the other.
    """
    datasets = list(datasets)
    if all(dataset.data.column("rejected").null_count == len(dataset.data) for dataset in datasets):
        return
    for _, problem in find_targets([partial(_responses, dataset) for dataset in datasets]):
        raise problem


def _responses(dataset: "Dataset") -> Iterator[Responses]:
    rows = dataset.with_format("arrow")
    for begin in range(0, len(rows), _BATCH):
        table = rows[begin : begin + _BATCH]
        columns = (_contents(table.column(name).combine_chunks()) for name in ("chosen", "rejected"))
        yield from map(Responses, table.column("origin").to_pylist(), *columns)


def _contents(messages: "pa.ListArray") -> Iterator[str | None]:
    """Yield the text of each response, straight from the column: a dictionary for each takes ten times as long."""
    texts = iter(messages.flatten().field("content").to_pylist())
    for present in messages.is_valid().to_pylist():
        yield next(texts) if present else None
