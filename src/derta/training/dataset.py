"""Data sets of token trees: tokenised once, drawn afresh each epoch, in an order that any number of ranks share."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate import PartialState
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from derta.contexts.draws import PLAIN
from derta.data.arrow import canonical, examples_of
from derta.errors import InputError
from derta.method.tree import TokenTree
from derta.method.tree_builder import METHODS, TreeBuilder
from derta.terminal import screen
from derta.tokens.encoder import EncodedExample, Encoder
from derta.tokens.prompt_formats import set_prompt_format
from derta.tokens.refusal_tokens import WhiteSpace, refusal_tokens
from derta.training.config import DeRTaConfig
from derta.training.encoded_contexts import DrawnTokens, EncodedContexts

logger = logging.getLogger(__name__)

# Fewer are tokenised again sooner than looked up, and take little memory.
_MIN_ROWS_TO_CACHE = 10_000

_SAMPLE_OF_CONTEXTS = 500

_TOKEN_COLUMNS = ("prompt", "chosen", "chosen_after_text", "rejected", "word_ends")
_ENCODED = Features(
    {
        **{name: List(Value("int32")) for name in _TOKEN_COLUMNS},
        **{name: Value("bool") for name in ("fixed_cut", "rto")},
        "num_truncated": Value("int32"),
        "origin": Value("string"),
    }
)


class TreeDataset(torch.utils.data.Dataset[TokenTree | None]):
    """Encoded examples that become trees on access, by (epoch, index); index `None` is padding of the last batch.

    With `contexts` an example is tokenised on access, in the context that its epoch draws. A number alone gives the
    tokens of an example.
    """

    def __init__(self, encoded: Dataset, builder: TreeBuilder, contexts: EncodedContexts | None = None) -> None:
        self.encoded = encoded
        self.builder = builder
        self.contexts = contexts

    def __len__(self) -> int:
        return len(self.encoded)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Roughly how many tokens each example's tree has, outside of any context."""
        stored = self.encoded.data
        prompt, chosen, rejected = (
            pc.list_value_length(stored.column(name)).to_numpy() for name in ("prompt", "chosen", "rejected")
        )
        reads = rejected if METHODS[self.builder.method].reads_rejected else 0
        branches = np.where(reads, self.builder.cuts_per_triple, 1)
        lengths: np.ndarray = prompt + reads + branches * chosen
        return _selected(self.encoded, lengths)

    @overload
    def __getitem__(self, key: tuple[int, int | None]) -> TokenTree | None: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    def __getitem__(self, key: tuple[int, int | None] | int) -> TokenTree | dict[str, Any] | None:
        if isinstance(key, int):
            return cast(dict[str, Any], self.encoded[key])
        epoch, index = key
        if index is None:
            return None
        return self.builder(self.draw(index, epoch).example, index, epoch)

    def draw(self, index: int, epoch: int) -> DrawnTokens:
        """Return the example at `index` in the context that the epoch draws for it."""
        plain = EncodedExample(**self.encoded[index])
        return DrawnTokens(PLAIN, plain, True) if self.contexts is None else self.contexts(plain, index, epoch)


def encode_dataset(
    dataset: Dataset, encoder: Encoder, *, name: str, drop_overlong: bool = False, num_proc: int | None = None
) -> Dataset:
    """Encode canonical or TRL-style rows; columns are the fields of `EncodedExample`.

    Many examples are encoded once and cached in the encoder's `cache_dir`, by all that their tokens depend on; the next
    time they are mapped into memory from there. Logs how many examples were truncated or dropped.

    Raises:
        InputError: A row is not an example or does not fit, none is left, or they can't be cached.
    """
    if not isinstance(dataset, Dataset):
        kind = type(dataset).__name__
        raise InputError(f"{name}: {kind} can't be mixed and drawn from; make it a datasets.Dataset (from_generator)")
    if len(dataset) == 0:
        raise InputError(f"{name}: no examples")
    dataset = canonical(dataset, name)
    encode_rows = partial(_encode_rows, encoder=encoder, drop_overlong=drop_overlong)
    alone = num_proc in (None, 1)

    def encode(rows: Dataset, cache_dir: Path | None) -> Dataset:
        key = "encoded" if cache_dir is None else _key(rows, encoder, drop_overlong)
        with screen.bar(f"tokenising {name}", len(rows) if alone else None) as advance:

            def encode_and_tell(columns: dict[str, list[Any]]) -> pa.Table:
                encoded = encode_rows(columns)
                advance(len(columns["origin"]))
                return encoded

            return rows.with_format(None).map(
                # Other processes have no screen.
                encode_and_tell if alone else encode_rows,
                batched=True,
                remove_columns=rows.column_names,
                features=_ENCODED,
                num_proc=num_proc,
                cache_file_name=None if cache_dir is None else str(cache_dir / f"{key}.arrow"),
                load_from_cache_file=True,
                keep_in_memory=cache_dir is None,
                new_fingerprint=key,
                desc=f"Tokenising {name}",
            )

    with PartialState().main_process_first():
        if encoder.cache_dir is None or len(dataset) < _MIN_ROWS_TO_CACHE:
            encoded = encode(dataset, None)
        else:
            # Every seed mixes the same rows in an order of its own: tokens are cached in that of the source.
            shuffled = (
                dataset._indices is not None
                and not drop_overlong
                and len(dataset) == dataset.data.num_rows == len(np.unique(_order(dataset)))
            )
            rows = Dataset(dataset.data, info=dataset.info) if shuffled else dataset
            try:
                encoder.cache_dir.mkdir(parents=True, exist_ok=True)
                encoded = encode(rows, encoder.cache_dir)
            except OSError as error:
                raise InputError(
                    f"dataset_cache_dir: can't write to {encoder.cache_dir}: {error.strerror or error}; give another "
                    "--dataset_cache_dir, or none to keep nothing"
                ) from error
            encoded = encoded.select(_order(dataset)) if shuffled else encoded
    truncated = int(np.count_nonzero(values_of(encoded, "num_truncated")))
    if truncated:
        logger.warning(
            "%s: %d of %d examples truncated to max_length %d", name, truncated, len(encoded), encoder.max_length
        )
    if len(encoded) < len(dataset):
        logger.warning("%s: %d of %d examples dropped: too long", name, len(dataset) - len(encoded), len(dataset))
    if len(encoded) == 0:
        raise InputError(f"{name}: every example is too long for max_length {encoder.max_length}; raise it")
    return encoded


