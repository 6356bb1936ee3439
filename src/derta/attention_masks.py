"""Attention masks of architectures with full, sliding-window or mixed layers, for training and for inference."""

from collections.abc import Callable
from typing import TypeVar

import torch
from transformers import PreTrainedConfig

_Mask = TypeVar("_Mask")


class LayerMasks:
    """Makes one mask for a model or, where its architecture mixes kinds of layers, one for each kind.

    Attributes:
        unknown: Names kinds of layers that are neither full nor sliding-window attention.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        text = config.get_text_config()
        window: int | None = getattr(text, "sliding_window", None)
        default = "full_attention" if window is None else "sliding_attention"
        kinds = sorted(set(getattr(text, "layer_types", None) or [default]))
        self._windows = {kind: window if kind == "sliding_attention" else None for kind in kinds}
        self.unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})

    def __call__(self, mask: Callable[[int | None], _Mask]) -> _Mask | dict[str, _Mask]:
        """Return what the model's `forward` takes as `attention_mask`.

        Args:
            mask: Makes the mask of layers with this sliding window, in positions; `None` is full attention.
        """
        masks = {kind: mask(window) for kind, window in self._windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a boolean mask into one that eager attention adds to its scores."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
