"""`DeRTaTrainer`: Decoupled Refusal Training on top of `transformers.Trainer`."""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from derta.errors import InputError
from derta.files import write_json
from derta.inference.loading import load_tokenizer, load_weights
from derta.method.attention import FLEX_BLOCK, is_dense
from derta.method.objective import TERMS, TermSums, combine, install_objective
from derta.method.tree import Term, batch_sizes, check_batch, collate
from derta.method.tree_builder import TreeBuilder
from derta.method.verification import verify_objective
from derta.run_identity import IDENTITY
from derta.training.config import DeRTaConfig
from derta.training.dataset import (
    TreeDataset,
    encode_dataset,
    encoder_and_builder,
    tell_of_contexts,
    tree_dataset,
)
from derta.training.encoded_contexts import encoded_contexts
from derta.training.fsdp_checkpoint import holds_shards, load_model_shards, load_optimizer_shards, whole_weights
from derta.training.model_card import write_model_card
from derta.training.run_directory import check_resume, checkpoints_in, remove_old_checkpoints
from derta.training.sampling import EpochSampler, StepShape

logger = logging.getLogger(__name__)

_ORIGINS = 8
"""Examples of a broken step that are named."""
_MODEL_INPUTS = ("input_ids", "position_ids", "visible_ranges", "targets", "terms")


