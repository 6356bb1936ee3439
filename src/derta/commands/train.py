"""`derta train`: one run from a recipe to a saved model."""

import os
import shlex
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derta.errors import InputError, did_you_mean
from derta.terminal import screen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from derta.evaluation.callback import AttackSuccessCallback
    from derta.training.options import TrainOptions
    from derta.training.run import Training
    from derta.training.run_trainer import RunTrainer

_MOST_USED = (
    *("model_name_or_path", "use_peft", "lora_r", "output_dir", "num_train_epochs", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "seed"),
)
"""Of transformers and PEFT; `--help-all` shows the others."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the help alone: options are fields of dataclasses, and the trainer's own parser reads them."""
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show derta's options and the most used others")
    parser.add_argument("--help-all", action=_Help, nargs=0, help="show every option")
    after = "the same command goes on from the newest checkpoint, if there is one"
    parser.set_defaults(rest=[], after_interrupt=after)


def add_options(parser: ArgumentParser, everything: bool = False) -> None:
    """Add the trainer's options to a parser that shows or completes them, in groups; the method's come last."""
    from derta.training.config import DeRTaConfig
    from derta.training.options import AttackOptions, DataOptions, RunOptions, make_parser

    actions: dict[str, Action] = {}
    for action in make_parser()._actions[1:]:  # without its own --help
        # The first of a name: `no_…` complements of options that default to true come after it.
        actions.setdefault(action.dest, action)
    groups = {
        "of transformers and PEFT, the most used": ["config", *_MOST_USED],
        "data": [field.name for field in fields(DataOptions)],
        "the run": [field.name for field in fields(RunOptions)],
        "attacks while training": [field.name for field in fields(AttackOptions)],
        "the method": [name for name in DeRTaConfig.__annotations__ if name in actions],
    }
    if everything:
        known = set().union(*groups.values())
        groups["all others of transformers and PEFT"] = [name for name in actions if name not in known]
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            action = actions[name]
            action.option_strings = [f"--{name.replace('_', '-')}"]
            if name in _MOST_USED and action.help:
                action.help = action.help.partition(". ")[0]
            group._add_action(action)


class _Help(Action):
    def __call__(self, parser: ArgumentParser, namespace: Namespace, given: Any, option: str | None = None) -> None:
        shown = ArgumentParser(
            prog="derta train",
            usage="derta train --config RECIPE [--OPTION VALUE ...]",
            description="Tune a model. Every option is a key of the recipe too, with underscores in place of dashes; "
            "the command line takes both spellings and wins. The same command again goes on where a run stopped.",
            epilog="derta train --help-all shows every option of TrainingArguments and TRL's ModelConfig as well.",
            add_help=False,
        )
        add_options(shown, everything=option == "--help-all")
        shown.print_help()
        parser.exit()


def run(args: Namespace) -> int:
    """Train, or finish what the directory holds.

    Raises:
        InputError: An option, the model, the data or the directory is wrong.
    """
    from derta.method.tree_builder import METHODS
    from derta.training.options import method_of
    from derta.training.run import train_command

    # Of several processes the first one speaks.
    screen.quiet |= os.environ.get("RANK", "0") != "0"
    with screen.libraries_aside():
        method = method_of(args.rest)
        directory = train_command(args.rest, plan_attacks, None if method in METHODS else baseline(method))
    # Another process may still be saving what the evaluation would read.
    if directory is not None and not screen.quiet:
        screen.say(f"next: {_next_step(directory)}")
    return 0


def _next_step(directory: Path) -> str:
    """Return the evaluation of a run, as a command that works as printed."""
    from derta.generation.loading import world_of

    place = shlex.quote(str(directory))
    asked = "" if world_of(str(directory)) is not None else " --behaviours FILE-OF-HARMFUL-PROMPTS"
    return f"derta eval --model {place}{asked} --out {shlex.quote(str(directory / 'evaluation'))}"


def baseline(name: str) -> "Training":
    """Return how a method to compare with is trained; they come with a clone, not with the package.

    Raises:
        InputError: There is no such method, or none at all here.
    """
    from derta.method.tree_builder import METHODS

    try:
        known = import_module("experiments.baselines").BASELINES
    except ModuleNotFoundError:
        known = {}
    if name not in known:
        every = [*METHODS, *known]
        where = "" if known else "; methods to compare with (DPO, DOOR, …) come with a clone of the repository"
        raise InputError(f"method: no {name!r}{did_you_mean(name, every)}; one of {', '.join(every)}{where}")
    training: Training = import_module("experiments.baselines.run").TRAINING
    return training


def plan_attacks(
    options: "TrainOptions", tokenizer: "PreTrainedTokenizerBase"
) -> "Callable[[RunTrainer], AttackSuccessCallback]":
    """Settle how a model is attacked while it trains, and return what makes a trainer's callback of it.

    Raises:
        InputError: An option or a file is wrong, or an attack asks more than once.
    """
    from derta.evaluation.attacks import attack_names
    from derta.evaluation.callback import AttackSuccessCallback, plan_of
    from derta.evaluation.config import Options
    from derta.generation.loading import world_of

    asked = options.attack
    world = world_of(str(options.model.model_name_or_path))
    attacks = Options(
        attacks=tuple(attack_names(asked.attacks)),
        behaviours=asked.attack_behaviours,
        borderline=(asked.attack_borderline,) if asked.attack_borderline else (),
        limit=asked.attack_limit,
        depths=tuple(asked.attack_depths) if asked.attack_depths else None,
        max_new_tokens=asked.attack_max_tokens or (128 if world is None else None),
    )
    plan_of(attacks, tokenizer, world)
    return lambda trainer: AttackSuccessCallback(trainer, attacks, every=asked.attack_steps or 0, world=world)
