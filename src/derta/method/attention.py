"""Attention over token trees, in the form that each implementation in transformers takes.

The `visible_ranges` of a batch say what each token attends to: a stretch of its trunk, and its own segment up to
itself. From them come a dense mask (SDPA on a GPU, eager), a block mask (FlexAttention), or, on a CPU, one SDPA call
per tree, which spends nothing on other trees of the row. A sliding window only makes the ranges shorter.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from derta.attention_masks import LayerMasks, additive
from derta.errors import InputError
from derta.names import SDPA_BY_TREE

FLEX_BLOCK = 128
"""FlexAttention's kernels for training work on rows of a multiple of this many tokens."""
_KNOWN = ("sdpa", SDPA_BY_TREE, "eager", "flex_attention")


class TreeAttention:
    """Turns the visible ranges of a batch into what each kind of layer of an architecture takes as its mask.

    Raises:
        InputError: A kind of layer or an attention implementation cannot express a tree.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        self._config = config
        self._of_layers = LayerMasks(config)
        if self._implementation not in _KNOWN:
            raise InputError(
                f"attn_implementation: {self._implementation!r} cannot express a token tree; "
                "use sdpa, flex_attention or eager"
            )
        if self._of_layers.unknown:
            raise InputError(
                f"model: {config.get_text_config().model_type} has layers of kind "
                f"{', '.join(self._of_layers.unknown)}, which cannot express a token tree; "
                "use a model with full or sliding-window attention"
            )

    def __call__(self, visible_ranges: torch.Tensor, dtype: torch.dtype) -> Any:
        """Return the mask, or one for each kind of layer where the architecture mixes them.

        Args:
            visible_ranges: Says what each token attends to, as `derta.method.tree.collate` does (rows x tokens x 3).
            dtype: Is the type of an additive mask: the model's.
        """

        def mask(window: int | None) -> torch.Tensor | BlockMask:
            ranges = visible_ranges if window is None else within_window(visible_ranges, window)
            if self._implementation == "flex_attention":
                return block_mask(ranges)
            if self._implementation == SDPA_BY_TREE and ranges.device.type == "cpu":
                return ranges[:, None]  # transformers hands any tensor of four dimensions through to `sdpa_by_tree`
            dense = dense_mask(ranges)[:, None]
            return additive(dense, dtype) if self._implementation == "eager" else dense

        return self._of_layers(mask)

    @property
    def _implementation(self) -> str:
        return str(getattr(self._config, "_attn_implementation", None) or "eager")


def attend_by_tree(model: PreTrainedModel) -> None:
    """Let a model that attends with SDPA attend tree by tree on a CPU; anything else it does as before."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(SDPA_BY_TREE)


def is_dense(model: torch.nn.Module, device: str = "cuda") -> bool:
    """Whether attention on this kind of device sets every token of a row against every other."""
    implementation = cast(Any, model).config._attn_implementation
    return implementation != "flex_attention" and (implementation != SDPA_BY_TREE or device != "cpu")


def within_window(visible_ranges: torch.Tensor, window: int) -> torch.Tensor:
    """Shorten visible ranges to the last `window` positions: a branch sees what it would in its own sequence."""
    trunk_start, trunk_end, own_start = visible_ranges.unbind(-1)
    index = torch.arange(visible_ranges.shape[1], device=visible_ranges.device)
    on_trunk = trunk_end - trunk_start
    out_of_sight = on_trunk + (index - own_start) - window + 1  # positions before the window
    return torch.stack(
        [
            trunk_start + out_of_sight.clamp(min=0).minimum(on_trunk),
            trunk_end,
            own_start.maximum(index - window + 1),
        ],
        dim=-1,
    )