class DeRTaTrainer(Trainer):
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

    Raises:
        InputError: The model, the data and the options do not fit together; the message says how to mend it.
    """

    _tag_names = ("derta", "safety")

    args: DeRTaConfig
    model: Any
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
    ) -> None:
        # Args
        name = model if isinstance(model, str) else model.config._name_or_path
        if args is None:
            args = DeRTaConfig(f"{name.rstrip('/').split('/')[-1] or 'model'}-DeRTa")
        if args.n_gpu > 1:
            raise InputError("one process sees several GPUs: start with `accelerate launch` or `torchrun`")
        of_checkpoints = cast(dict[str, Any], args.activation_checkpointing_kwargs or {})
        if of_checkpoints.get("offload") and args.device.type == "cpu":
            raise InputError("activation_checkpointing_kwargs: offload needs a GPU to copy activations from")
        self.run_identity: dict[str, Any] = {"method": args.method, "seed": args.seed, "base": name}
        set_seed(args.seed)  # a new adapter starts from random weights

        # Model
        if isinstance(model, str):
            init_kwargs = {"dtype": "float32", **cast(dict[str, Any], args.model_init_kwargs or {})}
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
        eval_trees: TreeDataset | dict[str, TreeDataset] | None = None
        if isinstance(eval_dataset, dict):
            eval_trees = {
                key: prepare(dataset, eval_builder, f"eval_dataset[{key!r}]") for key, dataset in eval_dataset.items()
            }
        elif eval_dataset is not None:
            eval_trees = prepare(eval_dataset, eval_builder, "eval_dataset")

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
        self._losses: list[torch.Tensor] = []
        """The losses of the optimizer step so far."""

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

    # Data

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        size, batches = self._train_batch_size, self.args.gradient_accumulation_steps * self.args.world_size
        return EpochSampler(
            len(dataset),
            multiple=self._examples_at_once(size),
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            step=StepShape(size, batches, dataset.lengths) if batches > 1 else None,
        )

    def _get_eval_sampler(self, eval_dataset: Any) -> EpochSampler:
        return EpochSampler(
            len(eval_dataset), multiple=self._examples_at_once(self.args.eval_batch_size), shuffle=False
        )

    def _examples_at_once(self, batch_size: int) -> int:
        return batch_size * self.args.world_size if self.args.world_size > 1 else 1

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

    # Broken steps

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Do what the base class does, and keep the loss until the optimizer steps."""
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        self._losses.append(loss)
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient norm, just before the optimizer steps.

        Raises:
            InputError: It isn't finite, or a loss of the step isn't.
        """
        norm: Any = cast(Any, super())._get_grad_norm(model, grad_norm)
        losses, self._losses = torch.stack(self._losses), []
        # All ranks stop or none: one that stopped alone would leave the others waiting.
        loss = float(self.accelerator.reduce(losses.sum(), reduction="sum"))
        # In float16 gradients overflow now and then: the scaler leaves that step out and scales less.
        scaled = self.accelerator.scaler is not None or self.is_deepspeed_enabled
        total = 0.0 if scaled or norm is None else float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(loss):
            batches = (~losses.isfinite()).nonzero().flatten().tolist()
            ranks, rank = self.args.world_size, self.args.process_index
            broken = sorted(gather_object([batch * ranks + rank for batch in batches]))
            raise self._broken(f"the loss is {loss}", self.state.global_step, broken)
        if not math.isfinite(total):
            raise self._broken(f"the norm of the gradient is {total}", self.state.global_step)
        return norm

    def _broken(self, what: str, step: int, batches: Sequence[int] | None = None) -> InputError:
        """Return the error of a step that must not be kept; steps and their batches over all ranks count from 0."""
        origins = self._origins(step, batches)
        some = ", ".join(origins[:_ORIGINS]) + (f" and {len(origins) - _ORIGINS} more" * (len(origins) > _ORIGINS))
        last = next(iter(checkpoints_in(Path(str(self.args.output_dir)))), None)
        return InputError(
            f"step {step + 1}: {what}, on {some}; nothing of this step is saved, and "
            f"{f'{last} stands' if last else 'there is no checkpoint before it'}; mend these examples, or lower "
            "learning_rate"
        )

    def _origins(self, step: int, batches: Sequence[int] | None) -> list[str]:
        """Say where the examples of an optimizer step come from, or those of some of its batches.

        They are drawn again: batches don't carry what the model doesn't read.
        """
        sampler = self._get_train_sampler()
        size, ranks, accumulated = self._train_batch_size, self.args.world_size, self.args.gradient_accumulation_steps
        per_rank = len(sampler) / (size * ranks)
        per_epoch = math.ceil((math.floor if self.args.dataloader_drop_last else math.ceil)(per_rank) / accumulated)
        epoch, step = divmod(step, per_epoch)
        sampler.set_epoch(epoch)
        of_step = size * ranks * accumulated
        keys = list(islice(sampler, step * of_step, (step + 1) * of_step))
        if batches is not None:
            keys = [key for batch in batches for key in keys[batch * size : (batch + 1) * size]]
        encoded = cast(TreeDataset, self.train_dataset).encoded
        return [str(encoded[index]["origin"]) for _, index in keys if index is not None]

    def _require_finite_weights(self) -> None:
        """Stop before weights are saved that aren't numbers: a finite gradient may have moved them there.

        Raises:
            InputError: A trained weight isn't finite.
        """
        broken = 0
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                broken += int(not local.isfinite().all())
        if sum(gather_object([broken])):
            raise self._broken("weights aren't finite after it", max(0, self.state.global_step - 1))

    # Evaluation

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

    # Resuming

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train; a checkpoint of any number of processes will do, unless DeepSpeed saved it.

        Raises:
            InputError: This launch can't go on from the checkpoint, or not all processes see it.
        """
        if len(set(gather_object([str(resume_from_checkpoint)]))) > 1:
            raise InputError(
                "output_dir: some processes see no checkpoint, or another; use a folder that all nodes share"
            )
        if isinstance(resume_from_checkpoint, str):
            saved_on = check_resume(Path(resume_from_checkpoint), self._sharding, self.args.world_size)
            if saved_on is not None and saved_on != self.args.world_size:
                self._tell_of_other_processes(Path(resume_from_checkpoint).name, saved_on)
        result: TrainOutput = super().train(resume_from_checkpoint, *args, **kwargs)
        return result

    @property
    def _sharding(self) -> str | None:
        if self.is_deepspeed_enabled:
            return "deepspeed"
        return "fsdp" if self.is_fsdp_enabled else None

    def _check_sharding(self) -> None:
        """Stop where sharding was asked for and is not done, or done in a way that is not supported."""
        launched = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
        if launched != self.args.world_size:
            raise InputError(
                f"launch: {launched} processes were started and each trains alone; on a machine without GPUs "
                "add --use_cpu true"
            )
        asked_for = self.args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1")
        if asked_for and not self.is_fsdp_enabled:
            raise InputError(
                f"fsdp: accelerate does not shard in this launch ({self.args.world_size} process(es) "
                f"on {self.args.device.type}); leave fsdp out, or launch on GPUs with torchrun or accelerate"
            )
        if self.is_fsdp_enabled:
            plugin = self.accelerator.state.fsdp_plugin
            if plugin.fsdp_version != 2:
                raise InputError("fsdp: version 1 is not supported; set fsdp_version to 2")
            if not self.args.save_only_model:  # one format, that any number of processes can read
                plugin.state_dict_config = plugin.optim_state_dict_config = None  # of the format before
                plugin.set_state_dict_type("SHARDED_STATE_DICT")
        if self.is_deepspeed_enabled:
            config = self.accelerator.state.deepspeed_plugin.hf_ds_config
            if config.mismatches:
                raise InputError(
                    f"deepspeed: the launch configuration contradicts the options ({config.mismatches[0][2:]}); "
                    "set it to auto there"
                )
            if config.is_zero3() and not config.is_true("zero_optimization.stage3_gather_16bit_weights_on_model_save"):
                raise InputError(
                    "deepspeed: ZeRO-3 would save no model; set zero3_save_16bit_model to true in the launch "
                    "configuration (stage3_gather_16bit_weights_on_model_save in one of DeepSpeed's own)"
                )

    def _tell_of_other_processes(self, checkpoint: str, saved_on: int) -> None:
        """Say what depends on the number of processes: cuts and RTO dropout don't, a model's own dropout does."""
        dropout = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in self.model.modules())
        effect = "the model's own dropout is drawn afresh" if dropout else "the steps are those of an unbroken run"
        logger.info(
            "%s: saved on %d process(es), going on with %d: %s", checkpoint, saved_on, self.args.world_size, effect
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if holds_shards(Path(resume_from_checkpoint)) and not self.is_fsdp_enabled:
            load_model_shards(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_fsdp_enabled or not holds_shards(Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer_shards(self.model, cast(Any, self.optimizer).optimizer, Path(checkpoint))
        cast(Any, self.lr_scheduler).load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    # Saving

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model, of a sharded run as well.

        Raises:
            InputError: Its weights aren't finite.
        """
        self._require_finite_weights()
        super().save_model(output_dir, _internal_call)
        if self.is_fsdp_enabled and not self.args.save_only_model and not _internal_call:
            self._save(output_dir, state_dict=whole_weights(self.model))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the model without the pickle of arguments that transformers puts beside it, and that nobody reads."""
        super()._save(output_dir, state_dict)
        Path(output_dir or str(self.args.output_dir), TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        # Older checkpoints go only after this one is known to be whole: a kill in between loses nothing.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            directory = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            saved_by = {"processes": self.args.world_size, "sharding": self._sharding}
            write_json(directory / IDENTITY, {**self.run_identity, "step": self.state.global_step, **saved_by})
            remove_old_checkpoints(directory.parent, limit, self.state.best_model_checkpoint)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write `README.md` with the run's own configuration and numbers."""
        if self.is_world_process_zero():
            write_model_card(
                Path(str(self.args.output_dir)) / "README.md",
                args=self.args,
                state=self.state,
                base=getattr(self.model.config, "_name_or_path", "") or "",
                examples=len(self.train_dataset or ()),
            )


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
