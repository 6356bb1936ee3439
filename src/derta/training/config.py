"""Configuration of `DeRTaTrainer`."""

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from transformers import TrainingArguments

from derta.errors import InputError
from derta.method.objective import LossNormalization
from derta.method.tree_builder import check_names
from derta.tokens.encoder import RefusalForm

DENSE_ROW_LENGTH = 1024
"""Tokens of a row where every token is set against every other: attention's cost per token grows with it."""


@dataclass
class DeRTaConfig(TrainingArguments):
    r"""Configuration of [`DeRTaTrainer`]: [`~transformers.TrainingArguments`] and what DeRTa adds.

    A batch size counts examples (triples and helpful examples), however they are packed.

    Parameters:
        model_init_kwargs (`dict[str, Any]`, *optional*):
            Keyword arguments for `from_pretrained`, used when the model is given by name. `dtype` defaults to float32;
            `bf16` trains in mixed precision.
        prompt_format (`str`, *optional*):
            Named prompt format to use in place of the tokenizer's chat template (`derta-release`, `alpaca`, …).
        chat_template_kwargs (`dict[str, Any]`, *optional*):
            Options of the chat template, such as `{"enable_thinking": false}` for Qwen3.
        max_length (`int`, *optional*, defaults to `1024`):
            Tokens that prompt + r̂ + r may take. r̂ is shortened from its end to fit; r and the prompt never.
        overlong_prompts (`str`, *optional*, defaults to `"error"`):
            What to do with an example whose prompt (and safe response) do not fit: `"error"` or `"drop"`.
        row_length (`int`, *optional*):
            Tokens of a packed row; a longer tree makes its rows longer. By default a micro-batch is one row where
            attention costs no more for it (SDPA on a CPU, FlexAttention), and rows have 1,024 tokens elsewhere.
        dataset_num_proc (`int`, *optional*):
            Processes that tokenise; one process uses several threads.
        dataset_cache_dir (`str`, *optional*):
            Where tokenised data sets of 10,000 examples and more are kept, to be read again by the next run that
            would tokenise the same ones in the same way; `derta train` also keeps the rows of sources of 16 MiB and
            more there, until they change. Defaults to `derta` in the cache of `datasets` (`HF_DATASETS_CACHE`).
            `"none"` keeps nothing: they stay in memory.
        method (`str`, *optional*, defaults to `"derta"`):
            `"derta"`, `"rto"` (no harmful prefix), `"harmful-prefix"` (RecAug: no RTO) or `"vanilla"`.
        cuts_per_triple (`int`, *optional*, defaults to `1`):
            Safe responses per triple and epoch, each after a harmful prefix of its own length.
        cut_policy (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"`: k ~ U{0 … |r̂|} tokens (Eq. 2). `"release"`: as the released code draws it, in words, with no
            prefix for every third example.
        rto_weight (`float`, *optional*, defaults to `1.0`):
            λ, the weight of RTO in the loss.
        rto_dropout (`float`, *optional*, defaults to `0.0`):
            Share of RTO targets left out, drawn for each epoch and example (0.95 for full fine-tuning in the paper).
            Never applied in evaluation.
        rto_on_end (`bool`, *optional*, defaults to `True`):
            RTO also after the last token of r̂.
        refusal_text (`list[str]`, *optional*, defaults to `["Sorry"]`):
            What RTO predicts: one token, or several texts with `refusal_form="set"`.
        refusal_form (`str`, *optional*, defaults to `"context"`):
            `"context"`: with or without a leading space, as the text before calls for. `"bare"`: never with one, as in
            the release. `"set"`: the probability mass of every form of every text.
        loss_normalization (`str`, *optional*, defaults to `"pooled"`):
            `"pooled"`: one mean over all targets of an optimizer step. `"per-term"`: the sum of the terms' own means.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012  (declared so by the base class)
        *TrainingArguments._VALID_DICT_FIELDS,
        "model_init_kwargs",
        "chat_template_kwargs",
    ]

    learning_rate: float = field(default=2e-5, metadata={"help": "Initial learning rate."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})

    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Arguments for from_pretrained, when the model is given by name."}
    )
    prompt_format: str | None = field(
        default=None, metadata={"help": "Named prompt format in place of the tokenizer's chat template."}
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the chat template."}
    )
    max_length: int = field(default=1024, metadata={"help": "Tokens that prompt + r̂ + r may take."})
    overlong_prompts: Literal["error", "drop"] = field(
        default="error", metadata={"help": "What to do with examples whose prompt does not fit."}
    )
    row_length: int | None = field(
        default=None, metadata={"help": "Tokens of a packed row; by default as attention works best."}
    )
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes that tokenise."})
    dataset_cache_dir: str | None = field(
        default=None, metadata={"help": "Where large data are kept between runs; none keeps nothing."}
    )

    method: str = field(default="derta", metadata={"help": "What to train on."})
    cuts_per_triple: int = field(default=1, metadata={"help": "Harmful prefixes per triple and epoch."})
    cut_policy: str = field(default="uniform", metadata={"help": "How harmful prefixes are cut."})
    rto_weight: float = field(default=1.0, metadata={"help": "λ, the weight of RTO in the loss."})
    rto_dropout: float = field(default=0.0, metadata={"help": "Share of RTO targets left out."})
    rto_on_end: bool = field(default=True, metadata={"help": "RTO also after the last token of r̂."})
    refusal_text: list[str] = field(default_factory=lambda: ["Sorry"], metadata={"help": "What RTO predicts."})
    refusal_form: RefusalForm = field(default="context", metadata={"help": "Which form of the refusal text."})
    loss_normalization: LossNormalization = field(default="pooled", metadata={"help": "How terms are averaged."})

    def __post_init__(self) -> None:
        """Check the options against each other and settle what the trainer relies on.

        Raises:
            InputError: an option is out of range or contradicts another.
        """
        if str(self.fsdp).lower() in ("true", "false"):
            self.fsdp: Any = str(self.fsdp).lower() == "true"  # the parser leaves it a string
        super().__post_init__()  # type: ignore[no-untyped-call]
        texts: Any = self.refusal_text
        self.refusal_text = [texts] if isinstance(texts, str) else list(texts)
        check_names(self.method, self.cut_policy)
        if not 0 <= self.rto_dropout < 1:
            raise InputError(f"rto_dropout: {self.rto_dropout} is not in [0, 1); use method harmful-prefix for no RTO")
        if self.rto_weight < 0:
            raise InputError(f"rto_weight: {self.rto_weight} is negative; λ is 0 or more")
        for name in ("cuts_per_triple", "max_length", "row_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is not 1 or more")
        if self.train_sampling_strategy != "random":
            raise InputError(f"train_sampling_strategy: {self.train_sampling_strategy!r} is not supported; use random")
        every = cast(dict[str, Any], self.activation_checkpointing_kwargs or {}).get("every_n_layers", 1)
        if not isinstance(every, int) or every < 1:
            raise InputError(f"activation_checkpointing_kwargs: every_n_layers {every!r} is not a number of 1 or more")
        if self.label_smoothing_factor:
            raise InputError("label_smoothing_factor: Eq. 2 has no label smoothing; leave it at 0")
        # Trees are built from token ids, not from columns that a model's forward names.
        self.remove_unused_columns = False
        self.label_names = ["targets"]
        if self.ddp_find_unused_parameters is None:
            # Every parameter takes part in every batch, even in one without targets.
            self.ddp_find_unused_parameters = False

    def tokens_of_a_row(self, dense: bool) -> int | None:
        """Return `row_length`, or what attention works best with; `None`: a micro-batch is one row."""
        return DENSE_ROW_LENGTH if self.row_length is None and dense else self.row_length
