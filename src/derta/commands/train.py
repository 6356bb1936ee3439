"""`derta train`: one run from a recipe to a saved model."""

import os
import shlex
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derta.docstrings import docstring_of, parameters
from derta.terminal import screen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from derta.evaluation.callback import AttackSuccessCallback
    from derta.training.options import TrainOptions
    from derta.training.run_trainer import RunTrainer

_OWN = {
    "data": ("derta", "training/options.py", "DataOptions"),
    "the run": ("derta", "training/options.py", "RunOptions"),
    "attacks while training": ("derta", "training/options.py", "AttackOptions"),
    "the method": ("derta", "training/config.py", "DeRTaConfig"),
}
# Of the rest those that most runs set; `--help-all` has them all.
_MOST_USED = {
    ("trl", "trainer/model_config.py", "ModelConfig"): ("model_name_or_path", "use_peft", "lora_r"),
    ("transformers", "training_args.py", "TrainingArguments"): (
        *("output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("bf16", "seed"),
    ),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the help alone: options are fields of dataclasses, and the trainer's own parser reads them."""
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show derta's options and the most used others")
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, help="show every option")
    parser.set_defaults(rest=[], after_interrupt="the same command goes on from the newest checkpoint, if there is one")


def add_options(parser: ArgumentParser) -> None:
    """Declare derta's own options and the most used others as their docstrings describe them, without loading them."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML recipe, or a name that derta recipes lists; options on the command line win over it",
    )
    for title, place in _OWN.items():
        _add_options(parser.add_argument_group(title), place)
    others = parser.add_argument_group("of transformers and PEFT, the most used")
    for place, names in _MOST_USED.items():
        _add_options(others, place, names)


def _add_options(group: Any, place: tuple[str, str, str], names: tuple[str, ...] = ()) -> None:
    package, file, class_ = place
    spec = find_spec(package)
    folder = Path(__file__).parents[1] if package == "derta" else Path(str(spec and spec.origin)).parent
    found = parameters(docstring_of(folder / file, class_))
    for name in names or found:
        type_, text = found[name]
        # Of other libraries' long stories the first sentence.
        shown = text.partition(". ")[0].rstrip(".") + "." if names else text
        default = type_.partition("defaults to ")[2].strip("`")
        told = f"{shown} Default: {default}." if default else shown
        kind = type_.partition("`, *optional*")[0].strip("`").partition("`")[0]
        group.add_argument(f"--{name.replace('_', '-')}", metavar=kind.upper(), help=told.replace("%", "%%"))


class _Help(Action):
    def __call__(self, parser: ArgumentParser, namespace: Namespace, *given: Any) -> None:
        shown = ArgumentParser(
            prog="derta train",
            usage="derta train --config RECIPE [--OPTION VALUE ...]",
            description="Tune a model. Every option is a key of the recipe too, with underscores in place of dashes; "
            "the command line takes both spellings and wins. The same command again goes on where a run stopped.",
            epilog="derta train --help-all shows every option of TrainingArguments and TRL's ModelConfig as well.",
            add_help=False,
        )
        add_options(shown)
        shown.print_help()
        parser.exit()


class _HelpAll(Action):
    def __call__(self, parser: ArgumentParser, namespace: Namespace, *given: Any) -> None:
        from derta.training.options import parse_options

        parse_options(["--help"])


def run(args: Namespace) -> int:
    """Train, or finish what the directory holds.

    Raises:
        InputError: An option, the model, the data or the directory is wrong.
    """
    from derta.training.run import train_command

    # Of several processes the first one speaks.
    screen.quiet |= os.environ.get("RANK", "0") != "0"
    with screen.libraries_aside():
        directory = train_command(args.rest, plan_attacks)
    if directory is not None:
        screen.say(f"next: {_next_step(directory)}")
    return 0


def _next_step(directory: Path) -> str:
    """Return the evaluation of a run, as a command that works as printed."""
    from derta.generation.loading import world_of

    place = shlex.quote(str(directory))
    asked = "" if world_of(str(directory)) is not None else " --behaviours FILE-OF-HARMFUL-PROMPTS"
    return f"derta eval --model {place}{asked} --out {shlex.quote(str(directory / 'evaluation'))}"


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
