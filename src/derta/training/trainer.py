"""`DeRTaTrainer`: Decoupled Refusal Training on top of `transformers.Trainer`."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed
from transformers.trainer_utils import EvalLoopOutput

from derta.errors import InputError
from derta.generation.loading import load_tokenizer, load_weights
from derta.method.attention import FLEX_BLOCK, is_dense
from derta.method.objective import TERMS, TermSums, combine, install_objective
from derta.method.tree import Term, batch_sizes, check_batch, collate
from derta.method.tree_builder import TreeBuilder
from derta.method.verification import verify_objective
from derta.training.config import DeRTaConfig
from derta.training.dataset import (
    TreeDataset,
    encode_dataset,
    encoder_and_builder,
    tell_of_contexts,
    tree_dataset,
)
from derta.training.encoded_contexts import encoded_contexts
from derta.training.model_card import settings_of
from derta.training.run_trainer import RunTrainer

_MODEL_INPUTS = ("input_ids", "position_ids", "visible_ranges", "targets", "terms")


class DeRTaTrainer(RunTrainer):
    """Trainer for Decoupled Refusal Training (Yuan et al., ACL 2025, https://huggingface.co/papers/2407.09121).

    Example:

    ```python
    from derta import DeRTaTrainer, load_triples

    trainer = DeRTaTrainer("Qwen/Qwen3-0.6B", train_dataset=load_triples("triples.jsonl"))
    trainer.train()
    ```

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Causal language model, or its name or directory.
        args ([`DeRTaConfig`], *optional*):
            Configuration; defaults to `DeRTaConfig` with an output directory named after the model.
        train_dataset ([`~datasets.Dataset`]):
            Triples and helpful examples, in TRL's preference format, plain or conversational.
        eval_dataset ([`~datasets.Dataset`] or `dict[str, Dataset]`, *optional*):
            Evaluated per term, with every RTO target and the cuts of epoch 0.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Tokenizer; defaults to the model's.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Adapter to train in place of the whole model.
        callbacks (`list[TrainerCallback]`, *optional*), optimizers (`tuple`, *optional*):
            As in [`~transformers.Trainer`].
        quantization_config ([`~transformers.BitsAndBytesConfig`], *optional*):
            Quantisation of a model that is given by name, for QLoRA; needs `peft_config`.

    Raises:
        InputError: The model, the data and the options do not fit together; the message says how to mend it.
    """

    _tag_names = ("derta", "safety")
    about = (
        "Decoupled Refusal\nTraining ([Yuan et al., ACL 2025](https://huggingface.co/papers/2407.09121)) "
        "teaches a model to refuse at any position\nof a response."
    )

    train_dataset: TreeDataset | None

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: DeRTaConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: Any = None,
        compute_metrics: Any = None,
    ) -> None:
        # Args
        name = model if isinstance(model, str) else model.config._name_or_path
        if args is None:
            args = DeRTaConfig(f"{name.rstrip('/').split('/')[-1] or 'model'}-DeRTa")
        if args.n_gpu > 1:
            raise InputError("one process sees several GPUs: start with `accelerate launch` or `torchrun`")
        if compute_metrics is not None:
            raise InputError(
                "compute_metrics: the loss keeps no logits to compute them from; evaluation logs each term, and a "
                "callback's on_evaluate may add to it"
            )
        if quantization_config is not None and (peft_config is None or not isinstance(model, str)):
            raise InputError("quantization_config: name the model by a string, and add peft_config (QLoRA)")
        of_checkpoints = cast(dict[str, Any], args.activation_checkpointing_kwargs or {})
        if of_checkpoints.get("offload") and args.device.type == "cpu":
            raise InputError("activation_checkpointing_kwargs: offload needs a GPU to copy activations from")
        self.run_identity: dict[str, Any] = {"method": args.method, "seed": args.seed, "base": name}
        set_seed(args.seed)  # a new adapter starts from random weights

        # Model
        if isinstance(model, str):
            init_kwargs = {"dtype": "float32", **cast(dict[str, Any], args.model_init_kwargs or {})}
            if quantization_config is not None:
                init_kwargs["quantization_config"] = quantization_config
            model = load_weights(model, **init_kwargs)

        # Tokenizer
        tokenizer = processing_class or load_tokenizer(name)

        # PEFT
        if peft_config is not None:
            model = add_adapter(model, peft_config, args)

        # Dataset
        self.encoder, builder = encoder_and_builder(tokenizer, args)
        self.refusals = builder.refusals

        def prepare(dataset: Dataset, builder: TreeBuilder, name: str, in_contexts: bool = False) -> TreeDataset:
            drop = args.overlong_prompts == "drop"
            encoded = encode_dataset(
                dataset, self.encoder, name=name, drop_overlong=drop, num_proc=args.dataset_num_proc
            )
            contexts = encoded_contexts(dataset, encoded, self.encoder, args, name) if in_contexts else None
            return tree_dataset(encoded, builder, name, contexts)

        trees = None
        if train_dataset is not None:
            trees = prepare(train_dataset, builder, "train_dataset", in_contexts=True)
            tell_of_contexts(trees)
        # Dropout in evaluation would only add noise.
        eval_builder = replace(builder, rto_dropout=0.0)
        self._prepare_eval = partial(prepare, builder=eval_builder)
        eval_trees: TreeDataset | dict[str, TreeDataset] | None = None
        if isinstance(eval_dataset, dict):
            eval_trees = {
                key: self._prepare_eval(dataset, name=f"eval_dataset[{key!r}]") for key, dataset in eval_dataset.items()
            }
        elif eval_dataset is not None:
            eval_trees = self._prepare_eval(eval_dataset, name="eval_dataset")

        # Loss
        causal_lm = model.get_base_model() if isinstance(model, PeftModel) else model
        pooled = args.loss_normalization == "pooled"
        install_objective(
            causal_lm,
            self.refusals.all,
            refusal_set=args.refusal_form == "set",
            term_weights=(1.0, 1.0, args.rto_weight) if pooled else None,
        )
        self._meter = _Meter()
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        super().__init__(
            model=model,
            args=args,
            data_collator=partial(
                _collate_trees,
                row_length=row_length(args, causal_lm),
                pad_token_id=pad,
                pad_to_multiple_of=FLEX_BLOCK if causal_lm.config._attn_implementation == "flex_attention" else None,
            ),
            train_dataset=trees,
            eval_dataset=eval_trees,
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self._check_sharding()
        # `compute_loss` divides by the targets of the whole optimizer step.
        self.model_accepts_loss_kwargs = True
        verify_objective(causal_lm)
        self.model.add_model_tags(list(self._tag_names))

    # Loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Count the targets of each term in the optimizer step, over accumulation and ranks (shape [3])."""
        counts = torch.zeros(len(TERMS), device=device)
        for batch in batch_samples:
            counts += torch.stack([(batch["terms"] == term).sum() for term in TERMS]).to(device)
        reduced: torch.Tensor = self.accelerator.reduce(counts, reduction="sum")
        return reduced

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch (DeRTa's Eq. 2, and MLE on helpful data).

        Args:
            model: Is the trainer's model, wrapped or not.
            inputs: Is a batch of `get_train_dataloader`.
            return_outputs: Returns the sums as well.
            num_items_in_batch: Counts each term's targets in the whole optimizer step (shape [3]); without it the batch
                is taken for a whole step.

        Raises:
            ValueError: Harmful text could be a target in this batch, or the model has lost its objective.
        """
        check_batch(inputs, self.refusals.all)
        outputs = model(**{name: inputs[name] for name in _MODEL_INPUTS})
        if "nll" not in outputs:
            raise ValueError("the model does not compute the DeRTa objective: give the trainer's own model")
        sums = TermSums(outputs["nll"], outputs["refusal"], outputs["count"])
        counts = sums.count if num_items_in_batch is None else num_items_in_batch
        loss = combine(sums, counts, self.args.rto_weight, self.args.loss_normalization)
        if num_items_in_batch is not None and model.training:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over the ranks
        if model.training:
            self._meter.add(sums, inputs)
        return (loss, outputs) if return_outputs else loss

    # Evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the batches of an evaluation; a data set of examples is tokenised first."""
        if isinstance(eval_dataset, Dataset):
            eval_dataset = self._prepare_eval(eval_dataset, name="eval_dataset")
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return the batches of `predict`, which measures the terms as `evaluate` does."""
        if isinstance(test_dataset, Dataset):
            test_dataset = self._prepare_eval(test_dataset, name="test_dataset")
        return super().get_test_dataloader(test_dataset)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate each term over the whole data set: the loss of one step that holds all of it."""
        model = self._wrap_model(self.model, training=False, dataloader=dataloader)
        model.eval()
        meter = _Meter()
        with torch.no_grad():
            for inputs in dataloader:
                batch = self._prepare_inputs(inputs)
                _, outputs = self.compute_loss(model, batch, return_outputs=True)
                meter.add(TermSums(outputs["nll"], outputs["refusal"], outputs["count"]), batch)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        sums, metrics = meter.drain(self.accelerator.reduce)
        metrics["loss"] = combine(sums, sums.count, self.args.rto_weight, self.args.loss_normalization).item()
        examples = self.num_examples(dataloader)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=cast(Any, None), label_ids=None, metrics=metrics, num_samples=examples)

    # Logging

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms, refusal probabilities and throughput since the last log."""
        if "loss" in logs:
            logs = {**logs, **self._meter.drain(self.accelerator.reduce)[1]}
        super().log(logs, start_time)

    def card_settings(self) -> Mapping[str, Any]:
        """Return what the card says of the configuration, by name."""
        return settings_of(self.args)


def add_adapter(model: PreTrainedModel | PeftModel, peft_config: PeftConfig, args: DeRTaConfig) -> PeftModel:
    """Give the model a new adapter to train.

    Raises:
        InputError: It already has one, or the adapter would change the output head.
    """
    if isinstance(model, PeftModel):
        raise InputError("peft_config: the model already has an adapter; merge it first, or leave peft_config out")
    check_adapter(peft_config, model)
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=args.activation_checkpointing,
            gradient_checkpointing_kwargs=args.activation_checkpointing_kwargs or {"use_reentrant": False},
        )
    elif args.activation_checkpointing:
        model.enable_input_require_grads()
    return get_peft_model(model, peft_config)


def check_adapter(peft_config: PeftConfig, model: PreTrainedModel) -> None:
    """Stop at an adapter on the output head: the projection to refusal tokens must be the base model's own.

    Raises:
        InputError: The configuration names the output head.
    """
    if not isinstance(peft_config, LoraConfig):
        return
    output_head: Any = model.get_output_embeddings()
    head = next(name for name, module in model.named_modules() if module is output_head)
    targets = peft_config.target_modules
    named = {targets} if isinstance(targets, str) else set(targets or ())
    for field, names in (("target_modules", named), ("modules_to_save", set(peft_config.modules_to_save or ()))):
        if head.split(".")[-1] in {name.split(".")[-1] for name in names}:
            raise InputError(f"lora_{field}: LoRA on the output head ({head}) is not supported; leave it out")


def row_length(args: DeRTaConfig, model: PreTrainedModel) -> int | None:
    """Return the tokens of a row; `None` if a batch is one row.

    Raises:
        InputError: FlexAttention on a CPU.
    """
    if model.config._attn_implementation == "flex_attention" and args.device.type == "cpu":
        raise InputError("attn_implementation: PyTorch trains with flex_attention on GPUs only; use sdpa on a CPU")
    return args.tokens_of_a_row(is_dense(model, args.device.type))


def _collate_trees(trees: Sequence[Any], **how: Any) -> dict[str, torch.Tensor]:
    return collate([tree for tree in trees if tree is not None], **how)


class _Meter:
    """Sums since the last log, on the device until they are asked for."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._sums: torch.Tensor | None = None

    def add(self, sums: TermSums, batch: dict[str, torch.Tensor]) -> None:
        """Add one batch."""
        row = torch.cat([sums.nll.detach().float(), sums.refusal, sums.count, batch_sizes(batch).to(sums.nll.device)])
        self._sums = row if self._sums is None else self._sums + row

    def drain(self, reduce: Callable[..., torch.Tensor]) -> tuple[TermSums, dict[str, float]]:
        """Return the sums over all ranks and what they say, and start anew."""
        if self._sums is None:
            self._reset()
            nothing = torch.zeros(3)
            return TermSums(nothing, nothing, nothing), {}
        seconds = time.perf_counter() - self._since
        total = reduce(self._sums, reduction="sum")
        self._reset()
        nll, refusal, count, (examples, unique, naive) = total.view(4, 3)
        metrics: dict[str, float] = {}
        for index, term in enumerate(TERMS):
            if count[index] > 0:
                metrics[f"loss_{term.name.lower()}"] = (nll[index] / count[index]).item()
                if term is not Term.SAFE:
                    metrics[f"refusal_at_{term.name.lower()}"] = (refusal[index] / count[index]).item()
        metrics["tokens_per_second"] = unique.item() / seconds
        metrics["examples_per_second"] = examples.item() / seconds
        metrics["token_savings"] = (unique / naive.clamp(min=1)).item()
        return TermSums(nll, refusal, count), metrics