def dense_mask(visible_ranges: torch.Tensor) -> torch.Tensor:
    """Whether a token (dim 1) attends to another (dim 2) of its row: bool, rows x tokens x tokens."""
    trunk_start, trunk_end, own_start = visible_ranges[:, :, None].unbind(-1)
    index = torch.arange(visible_ranges.shape[1], device=visible_ranges.device)
    mask: torch.Tensor = _reads(trunk_start, trunk_end, own_start, index[:, None], index)
    return mask


def block_mask(visible_ranges: torch.Tensor) -> BlockMask:
    """The same for FlexAttention, which skips blocks of tokens that don't see each other."""
    trunk_start, trunk_end, own_start = visible_ranges.unbind(-1)

    def reads(row: Any, head: Any, query: Any, key: Any) -> Any:
        return _reads(trunk_start[row, query], trunk_end[row, query], own_start[row, query], query, key)

    rows, width = visible_ranges.shape[:2]
    return create_block_mask(reads, rows, None, width, width, device=visible_ranges.device)


def _reads(trunk_start: Any, trunk_end: Any, own_start: Any, query: Any, key: Any) -> Any:
    return ((trunk_start <= key) & (key < trunk_end)) | ((own_start <= key) & (key <= query))


def sdpa_by_tree(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend with SDPA to one tree at a time: takes visible ranges in place of a mask.

    Args:
        module: Is the attention layer.
        query, key, value: Hold rows x heads x tokens x width.
        attention_mask: Holds visible ranges, rows x 1 x tokens x 3 (int64); with anything else it is transformers' own
            SDPA.
        kwargs: Go to transformers' own SDPA.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    return _each_tree(module, query, key, value, attention_mask, **kwargs), None


# The values alone tell where a tree ends, which a compiler doesn't know.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _each_tree(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    visible_ranges: torch.Tensor,
    **kwargs: Any,
) -> torch.Tensor:
    rows = []
    for trees, *states in zip(_trees(visible_ranges), query.split(1), key.split(1), value.split(1), strict=True):
        # The gradients of parts of one split are put together once; those of slices would be added up.
        parts = zip(*(one.split([length for length, _ in trees], dim=2) for one in states), strict=True)
        outputs = [
            sdpa_attention_forward(module, q, k, v, mask, **kwargs)[0]
            for (q, k, v), (_, mask) in zip(parts, trees, strict=True)
        ]
        rows.append(torch.cat(outputs, dim=1))
    return torch.cat(rows)


AttentionInterface.register(SDPA_BY_TREE, sdpa_by_tree)
AttentionMaskInterface.register(SDPA_BY_TREE, sdpa_mask)


@lru_cache(maxsize=4)  # all layers of a kind ask for the same
def _trees(visible_ranges: torch.Tensor) -> list[list[tuple[int, torch.Tensor | None]]]:
    """Length and mask of each tree of each row (visible ranges: rows x 1 x tokens x 3); no mask is a causal one."""
    rows: list[list[tuple[int, torch.Tensor | None]]] = []
    for row in visible_ranges[:, 0]:
        rows.append([])
        for start, end in pairwise(_bounds(row)):
            tree = row[start:end] - start
            trunk_start, trunk_end, own_start = tree.unbind(-1)
            is_causal = bool((own_start == 0).all() and (trunk_start >= trunk_end).all())
            rows[-1].append((end - start, None if is_causal else dense_mask(tree[None])[:, None]))
    return rows


def _bounds(row: torch.Tensor) -> list[int]:
    """Where a row's trees begin, and its end; tokens that stand alone, such as padding, count as one tree."""
    index = torch.arange(len(row))
    trunk_start, trunk_end, own_start = row.unbind(-1)
    earliest = torch.where(trunk_start < trunk_end, trunk_start, own_start)
    starts = earliest.flip(0).cummin(0).values.flip(0) == index
    alone = starts & torch.nn.functional.pad(starts[1:], (0, 1), value=True)
    starts[1:] &= ~(alone[1:] & alone[:-1])
    return [*starts.nonzero()[:, 0].tolist(), len(row)]
