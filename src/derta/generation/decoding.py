"""Which decoder runs a model, and how it leaves the model as it found it."""

import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from derta.generation.batch import BatchDecoder
from derta.generation.jobs import Job
from derta.generation.plain import PlainDecoder
from derta.generation.rows import RowRunner
from derta.names import SDPA_BY_TREE

# Below so many parameters a step costs about the same for many rows as for few.
_SMALL_MODEL = 50_000_000
# The part of the free memory that the rows' keys and values may take.
_CACHE_PART = 0.3
# Bytes taken for free where the system doesn't say.
_ASSUMED_MEMORY = 4 * 2**30


class Decoder(Protocol):
    """Runs jobs on one model; used by one thread at a time."""

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""

    def add(self, job: Job) -> None:
        """Queue a job."""

    def step(self) -> list[Job]:
        """Do the next piece of work and return the jobs that it ended."""

    def clear(self) -> None:
        """Drop every job."""


def make_decoder(model: PreTrainedModel, batch_size: int | None = None, max_batch_tokens: int | None = None) -> Decoder:
    """Return the decoder for a model: one that batches or, with a warning, one that doesn't.

    Requests are batched if every layer attends to the keys and values of all tokens or of a window, if positions mean
    the same in any batch, and if a short trial gives the logits of a pass without any cache.
    """
    if model not in _findings:
        _findings[model] = _examine(model)
    finding = _findings[model]
    if finding.reason:
        warnings.warn(f"requests run one at a time, which is slow: {finding.reason}", stacklevel=3)
        return PlainDecoder(model)
    tokens = max_batch_tokens or int(_CACHE_PART * _free_bytes(model.device) / finding.bytes_per_token)
    return BatchDecoder(model, batch_size or _rows(model), tokens)


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Keep a model in evaluation mode for a while."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


@dataclass(frozen=True)
class _Finding:
    """Why a model's requests can't be batched exactly, if they can't, and what a token takes in the cache."""

    reason: str | None = None
    bytes_per_token: int = 0


_findings: WeakKeyDictionary[PreTrainedModel, _Finding] = WeakKeyDictionary()


def _examine(model: PreTrainedModel) -> _Finding:
    text: Any = model.config.get_text_config()
    name = f"models of type {text.model_type}"
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    layers = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if model.config.is_encoder_decoder or kinds or not layers <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return _Finding(f"{name} keep more than the keys and values of each token")
    implementation = model.config._attn_implementation
    if implementation not in ("sdpa", SDPA_BY_TREE, "eager"):
        return _Finding(f"attn_implementation: {implementation!r} can't mask rows; load the model with sdpa or eager")
    if not {"position_ids", "logits_to_keep"} <= set(inspect.signature(model.forward).parameters):
        return _Finding(f"{name} take no positions")
    if _rope_types(text) & {"dynamic", "longrope"}:
        return _Finding("this model's positions depend on the longest sequence of a batch (dynamic or longrope)")
    return _try_out(model) or _Finding(f"{name} gave other logits in a trial than without a cache")


def _rope_types(text: Any) -> set[str]:
    parameters = getattr(text, "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {str(one["rope_type"]) for one in each if one.get("rope_type")}


def _try_out(model: PreTrainedModel) -> _Finding | None:
    """Continue two rows that begin alike and compare with whole sequences; `None` if their logits differ."""
    vocabulary = model.config.get_text_config().vocab_size
    one = [(11 + 7 * place) % vocabulary for place in range(12)]
    other = [*one[:5], one[0], one[3]]
    runner = RowRunner(model)
    runner.cache.reserve(2, len(one))
    with evaluating(model), torch.inference_mode():
        runner.forward(0, [one[:5]], [0])
        runner.cache.write(1, 1, runner.cache.read(0, 5), 5)
        runner.forward(0, [one[5:-1], other[5:-1]], [5, 5])
        found = runner.forward(0, [one[-1:], other[-1:]], [len(one) - 1, len(other) - 1]).float()
        whole = [torch.tensor([ids], device=model.device) for ids in (one, other)]
        expected = torch.cat([model(input_ids=ids, use_cache=False).logits[:, -1] for ids in whole]).float()
    # Half precision rounds, and another expert moves a mixture's logits; a wrong position moves them far more.
    allowed = 0.01 if model.dtype == torch.float32 else 0.3
    agrees = bool((found - expected).abs().max() <= allowed * expected.std())
    return _Finding(bytes_per_token=runner.cache.bytes_per_token) if agrees else None


def _rows(model: PreTrainedModel) -> int:
    return 256 if model.device.type == "cuda" or model.num_parameters() < _SMALL_MODEL else 64


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _ASSUMED_MEMORY
