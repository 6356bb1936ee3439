"""A `Trainer` whose runs go on as if unbroken, stop at what isn't finite and save whole models."""

import logging
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from derta.errors import InputError, first_line
from derta.files import file_digests, sync_files, write_json, written_whole
from derta.run_identity import IDENTITY
from derta.termination import termination
from derta.training.config import DeRTaConfig
from derta.training.fsdp_checkpoint import (
    check_shards,
    holds_shards,
    load_model_shards,
    load_optimizer_shards,
    whole_weights,
)
from derta.training.model_card import DataSource, write_model_card
from derta.training.run_directory import check_resume, checkpoints_in, remove_old_checkpoints
from derta.training.sampling import EpochSampler, StepShape

logger = logging.getLogger(__name__)

_ORIGINS = 8
"""Examples of a broken step that are named."""


class Keyed(Protocol):
    """A data set that is asked by (epoch, index).

    Attributes:
        encoded: Holds the encoded examples; `origin` is one of its columns.
    """

    encoded: Any

    @property
    def lengths(self) -> np.ndarray:
        """Roughly how many tokens each example has."""

    def __len__(self) -> int: ...


def answering_model(trainer: Trainer) -> PreTrainedModel:
    """Return the model that a trainer tunes, unwrapped, so that it answers in batches; its layers hold any adapter."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


class RunTrainer(Trainer):
    """What trainers of runs share: order of examples, broken steps, resuming, saving, the card.

    Attributes:
        run_identity: Says whose run it is, at least `method`, `seed` and `base`; it lies beside every checkpoint.
    """

    about: str = ""
    """What the card says of the method, in a sentence that follows "of derta"."""
    data_sources: Sequence[DataSource] = ()
    """What the card says of the data."""

    args: DeRTaConfig
    model: Any
    run_identity: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._losses: list[torch.Tensor] = []
        """The losses of the optimizer step so far."""
        self.ends_early = False
        """Whether a process of the run was asked to end: it stops after this step, with a checkpoint."""
        super().__init__(*args, **kwargs)
        self.add_callback(_EndEarly(self))

    def train_stages(self) -> None:
        """Train the models that this run starts from or compares with, if its method has any.

        The command calls it once the run's directory is claimed, before training itself.
        """

    def card_settings(self) -> Mapping[str, Any]:
        """Return what the card says of the configuration, by name."""
        return {}

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer, or stop in a line at what it doesn't take."""
        try:
            return super().create_optimizer(*args, **kwargs)
        except (ValueError, ImportError) as error:
            raise InputError(f"optim: {first_line(error)}") from error

    # Order of examples

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
        asked = losses.new_tensor(float(termination.asked))
        loss, asked_to_end = self.accelerator.reduce(torch.stack([losses.sum(), asked]), reduction="sum").tolist()
        self.ends_early = asked_to_end > 0
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
        encoded = cast(Keyed, self.train_dataset).encoded
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
            check_shards(Path(resume_from_checkpoint))
            if saved_on is not None and saved_on != self.args.world_size:
                self._tell_of_other_processes(Path(resume_from_checkpoint).name, saved_on)
        try:
            result: TrainOutput = super().train(resume_from_checkpoint, *args, **kwargs)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"output_dir: {resume_from_checkpoint}: holds more than weights, which isn't read; remove it to go on "
                f"from the one before it ({first_line(error)})"
            ) from error
        return result

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing where a resumed run has taken all its steps: the base class would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            cast(Any, super())._run_epoch(*args, **kwargs)

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
            return
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except InputError:
            raise
        # transformers raises nearly anything on a damaged file; the cause stays chained.
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{resume_from_checkpoint}: can't be read: {first_line(error)}; delete it to go on from the one before"
            ) from error

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
        """Save the model without the pickle of arguments that transformers puts beside it, and that nobody reads.

        Files of the run's own directory appear whole; a checkpoint is one when its `derta.json` is there.
        """
        directory = Path(output_dir or str(self.args.output_dir))
        if not self.args.should_save:
            super()._save(output_dir, state_dict)
            return
        is_checkpoint = directory.name.startswith(PREFIX_CHECKPOINT_DIR)
        with nullcontext(directory) if is_checkpoint else written_whole(directory) as place:
            super()._save(str(place), state_dict)
            (place / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            saved = {path.name for path in place.iterdir()}
        # A model that was written over may have been in other files.
        for path in [*directory.glob("model*.safetensors*"), *directory.glob("adapter_model*.safetensors")]:
            if path.name not in saved:
                path.unlink()

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
            sync_files(directory)
            saved_by = {"processes": self.args.world_size, "sharding": self._sharding}
            of_step = {"step": self.state.global_step, **saved_by, "files": file_digests(directory)}
            write_json(directory / IDENTITY, {**self.run_identity, **of_step})
            remove_old_checkpoints(directory.parent, limit, self.state.best_model_checkpoint)

    def create_model_card(  # type: ignore[override]  # TRL's arguments, in its order
        self, model_name: str | None = None, dataset_name: Any = None, tags: Any = None, **others: Any
    ) -> None:
        """Write `README.md` with the run's own configuration and numbers.

        Args:
            model_name (`str`, *optional*): Title of the card; defaults to the directory's name.
            dataset_name (`str` or `list[str]`, *optional*), tags (`str` or `list[str]`, *optional*):
                More of its metadata, as in TRL.
        """
        if self.is_world_process_zero():
            write_model_card(
                Path(str(self.args.output_dir)) / "README.md",
                args=self.args,
                state=self.state,
                base=getattr(self.model.config, "_name_or_path", "") or "",
                examples=len(cast(Any, self.train_dataset) or ()),
                method=self.run_identity["method"],
                about=self.about,
                settings=self.card_settings(),
                sources=self.data_sources,
                is_adapter=hasattr(self.model, "peft_config"),
                name=model_name,
                datasets=[dataset_name] if isinstance(dataset_name, str) else dataset_name,
                tags=[tags] if isinstance(tags, str) else tags,
            )


class _EndEarly(TrainerCallback):
    """Saves and ends after the step in which SIGTERM came."""

    def __init__(self, trainer: RunTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Ask the trainer to save and stop."""
        if self._trainer.ends_early:
            if control.should_evaluate:
                logger.warning("step %d: asked to end before its evaluation, which is left out", state.global_step)
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True
