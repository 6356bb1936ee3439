"""Keys and values of many sequences of different lengths, each in a row of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from derta.attention_masks import LayerMasks, additive

Prefix = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of one beginning, a pair for each layer, each heads x tokens x width."""


@dataclass
class _Place:
    """Where the next forward pass writes and reads; shared by all layers.

    Attributes:
        rows: how many rows are kept.
        room: how many tokens of each, and one more that takes what padding leaves behind.
        first: the first row of the pass.
        slots: where in its row each token goes (rows of the pass x tokens).
        width: how much of a row is read.
    """

    rows: int = 0
    room: int = 0
    first: int = 0
    slots: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    width: int = 0


class _RowLayer(CacheLayerMixin):
    """One layer: row r holds the keys of a sequence from its first token on, `keys[r, head, token]`."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, place: _Place) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = place

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate; zeros, because a masked NaN would still be one."""
        place = self._place
        self.keys, self.values = (
            new.new_zeros(place.rows, new.shape[1], place.room + 1, new.shape[3]) for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values into their slots and return the rows of the pass, old and new."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self._place
        slots = place.slots.to(key_states.device)
        count, tokens = slots.shape
        rows = torch.arange(place.first, place.first + count, device=slots.device)[:, None].expand(count, tokens)
        read = []
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            kept[rows, :, slots] = new.transpose(1, 2)
            read.append(kept[place.first : place.first + count, :, : place.width])
        return read[0], read[1]

    def grow(self) -> None:
        """Move to larger buffers."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(self._place.rows, old.shape[1], self._place.room + 1, old.shape[3])
            new[: old.shape[0], :, : old.shape[2] - 1] = old[:, :, :-1]
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Unused: every pass brings its own mask."""
        return self._place.width, 0

    def get_seq_length(self) -> int:
        """Unused: every pass brings its own positions."""
        return self._place.width

    def get_max_length(self) -> int:
        """Rows grow as they need to."""
        return -1


class RowCache(Cache):
    """A key-value cache whose rows have lengths of their own, are filled in place and can be moved.

    Unlike `DynamicCache` it is never copied to append a token, and a sequence joins or leaves without the others.
    Layers with a sliding window keep everything too; the mask hides what is out of their sight.
    """

    def __init__(self) -> None:
        self._place = _Place()
        super().__init__(layer_class_to_replicate=partial(_RowLayer, self._place))  # type: ignore[arg-type]

    @property
    def _kept(self) -> list[_RowLayer]:
        return cast(list[_RowLayer], self.layers)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._place.rows

    @property
    def room(self) -> int:
        """How many tokens a row holds."""
        return self._place.room

    @property
    def bytes_per_token(self) -> int:
        """What one token of one row takes; known once a pass has been made."""
        return sum(kept[0, :, 0].nbytes for layer in self._kept for kept in (layer.keys, layer.values))

    def reserve(self, rows: int, room: int) -> None:
        """Make place for so many rows of so many tokens."""
        place = self._place
        if rows <= place.rows and room <= place.room:
            return
        place.rows, place.room = max(rows, place.rows), max(room, place.room)
        for layer in self._kept:
            layer.grow()

    def aim(self, first: int, slots: torch.Tensor, width: int) -> None:
        """Set where the next pass writes (`slots`: its rows from `first` on x tokens) and how far it reads.

        A slot of −1 is padding's: it is never read.
        """
        place = self._place
        place.first, place.width = first, width
        place.slots = torch.where(slots < 0, place.room, slots)

    def move(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """Copy the first `width` tokens of some rows over others."""
        for layer in self._kept:
            for kept in (layer.keys, layer.values):
                kept[list(targets), :, :width] = kept[list(sources), :, :width]

    def read(self, row: int, width: int) -> Prefix:
        """Return a copy of the first `width` tokens of a row."""
        return [(layer.keys[row, :, :width].clone(), layer.values[row, :, :width].clone()) for layer in self._kept]

    def write(self, first: int, count: int, prefix: Prefix, width: int) -> None:
        """Begin `count` rows with the first `width` tokens of `prefix`."""
        if not width:
            return
        while len(self.layers) < len(prefix):
            self.layers.append(_RowLayer(self._place))
        for layer, (keys, values) in zip(self._kept, prefix, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[first : first + count, :, :width] = keys[:, :width]
            layer.values[first : first + count, :, :width] = values[:, :width]


class RowRunner:
    """A model and the rows it works on.

    Attributes:
        cache: the rows.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._of_layers = LayerMasks(model.config)
        self.cache = RowCache()

    def reset(self) -> None:
        """Give the memory of all rows back."""
        if self.cache.layers:
            self.cache = RowCache()

    def forward(self, first: int, tokens: Sequence[list[int]], starts: Sequence[int]) -> torch.Tensor:
        """Run new tokens of the rows from `first` on, each at its row's start, and return the logits after the last.

        Shorter ones are padded on the left; padding stands at the row's first position and leaves nothing behind.
        """
        width = max(map(len, tokens))
        pads = [width - len(row) for row in tokens]
        ids = torch.tensor([[0] * pad + row for pad, row in zip(pads, tokens, strict=True)])
        slots = torch.arange(width) + torch.tensor(starts)[:, None] - torch.tensor(pads)[:, None]
        slots = torch.where(torch.arange(width) < torch.tensor(pads)[:, None], -1, slots)
        device = self._model.device
        ids, slots = ids.to(device), slots.to(device)
        read = max(start + len(row) for start, row in zip(starts, tokens, strict=True))
        self.cache.aim(first, slots, read)
        positions = slots.clamp(min=0)
        distance = positions[:, None, :, None] - torch.arange(read, device=device)

        def mask(window: int | None) -> torch.Tensor:
            """Let each token see its own row up to itself, within its layer's window."""
            visible = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
            is_eager = self._model.config._attn_implementation == "eager"
            return additive(visible, self._model.dtype) if is_eager else visible

        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._of_layers(mask),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits
