"""`BaselineTrainer`: a method's loss on sequences, in a run like any other of `derta train`."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import get_peft_config

from derta.errors import InputError
from derta.generation.loading import load_weights
from derta.names import model_path
from derta.tokens.encoder import EncodedExample, Encoder
from derta.tokens.prompt_formats import set_prompt_format
from derta.tokens.refusal_tokens import WhiteSpace
from derta.training.dataset import encode_dataset, values_of
from derta.training.dry_run import count_steps
from derta.training.model_card import settings_of
from derta.training.run import model_kwargs, train_run
from derta.training.run_directory import RunDirectory
from derta.training.run_trainer import RunTrainer
from derta.training.trainer import DeRTaTrainer, add_adapter
from experiments.baselines.base import Constants, Setting, find_baseline
from experiments.baselines.sequences import (
    Part,
    SequenceDataset,
    TokenSequence,
    collate,
    helpful,
    is_target,
    safe,
    target_log_probs,
)

_SETTINGS = ("prompt_format", "chat_template_kwargs", "max_length", "learning_rate", "max_steps", "seed")

Make = Callable[[Setting], RunTrainer]


class BaselineTrainer(RunTrainer):
    """Trainer of a baseline; by itself it is ordinary fine-tuning on safe and helpful responses.

    A method changes what it needs: the tokenizer and the rows before they are encoded, the `sequences` of an example,
    the `loss` of a batch. Losses are means over a micro-batch: unlike derta's, a step depends a little on how it is
    split into them. Data orders and draws resume exactly; what a method keeps beside the model it says itself.

    Args:
        setting: Says what to train, on what.

    Raises:
        InputError: The model, the data and the options do not fit together.
    """

    stage = ""
    """The method of derta's own path that the model is trained with first, out of the same budget; empty for none."""
    needs_reference = False
    """Whether the loss reads `reference`, the frozen model that this stage starts from."""

    def __init__(self, setting: Setting) -> None:
        config = setting.config
        baseline = find_baseline(config.method)
        self.about = f"{baseline.summary} ({baseline.source}), a baseline to compare with."
        self.run_identity = {
            "method": config.method,
            "seed": config.seed,
            "base": setting.options.model.model_name_or_path,
        }
        self.setting, self.constants = setting, setting.constants
        if self.stage and setting.options.model.use_peft:
            raise InputError(f"use_peft: {config.method} trains in stages, each of them in full; leave it out")
        set_seed(config.seed)

        # Budget
        config = copy.copy(config)
        config.learning_rate *= self.constants.get("learning_rate_scale", 1.0)
        self.budget = count_steps(config, len(setting.train_data))
        if self.stage:
            self.first_steps = share_of(self.budget, self.constants["first_share"], "first_share")
            config.max_steps = self.budget - self.first_steps

        # Tokenizer and model
        name = model_path(str(setting.options.model.model_name_or_path))
        model: Any = load_weights(name, **{"dtype": "float32", **model_kwargs(setting.options)})
        set_prompt_format(setting.tokenizer, config.prompt_format)
        tokenizer = self.prepare_tokenizer(setting.tokenizer, model)
        self.reference: PreTrainedModel | None = None
        if self.needs_reference:
            self.reference = frozen_copy(model, config.device)
        peft_config = get_peft_config(setting.options.model)
        if peft_config is not None:
            model = add_adapter(model, peft_config, config)

        # Data
        encoder, self.white_space = Encoder.from_config(tokenizer, config), WhiteSpace(tokenizer)
        encoded = encode_dataset(
            self.prepare_data(setting.train_data),
            encoder,
            name="train_data",
            drop_overlong=config.overlong_prompts == "drop",
            num_proc=config.dataset_num_proc,
        )
        triples = values_of(encoded, "rto") & ~values_of(encoded, "fixed_cut")
        if not triples.any():
            raise InputError(f"train_data: {config.method} needs triples, and no example has a rejected response")
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        super().__init__(
            model=model,
            args=config,
            data_collator=partial(collate, pad_token_id=pad),
            train_dataset=SequenceDataset(encoded, self.sequences, config.seed),
            processing_class=self.saved_tokenizer(tokenizer),
        )
        # A micro-batch's mean is divided by how many of them a step accumulates.
        self.model_accepts_loss_kwargs = False

    # What a method changes

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
        """Return the tokenizer that renders the training prompts; the model may have to follow it."""
        return tokenizer

    def saved_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return the tokenizer that is saved beside the model, and renders prompts from then on."""
        return tokenizer

    def prepare_data(self, dataset: Dataset) -> Dataset:
        """Return the rows to encode, in canonical columns."""
        return dataset

    def sequences(self, example: EncodedExample, draws: np.random.Generator) -> list[TokenSequence]:
        """Return what is read of an example in one epoch; nothing for a half of a triple that lacks a response."""
        if not example.is_safety:
            return [helpful(example)]
        return [safe(example, self.white_space)] if example.chosen and not example.fixed_cut else []

    def loss(self, model: Any, batch: dict[str, Part]) -> torch.Tensor:
        """Return the loss of a batch: by default the mean over all targets."""
        log_probs = [target_log_probs(model, part).sum() for part in batch.values()]
        count = sum(int(is_target(part).sum()) for part in batch.values())
        return -torch.stack(log_probs).sum() / count

    # What they share

    def train_stages(self) -> None:
        """Train the first stage, if there is one, and go on from its weights."""
        if self.stage:
            make = partial(make_derta, method=self.stage)
            state = train_stage(self, "first-stage", self.stage, self.first_steps, make).state_dict()
            for model in filter(None, (self.model, self.reference)):
                model.load_state_dict(state)

    def compute_loss(
        self, model: torch.nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the method's loss of a batch."""
        # An epoch may end with a batch of examples that the method has no use for.
        loss = self.loss(model, inputs) if inputs else sum(0.0 * p.sum() for p in model.parameters() if p.requires_grad)
        return (loss, {}) if return_outputs else loss

    def card_settings(self) -> Mapping[str, Any]:
        """Return what the card says of the configuration, by name."""
        return {**self.constants, **settings_of(self.args, _SETTINGS)}


