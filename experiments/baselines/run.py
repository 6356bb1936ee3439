"""A baseline in a run like those of `derta train`: what `derta train --method NAME` finds."""

import json
from typing import Any

import numpy as np
from datasets import Dataset
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from derta.errors import InputError, first_line
from derta.terminal import screen
from derta.tokens.encoder import Encoder
from derta.tokens.prompt_formats import set_prompt_format
from derta.training.dataset import encode_dataset, values_of
from derta.training.dry_run import steps_line
from derta.training.options import TrainOptions
from derta.training.run import Training
from derta.training.run_trainer import RunTrainer
from experiments.baselines.base import Setting, constants_of, find_baseline
from experiments.baselines.config import OF_DERTA, BaselineConfig


def _setting(options: TrainOptions, train_data: Dataset, tokenizer: PreTrainedTokenizerBase) -> Setting:
    given: Any = options.config
    if options.data.eval_data:
        raise InputError("eval_data: baselines have no loss by term to evaluate; leave it out, and use derta eval")
    ignored = [option for option in OF_DERTA if option in options.overrides]
    if ignored:
        screen.say(f"{', '.join(ignored)}: of derta's own objective, no part of {given.method}")
    constants = constants_of(find_baseline(given.method), given.constants)
    return Setting(options, train_data, tokenizer, constants)


def _make(options: TrainOptions, train_data: Dataset, tokenizer: PreTrainedTokenizerBase) -> RunTrainer:
    setting = _setting(options, train_data, tokenizer)
    try:
        return find_baseline(setting.config.method).make(setting)
    except InputError:
        raise
    except (OSError, ImportError, ValueError) as error:
        name = options.model.model_name_or_path
        raise InputError(f"model_name_or_path: can't set up {name!r}: {first_line(error)}") from error


def _show_plan(options: TrainOptions, train_data: Dataset, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    setting = _setting(options, train_data, tokenizer)
    config, baseline = setting.config, find_baseline(setting.config.method)
    set_prompt_format(tokenizer, config.prompt_format)
    encoded = encode_dataset(
        train_data,
        Encoder.from_config(tokenizer, config),
        name="train_data",
        drop_overlong=config.overlong_prompts == "drop",
        num_proc=config.dataset_num_proc,
    )
    safety = np.count_nonzero(values_of(encoded, "rto") | values_of(encoded, "fixed_cut"))
    table = Table(title=f"{baseline.name}: {baseline.summary}", title_justify="left", show_header=False)
    table.add_row("source", baseline.source)
    table.add_row("safety examples", f"{safety:,}")
    table.add_row("helpful examples", f"{len(encoded) - safety:,}")
    for name, value in setting.constants.items():
        table.add_row(f"constant {name}", json.dumps(value))
    if baseline.first:
        table.add_row("first, out of the same budget", baseline.first)
    console = screen.console()
    console.print(table)
    console.print(steps_line(config, len(encoded)), soft_wrap=True)
    console.print("memory isn't estimated for baselines", soft_wrap=True)


TRAINING = Training("derta train", BaselineConfig, _make, _show_plan)
