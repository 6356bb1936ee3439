"""Configuration of `DeRTaTrainer`."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

import torch
from transformers import SchedulerType, TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from derta.contexts import context_weights
from derta.errors import InputError, did_you_mean, first_line
from derta.method.objective import LossNormalization
from derta.method.tree_builder import check_names
from derta.tokens.encoder import RefusalForm

DENSE_ROW_LENGTH = 1024
"""Tokens of a row where every token attends to every other: attention's cost per token grows with it."""

_POSITIVE = {
    *("learning_rate", "num_train_epochs", "max_length", "row_length", "dataset_num_proc", "cuts_per_triple"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("max_examples", "attack_steps", "attack_limit", "attack_max_tokens"),
}
_MAPPINGS = (
    *("model_init_kwargs", "chat_template_kwargs", "lr_scheduler_kwargs"),
    *("activation_checkpointing_kwargs", "liger_kernel_config"),
)
_NEVER_LISTED = ("azure_ml", "flyte")
"""Places to report to that transformers leaves out of its list of those that are there."""


@dataclass
class DeRTaConfig(TrainingArguments):
    r"""Configuration of [`DeRTaTrainer`]: [`~transformers.TrainingArguments`] and what DeRTa adds.

    A batch size counts examples (triples and helpful examples), however they are packed.

    Parameters:
        learning_rate (`float`, *optional*, defaults to `2e-5`):
            Initial learning rate.
        logging_steps (`float`, *optional*, defaults to `10`):
            Number of optimizer steps between two logs.
        model_init_kwargs (`dict[str, Any]`, *optional*):
            Keyword arguments for `from_pretrained`, used when the model is given by name. `dtype` defaults to float32;
            `bf16` trains in mixed precision.
        prompt_format (`str`, *optional*):
            Named prompt format that replaces the tokenizer's chat template (`derta-release`, `alpaca`, …).
        chat_template_kwargs (`dict[str, Any]`, *optional*):
            Options of the chat template, such as `{"enable_thinking": false}` for Qwen3.
        max_length (`int`, *optional*, defaults to `1024`):
            Maximum number of tokens of prompt + r̂ + r. A longer r̂ is truncated from its end; r and the prompt never.
        overlong_prompts (`str`, *optional*, defaults to `"error"`):
            What happens to an example whose prompt (and safe response) do not fit: `"error"` stops, `"drop"` leaves it
            out.
        row_length (`int`, *optional*):
            Number of tokens of a packed row; a longer tree makes its rows longer. By default a micro-batch is one row
            where attention costs no more for it (SDPA on a CPU, FlexAttention), and rows have 1,024 tokens elsewhere.
        dataset_num_proc (`int`, *optional*):
            Number of processes that tokenise; one process uses several threads.
        dataset_cache_dir (`str`, *optional*):
            Directory that caches tokenised data sets of 10,000 examples and more, and the rows of sources of 16 MiB
            and more, for every run that would read and tokenise the same ones in the same way. Defaults to `derta` in
            the cache of `datasets` (`HF_DATASETS_CACHE`); `"none"` caches nothing.
        method (`str`, *optional*, defaults to `"derta"`):
            What to train on: `"derta"`, `"rto"` (no harmful prefix), `"harmful-prefix"` (RecAug: no RTO) or
            `"vanilla"`.
        cuts_per_triple (`int`, *optional*, defaults to `1`):
            Number of safe responses per triple and epoch, each after a harmful prefix of its own length.
        cut_policy (`str`, *optional*, defaults to `"uniform"`):
            How harmful prefixes are cut: `"uniform"` draws k ~ U{0 … |r̂|} tokens (Eq. 2); `"release"` draws words as
            the released code does, with no prefix for every third example.
        cut_at_start (`bool`, *optional*, defaults to `False`):
            Whether one of several cuts is always k = 0: r after q alone.
        rto_weight (`float`, *optional*, defaults to `1.0`):
            Weight λ of RTO in the loss.
        rto_dropout (`float`, *optional*, defaults to `0.0`):
            Share of RTO targets that is left out, drawn for each epoch and example (0.95 for full fine-tuning in the
            paper). Never applied in evaluation.
        rto_schedule (`str`, *optional*, defaults to `"uniform"`):
            How `rto_dropout` is spread over a response: `"uniform"`, or `"early"`: less at its beginning, more towards
            its end.
        rto_on_end (`bool`, *optional*, defaults to `True`):
            Whether RTO also follows the last token of r̂.
        refuse_at (`str`, *optional*, defaults to `"token"`):
            Where in r̂ a refusal may begin: after every `"token"` (Eq. 2), or only where a `"word"` begins, so that no
            refusal is learnt in the middle of a word.
        refusal_text (`list[str]`, *optional*, defaults to `["Sorry"]`):
            What RTO predicts: the first token of a text, or of several texts with `refusal_form="set"`.
        refusal_form (`str`, *optional*, defaults to `"context"`):
            How the refusal text is spelled: `"context"` writes a leading space where the text before calls for one;
            `"bare"` never does, as the release; `"set"` trains the probability mass of every form of every text.
        contexts (`dict[str, float]` or `str`, *optional*, defaults to `"none"`):
            What may stand around examples of any kind, drawn for each epoch: `"none"`, `"recommended"`, or weights such
            as `{"plain": 4, "neighbour": 2}`. Never applied in evaluation.
        context_role_plays (`str`, *optional*):
            File of role-plays in a column `template`, where `{prompt}` stands for the request.
        context_small_talk (`str`, *optional*):
            File of harmless exchanges, as helpful examples are read.
        loss_normalization (`str`, *optional*, defaults to `"pooled"`):
            How targets are averaged: `"pooled"` takes one mean over all targets of an optimizer step, `"per-term"` the
            sum of the terms' own means.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012  (declared so by the base class)
        *TrainingArguments._VALID_DICT_FIELDS,
        "model_init_kwargs",
        "chat_template_kwargs",
        "contexts",
    ]

    learning_rate: float = 2e-5
    logging_steps: float = 10

    model_init_kwargs: dict[str, Any] | str | None = None
    prompt_format: str | None = None
    chat_template_kwargs: dict[str, Any] | str | None = None
    max_length: int = 1024
    overlong_prompts: Literal["error", "drop"] = "error"
    row_length: int | None = None
    dataset_num_proc: int | None = None
    dataset_cache_dir: str | None = None

    method: str = "derta"
    cuts_per_triple: int = 1
    cut_policy: str = "uniform"
    cut_at_start: bool = False
    rto_weight: float = 1.0
    rto_dropout: float = 0.0
    rto_schedule: str = "uniform"
    rto_on_end: bool = True
    refuse_at: str = "token"
    refusal_text: list[str] = field(default_factory=lambda: ["Sorry"])
    refusal_form: RefusalForm = "context"
    loss_normalization: LossNormalization = "pooled"
    contexts: dict[str, Any] | str | None = None
    context_role_plays: str | None = None
    context_small_talk: str | None = None

    def __post_init__(self) -> None:
        """Check the options against each other and settle what the trainer relies on.

        Raises:
            InputError: An option is out of range or contradicts another.
        """
        if str(self.fsdp).lower() in ("true", "false"):
            self.fsdp: Any = str(self.fsdp).lower() == "true"  # the parser leaves it a string
        check_positive(self)
        if not 0 <= self.rto_weight < math.inf:
            raise InputError(f"rto_weight: {self.rto_weight} is not a finite number of 0 or more")
        if not 0 <= self.rto_dropout < 1:
            raise InputError(
                f"rto_dropout: {self.rto_dropout} is not from 0 and below 1; for no RTO use method harmful-prefix"
            )
        for name in ("seed", "data_seed"):
            seed = getattr(self, name)
            if seed is not None and not 0 <= seed < 2**32:  # what NumPy takes
                raise InputError(f"{name}: {seed} is not from 0 to {2**32 - 1}")
        _check_places(self.report_to)
        super().__post_init__()  # type: ignore[no-untyped-call]
        for name in _MAPPINGS:
            if not isinstance(getattr(self, name) or {}, dict):
                raise InputError(f"{name}: {getattr(self, name)!r} is no mapping of names to values")
        self._check_scheduler()
        texts: Any = self.refusal_text
        self.refusal_text = [texts] if isinstance(texts, str) else list(texts)
        self._check_names()
        self._check_contexts()
        if self.train_sampling_strategy != "random":
            raise InputError(f"train_sampling_strategy: {self.train_sampling_strategy!r} is not supported; use random")
        every = cast(dict[str, Any], self.activation_checkpointing_kwargs or {}).get("every_n_layers", 1)
        if not isinstance(every, int) or every < 1:
            raise InputError(f"activation_checkpointing_kwargs: every_n_layers {every!r} is not a number of 1 or more")
        if self.label_smoothing_factor:
            raise InputError("label_smoothing_factor: Eq. 2 has no label smoothing; leave it at 0")
        liger: dict[str, bool] = self.liger_kernel_config or {}
        if self.use_liger_kernel:
            if liger.get("fused_linear_cross_entropy"):
                raise InputError(
                    "liger_kernel_config: fused_linear_cross_entropy would take the place of Eq. 2; leave it out"
                )
            self.liger_kernel_config = {**liger, "fused_linear_cross_entropy": False}
        # transformers would log an earlier mean for a loss that isn't finite; the trainer stops at it.
        self.logging_nan_inf_filter = False
        # Trees are built from token ids, not from columns that a model's forward names.
        self.remove_unused_columns = False
        self.label_names = ["targets"]
        if self.ddp_find_unused_parameters is None:
            # Every parameter takes part in every batch, even in one without targets.
            self.ddp_find_unused_parameters = False

    def _check_names(self) -> None:
        """Stop at an unknown method or policy; a baseline's own configuration knows other methods."""
        check_names(self.method, self.cut_policy, self.rto_schedule, self.refuse_at)
        if self.cut_at_start and self.cuts_per_triple < 2:
            raise InputError("cut_at_start: would leave no harmful prefix; set cuts_per_triple to 2 or more")
        if self.rto_schedule != "uniform" and not self.rto_dropout:
            raise InputError(f"rto_schedule: {self.rto_schedule!r} spreads rto_dropout, which is 0; give both, or none")

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle may hold: transformers writes its arguments beside every model that it uploads."""
        return {**vars(self), "hub_token": None}

    def _check_contexts(self) -> None:
        """Stop at contexts that don't exist, and at files that nothing would be made of."""
        weights = context_weights(self.contexts) or {}
        for name, context in (("context_role_plays", "role-play"), ("context_small_talk", "small-talk")):
            if getattr(self, name) is not None and not any(context in key.split("+") for key in weights):
                raise InputError(
                    f"{name}: no example stands in {context}; give it a weight in contexts, or leave it out"
                )

    def _check_scheduler(self) -> None:
        """Make the schedule of one step, so that what it doesn't take is told before anything is read."""
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=self.learning_rate)
        how = dict(cast(dict[str, Any], self.lr_scheduler_kwargs or {}))
        try:
            get_scheduler(self.lr_scheduler_type, optimizer, 0, 1, scheduler_specific_kwargs=how)
        except Exception as error:
            schedule = SchedulerType(self.lr_scheduler_type).value
            raise InputError(f"lr_scheduler_kwargs: {schedule} doesn't take {how}: {first_line(error)}") from error

    def tokens_of_a_row(self, dense: bool) -> int | None:
        """Return `row_length`, or what attention works best with; `None`: a micro-batch is one row."""
        return DENSE_ROW_LENGTH if self.row_length is None and dense else self.row_length


def check_positive(options: Any) -> None:
    """Stop at a number of ours, or one that divides, that isn't above 0; other libraries check the rest of theirs."""
    for option in fields(options):
        value = getattr(options, option.name)
        # The comparison is also false for NaN.
        if option.name in _POSITIVE and value is not None and not 0 < value < math.inf:
            raise InputError(f"{option.name}: {value} is not a number above 0")


def _check_places(report_to: str | list[str] | None) -> None:
    """Stop if a place to report to doesn't exist, or needs a package that isn't installed."""
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = did_you_mean(name, INTEGRATION_TO_CALLBACK)
            raise InputError(f"report_to: no {name!r}{known}; there are none, {', '.join(INTEGRATION_TO_CALLBACK)}")
        if name not in (*get_available_reporting_integrations(), *_NEVER_LISTED):
            raise InputError(f"report_to: {name} isn't installed; pip install {name}, or report to none")