def share_of(budget: int, share: float, constant: str) -> int:
    """Return how many steps of a budget a stage takes; at least one is left.

    Raises:
        InputError: The share isn't one.
    """
    if not 0 < share < 1:
        raise InputError(f"`constants` {constant}: {share} is not between 0 and 1")
    if budget < 2:
        raise InputError("max_steps: two stages share the steps, and there is only one; raise it")
    return min(budget - 1, max(1, round(share * budget)))


def frozen_copy(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a copy of a model that stays as it is, on the device of training."""
    frozen: Any = copy.deepcopy(model).eval().requires_grad_(False)
    return cast(PreTrainedModel, frozen.to(device))


def make_derta(setting: Setting, method: str) -> DeRTaTrainer:
    """Make the trainer of a stage that is one of derta's own methods."""
    config = setting.config
    config.method, config.model_init_kwargs = method, model_kwargs(setting.options)
    name = model_path(str(setting.options.model.model_name_or_path))
    return DeRTaTrainer(name, config, setting.train_data, processing_class=copy.deepcopy(setting.tokenizer))


def train_stage(
    trainer: BaselineTrainer | Any,
    name: str,
    method: str,
    steps: int,
    make: Make,
    constants: Constants | None = None,
) -> PreTrainedModel:
    """Train a stage in a directory of its own inside the run's, or finish it, and return its model.

    Args:
        trainer: Is the trainer of the run, with its `setting`.
        name: Names the directory.
        method: Names the method of the stage.
        steps: Says how much of the run's budget the stage takes.
        make: Makes the stage's trainer from a setting with this budget.
        constants: Are the stage's, if it is a baseline of its own.
    """
    setting: Setting = trainer.setting
    path = Path(str(trainer.args.output_dir)) / name
    config = copy.copy(setting.config)
    config.method, config.output_dir, config.max_steps = method, str(path), steps
    own: Mapping[str, Any] = trainer.run_identity.get("settings", {})
    identity = {**trainer.run_identity, "method": method, "settings": {**own, "max_steps": steps}}
    run = RunDirectory(path, identity)
    overwrite = setting.options.run.overwrite
    run.check(overwrite)
    if not run.finished or overwrite:
        stage = make(setting.with_config(config, constants))
        stage.run_identity = identity
        run.claim({"stage_of": setting.config.method, "method": method, "max_steps": steps}, overwrite)
        train_run(stage, run)
    # What is drawn next doesn't depend on whether the stage was trained now or before.
    set_seed(config.seed)
    return load_weights(str(path))
