"""DPO on the triples, from a vanilla model.

Source: Rafailov et al., "Direct Preference Optimization" (arXiv 2305.18290), with TRL's `DPOTrainer`; the reference is
the vanilla model that it starts from.

    L = −log σ(β [log π(y⁺)/π_ref(y⁺) − log π(y⁻)/π_ref(y⁻)])

The two stages share the budget: `first_share` of the steps go to `vanilla` on all the data (half by default), the rest
to DPO on the triples alone. β = 0.1. The rate of DPO is a fraction of the recipe's, `learning_rate_scale`: 5e-7 for 8 B
models against 2e-5 of ordinary fine-tuning would be 0.025.

Different from TRL's default: prompts and responses are tokenised as everywhere in derta, y⁻ has no end-of-turn token,
and an interrupted second stage resumes from its checkpoint.
"""

import copy
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer

from derta.errors import InputError
from derta.generation.loading import load_weights
from derta.names import model_path
from derta.tokens.encoder import Encoder
from derta.tokens.prompt_formats import set_prompt_format
from derta.training.dataset import encode_dataset, values_of
from derta.training.dry_run import count_steps
from derta.training.model_card import settings_of
from derta.training.run import model_kwargs
from derta.training.run_trainer import RunTrainer
from experiments.baselines.base import Baseline, Setting, register_baseline
from experiments.baselines.trainer import make_derta, share_of, train_stage


class TripleDataset(torch.utils.data.Dataset[dict[str, list[int]]]):
    """Triples as TRL's collator reads them, asked by (epoch, index)."""

    def __init__(self, encoded: Dataset) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens the two sequences of each triple have."""
        return np.array(
            [2 * len(each["prompt"]) + len(each["chosen"]) + len(each["rejected"]) for each in self.encoded]
        )

    def __getitem__(self, key: tuple[int, int]) -> dict[str, list[int]]:
        _, index = key
        triple = self.encoded[index]
        return {f"{name}_ids": triple[name] for name in ("prompt", "chosen", "rejected")}


class DPO(RunTrainer, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer in a run of derta's, behind a first stage."""

    about = "Direct Preference Optimization on the triples, from a vanilla model (arXiv 2305.18290), a baseline."

    def __init__(self, setting: Setting) -> None:
        self.setting, self.constants = setting, setting.constants
        config = setting.config
        if setting.options.model.use_peft:
            raise InputError(f"use_peft: {config.method} trains in stages, each of them in full; leave it out")
        name = str(setting.options.model.model_name_or_path)
        self.run_identity = {"method": config.method, "seed": config.seed, "base": name}
        tokenizer = setting.tokenizer
        set_prompt_format(tokenizer, config.prompt_format)
        encoded = encode_dataset(
            setting.train_data,
            Encoder.from_config(tokenizer, config),
            name="train_data",
            drop_overlong=config.overlong_prompts == "drop",
            num_proc=config.dataset_num_proc,
        )
        is_triple = values_of(encoded, "rto") & (np.array([len(each) for each in encoded["chosen"]]) > 0)
        if not is_triple.any():
            raise InputError(f"train_data: {config.method} needs triples, and no example has a rejected response")
        triples = encoded.select(np.flatnonzero(is_triple))
        budget = count_steps(config, len(encoded))
        self.first_steps = share_of(budget, self.constants["first_share"], "first_share")
        model = load_weights(model_path(name), **{"dtype": "float32", **model_kwargs(setting.options)})
        super().__init__(
            model=model,
            ref_model=copy.deepcopy(model),
            args=dpo_config(setting, max_steps=budget - self.first_steps),
            train_dataset=triples,
            processing_class=tokenizer,
        )
        self.train_dataset: Any = TripleDataset(triples)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset  # tokenised as everywhere in derta

    def train_stages(self) -> None:
        """Train the vanilla model, from which DPO starts and to which it compares."""
        make = partial(make_derta, method="vanilla")
        state = train_stage(self, "first-stage", "vanilla", self.first_steps, make).state_dict()
        for model in (self.model, self.ref_model):
            model.load_state_dict(state)

    def card_settings(self) -> Mapping[str, Any]:
        """Return what the card says of the configuration, by name."""
        names = ("prompt_format", "chat_template_kwargs", "max_length", "seed")
        return {**self.constants, **settings_of(self.setting.config, names)}


def dpo_config(setting: Setting, max_steps: int) -> DPOConfig:
    """Return TRL's configuration of a run: transformers' own options, DPO's constants and nothing cut."""
    config = setting.config
    names = [field.name for field in fields(TrainingArguments) if field.init]
    shared = {name: getattr(config, name) for name in names}
    shared |= {"learning_rate": config.learning_rate * setting.constants["learning_rate_scale"], "max_steps": max_steps}
    return DPOConfig(**shared, beta=setting.constants["beta"], max_length=None)


CONSTANTS = {"beta": 0.1, "first_share": 0.5, "learning_rate_scale": 0.025}

register_baseline(
    Baseline("dpo", "DPO on the triples, from vanilla (TRL)", "arXiv 2305.18290", DPO, CONSTANTS, first="vanilla")
)