def _key(rows: Dataset, encoder: Encoder, drop_overlong: bool) -> str:
    """Name what the tokens of a data set depend on."""
    made_from = [rows._fingerprint, encoder.identity(), drop_overlong]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def _encode_rows(columns: dict[str, list[Any]], *, encoder: Encoder, drop_overlong: bool) -> pa.Table:
    encoded = encoder.encode_batch(list(examples_of(columns)), drop_overlong=drop_overlong)
    table = {field: [getattr(example, field) for example in encoded] for field in _ENCODED}
    return pa.table(
        {field: _token_lists(table[field]) if field in _TOKEN_COLUMNS else table[field] for field in _ENCODED},
        schema=_ENCODED.arrow_schema,
    )


def _token_lists(lists: Sequence[Sequence[int]]) -> pa.Array:
    """Lists of tokens as Arrow lays them out; many times faster than letting it look at each token."""
    ends = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.fromiter(chain.from_iterable(lists), np.int32, ends[-1]))


def _order(dataset: Dataset) -> np.ndarray:
    """Return which of the rows that it stores a data set selects."""
    assert dataset._indices is not None
    order: np.ndarray = dataset._indices.column(0).to_numpy()
    return order


def values_of(dataset: Dataset, column: str) -> np.ndarray:
    """Return the values of a column of numbers or flags."""
    return _selected(dataset, dataset.data.column(column).to_numpy())


def _selected(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Take, from one value for each row that a data set stores, those of the rows that it selects.

    `datasets` itself would make a table of each selected row: seconds for a million.
    """
    return stored if dataset._indices is None else stored[_order(dataset)]


def tree_dataset(
    encoded: Dataset, builder: TreeBuilder, name: str, contexts: EncodedContexts | None = None
) -> TreeDataset:
    """Make a data set of trees.

    Raises:
        InputError: There are no triples for a method that needs them, or no example has a target under it.
    """
    is_safety = values_of(encoded, "rto") | values_of(encoded, "fixed_cut")
    if METHODS[builder.method].reads_rejected and not is_safety.any():
        raise InputError(f"{name}: method {builder.method!r} needs triples, and no example has a rejected response")
    trees = TreeDataset(encoded, builder)
    if all(trees[0, index] is None for index in range(len(trees))):
        raise InputError(f"{name}: method {builder.method!r} has no use for any of its {len(trees)} examples")
    return TreeDataset(encoded, builder, contexts)


def tell_of_contexts(trees: TreeDataset) -> None:
    """Log how many of some examples stand in which context in the first epoch, and which contexts can't be made."""
    if trees.contexts is None:
        return
    some = range(0, len(trees), max(1, len(trees) // _SAMPLE_OF_CONTEXTS))
    drawn = [trees.draw(index, 0) for index in some]
    made = Counter(each.context for each in drawn if each.made)
    left = Counter(each.context for each in drawn if not each.made)
    counts = ", ".join(f"{number} {context}" for context, number in made.most_common())
    logger.info("contexts: of %d examples %s", len(drawn), counts or "none stands in any")
    if left:
        counts = ", ".join(f"{number} of {made[context] + number} {context}" for context, number in left.most_common())
        logger.warning("contexts: these can't be made, and their examples stay plain: %s", counts)


def encoder_and_builder(tokenizer: PreTrainedTokenizerBase, config: DeRTaConfig) -> tuple[Encoder, TreeBuilder]:
    """Set the prompt format on `tokenizer`, and take from the configuration how examples become trees.

    Raises:
        InputError: There is no chat template, or the refusal text begins with no token of its own.
    """
    set_prompt_format(tokenizer, config.prompt_format)
    encoder = Encoder.from_config(tokenizer, config)
    builder = TreeBuilder(
        refusal_tokens(encoder, config.refusal_text, config.refusal_form),
        WhiteSpace(tokenizer),
        method=config.method,
        cuts_per_triple=config.cuts_per_triple,
        cut_policy=config.cut_policy,
        cut_at_start=config.cut_at_start,
        rto_dropout=config.rto_dropout,
        rto_schedule=config.rto_schedule,
        rto_on_end=config.rto_on_end,
        refuse_at=config.refuse_at,
        seed=config.seed,
    )
    return encoder, builder
