"""Continuous batching: requests join and leave the batch one by one, and shared beginnings are computed once."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from transformers import PreTrainedModel

from derta.generation.jobs import Job, choose
from derta.generation.prefixes import arrange
from derta.generation.rows import Prefix, RowRunner

# Tokens of one pass over prompts: beyond it a pass is bound by arithmetic, and a larger one only takes memory.
_PREFILL_TOKENS = 2048
# Prompts that new ones are compared with, for beginnings that they share.
_REMEMBERED_PROMPTS = 256
# Tokens that a row is expected to grow by: room is made once for all of them.
_EXPECTED_GROWTH = 64
# Shared beginnings may take a fourth of the tokens that the rows may.
_SHARED_PART = 4
# A prompt joins a pass if its new tokens are at least this part of the longest's, less a few: the rest is padding.
_LEAST_FILLED, _FREE_PADDING = 0.8, 16


@dataclass(eq=False)
class _Entry:
    """A job that waits or runs.

    Attributes:
        job: the job.
        shared: lengths of its beginnings that are shared with others, ascending.
        length: how many of its tokens have their keys and values in its row.
    """

    job: Job
    shared: list[int]
    length: int = 0

    @property
    def ids(self) -> list[int]:
        return self.job.context.ids + self.job.written


_Begun = tuple[_Entry, int, Prefix]
"""An entry, how much of it is shared with others, and the keys and values of that."""


class BatchDecoder:
    """Runs many jobs in one batch.

    Args:
        model: of an architecture whose cache is keys and values of every token (see `decoding.unsupported`).
        batch_size: the most rows.
        max_batch_tokens: the most tokens of all rows, each counted with the longest one's.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int, max_batch_tokens: int) -> None:
        self._runner = RowRunner(model)
        self._limit = batch_size
        self._max_tokens = max_batch_tokens
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._arrived: list[Job] = []
        self._waiting: deque[_Entry] = deque()
        self._joining: list[_Entry] = []
        self._rows: list[_Entry] = []
        self._over: list[Job] = []
        self._remembered: deque[list[int]] = deque(maxlen=_REMEMBERED_PROMPTS)

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._arrived or self._waiting or self._rows or self._over)

    def add(self, job: Job) -> None:
        """Queue a job."""
        self._arrived.append(job)

    def clear(self) -> None:
        """Drop every job."""
        self._arrived, self._joining, self._rows, self._over = [], [], [], []
        self._waiting.clear()
        self._runner.reset()
        self._prefixes.clear()

    @torch.inference_mode()
    def step(self) -> list[Job]:
        """Let waiting jobs join if there is room, write one token of each job, and return the jobs that are over."""
        try:
            self._admit()
            self._decode()
        except torch.OutOfMemoryError:
            if not self._halve():
                raise
        over, self._over = self._over, []
        if not self._rows:
            self._runner.reset()
        return over

    def _admit(self) -> None:
        self._arrange()
        free = self._limit - len(self._rows)
        # A pass of its own for every job that could join would cost more than a few idle rows.
        if self._waiting and free >= min(len(self._waiting), max(1, self._limit // 8)):
            self._joining = self._next_wave()
            self._prefill()

    def _arrange(self) -> None:
        if not self._arrived:
            return
        prompts = [job.context.ids for job in self._arrived]
        arrangement = arrange(prompts, self._remembered)
        self._waiting += [_Entry(self._arrived[index], arrangement.shared[index]) for index in arrangement.order]
        self._remembered += prompts
        self._arrived = []

    def _next_wave(self) -> list[_Entry]:
        wave: list[_Entry] = []
        longest = max((entry.length for entry in self._rows), default=0)
        while self._waiting and len(self._rows) + len(wave) < self._limit:
            longest = max(longest, len(self._waiting[0].ids))
            count = len(self._rows) + len(wave) + 1
            if count > 1 and count * (longest + _EXPECTED_GROWTH) > self._max_tokens:
                break
            wave.append(self._waiting.popleft())
        return wave

    def _prefill(self) -> None:
        if self._joining:
            longest = max(len(entry.ids) for entry in self._joining)
            self._runner.cache.reserve(len(self._rows) + len(self._joining), longest + _EXPECTED_GROWTH)
        begun = [(entry, *self._share(entry)) for entry in self._joining]
        for group in _groups(begun):
            self._join(group)
        self._joining = []

    def _share(self, entry: _Entry) -> tuple[int, Prefix]:
        """Return the length of the longest shared beginning of an entry, and its keys and values."""
        start, prefix = 0, Prefix()
        for length in entry.shared:
            if length > self._max_tokens // _SHARED_PART:
                break
            key = tuple(entry.ids[:length])
            if key not in self._prefixes:
                row = len(self._rows)
                self._runner.cache.reserve(row + 1, length)
                self._runner.cache.write(row, 1, prefix, start)
                self._runner.forward(row, [list(key[start:])], [start])
                self._remember(key, self._runner.cache.read(row, length))
            self._prefixes.move_to_end(key)
            start, prefix = length, self._prefixes[key]
        return start, prefix

    def _remember(self, key: tuple[int, ...], prefix: Prefix) -> None:
        self._prefixes[key] = prefix
        while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > self._max_tokens // _SHARED_PART:
            self._prefixes.popitem(last=False)

    def _join(self, group: Sequence[_Begun]) -> None:
        first = len(self._rows)
        row = first
        for _, alike in groupby(group, key=lambda begun: id(begun[2])):
            members = list(alike)
            _, start, prefix = members[0]
            self._runner.cache.write(row, len(members), prefix, start)
            row += len(members)
        entries, starts = [entry for entry, *_ in group], [start for _, start, _ in group]
        logits = self._runner.forward(first, [entry.ids[start:] for entry, start, _ in group], starts)
        for entry in entries:
            entry.length = len(entry.ids)
        self._rows += entries
        self._write(first, logits)

    def _decode(self) -> None:
        if not self._rows:
            return
        longest = self._make_room()
        if longest > self._runner.cache.room:
            self._runner.cache.reserve(len(self._rows), longest + max(_EXPECTED_GROWTH, longest // 4))
        tokens = [[entry.job.written[-1]] for entry in self._rows]
        logits = self._runner.forward(0, tokens, [entry.length for entry in self._rows])
        for entry in self._rows:
            entry.length += 1
        self._write(0, logits)

    def _make_room(self) -> int:
        """Send rows back to wait if the next tokens don't fit with all of them; return the length of the longest."""
        longest = max(entry.length for entry in self._rows) + 1
        while len(self._rows) > 1 and len(self._rows) * longest > self._max_tokens:
            self._waiting.appendleft(self._rows.pop())
            longest = max(entry.length for entry in self._rows) + 1
        return longest

    def _write(self, first: int, logits: torch.Tensor) -> None:
        """Give the rows from `first` on their next tokens, and close up over those that are done."""
        jobs = [entry.job for entry in self._rows[first:]]
        for job, (token, logprob) in zip(jobs, choose(logits, jobs), strict=True):
            job.write(token, logprob)
        self._over += [job for job in jobs if job.over]
        kept = [entry for entry in self._rows if not entry.job.over]
        holes = [row for row, entry in enumerate(self._rows[: len(kept)]) if entry.job.over]
        movers = [row for row in range(len(kept), len(self._rows)) if not self._rows[row].job.over]
        if movers:
            self._runner.cache.move(movers, holes, max(self._rows[row].length for row in movers))
        for hole, mover in zip(holes, movers, strict=True):
            self._rows[hole] = self._rows[mover]
        del self._rows[len(kept) :]

    def _halve(self) -> bool:
        """Start again with half the rows after the memory ran out; `False` if there was but one."""
        under_way = [*self._rows, *(entry for entry in self._joining if entry not in self._rows)]
        under_way = [entry for entry in under_way if not entry.job.over]
        if len(under_way) <= 1:
            return False
        self._limit = len(under_way) // 2
        self._waiting.extendleft(reversed(under_way))
        self._rows, self._joining = [], []
        self._runner.reset()
        self._prefixes.clear()
        return True


def _groups(begun: Sequence[_Begun]) -> list[list[_Begun]]:
    """Put entries into passes of about equally many new tokens, those with the same beginning side by side."""
    groups: list[list[_Begun]] = []
    width = 0

    def new_tokens(one: _Begun) -> int:
        entry, start, _ = one
        return len(entry.ids) - start

    for one in sorted(begun, key=lambda one: (-new_tokens(one), id(one[2]))):
        tokens = new_tokens(one)
        if (
            not groups
            or tokens < _LEAST_FILLED * width - _FREE_PADDING
            or (len(groups[-1]) + 1) * width > _PREFILL_TOKENS
        ):
            groups.append([])
            width = tokens
        groups[-1].append(one)
    return groups
