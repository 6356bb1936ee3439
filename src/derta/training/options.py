"""Options of `derta train`: a YAML recipe, and command-line options that win over it."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import torch
from transformers import HfArgumentParser
from trl import ModelConfig

from derta.errors import InputError, did_you_mean
from derta.names import recipe_path
from derta.strict import read_yaml
from derta.training.config import DeRTaConfig, check_positive


@dataclass
class DataOptions:
    """Options that say what to train and evaluate on.

    Parameters:
        train_data (`list[str]`):
            Files or dataset names with triples and helpful examples.
        eval_data (`list[str]`, *optional*):
            Files or dataset names to evaluate on.
        ratios (`list[float]`, *optional*):
            Relative numbers of examples from each entry of `train_data`.
        max_examples (`int`, *optional*):
            Maximum number of examples of the mixture.
        schema (`str`, *optional*, defaults to `"auto"`):
            Names how to read the columns; `"auto"` recognises them.
        bad_rows (`str`, *optional*, defaults to `"stop"`):
            Stops at a bad row, or with `"skip"` lists bad rows and leaves them out, a tenth of all at most.
        swap (`bool`, *optional*, defaults to `False`):
            Whether to swap `chosen` and `rejected`.
        polarity_checked (`bool`, *optional*, defaults to `False`):
            Whether somebody read triples of a source in which no response reads like a refusal.
    """

    train_data: list[str] = field(default_factory=list)
    eval_data: list[str] = field(default_factory=list)
    ratios: list[float] | None = None
    max_examples: int | None = None
    schema: str = "auto"
    bad_rows: Literal["stop", "skip"] = "stop"
    swap: bool = False
    polarity_checked: bool = False


@dataclass
class RunOptions:
    """Options that say what to do with the run.

    Parameters:
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to start anew in an output directory that holds a run.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to print the plan and stop.
    """

    overwrite: bool = False
    dry_run: bool = False


@dataclass
class AttackOptions:
    """Options that say how to attack the model while it trains: its own answers tell how far it has come.

    Parameters:
        attack_steps (`int`, *optional*):
            Steps between two measurements of attack success, the last step included. Left out, there is none.
        attacks (`str`, *optional*, defaults to `"direct,prefill"`):
            Attacks that ask once, as `derta eval` names them.
        attack_behaviours (`str`, *optional*):
            File of harmful prompts, as `derta eval` reads them; an organism has its own.
        attack_borderline (`str`, *optional*):
            File of harmless prompts that look harmful, for over-refusal.
        attack_limit (`int`, *optional*, defaults to `20`):
            Prompts of each kind at most.
        attack_depths (`list[int]`, *optional*):
            Tokens that prefill begins answers with; by default those of `derta eval`.
        attack_max_tokens (`int`, *optional*):
            Tokens of an answer at most. Defaults to 128, a quarter of what `derta eval` lets a model write; an
            organism's answers end at 96.
    """

    attack_steps: int | None = None
    attacks: str = "direct,prefill"
    attack_behaviours: str | None = None
    attack_borderline: str | None = None
    attack_limit: int = 20
    attack_depths: list[int] | None = None
    attack_max_tokens: int | None = None


@dataclass(frozen=True)
class TrainOptions:
    """All options of one run; `overrides` are those that differ from their defaults, as they were given."""

    config: DeRTaConfig
    data: DataOptions
    model: ModelConfig
    run: RunOptions
    attack: AttackOptions
    overrides: dict[str, Any]


_DATACLASSES: tuple[Any, ...] = (DataOptions, ModelConfig, RunOptions, AttackOptions)
"""Of the options beside the configuration of the trainer."""


_DOCUMENTED = re.compile(r"^    (\w+) ?\(.*\):\n((?:        .*\n|\n)+)", re.MULTILINE)
"""An option in a docstring in the style of transformers: its name, and the lines about it."""


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def parse_options(
    argv: Sequence[str], config_class: type[DeRTaConfig] = DeRTaConfig, command: str = "derta train"
) -> TrainOptions:
    """Parse `--config FILE|NAME` and options.

    Args:
        argv: Holds the options.
        config_class: Is the class of the configuration, whose fields are options too.
        command: Names the command in messages.

    Raises:
        InputError: an unknown key or option, a value of the wrong type, or options that contradict each other.
    """
    parser = make_parser(config_class, command)
    _check_lists_once(argv, parser, command)
    config_path, on_command_line = _split_config(list(argv), command)
    recipe = read_recipe(config_path, config_class) if config_path else {}
    arguments = [*recipe_arguments(recipe), *on_command_line]
    try:
        namespace, unknown = parser.parse_known_args(arguments)
        if unknown:
            name = unknown[0]
            if not name.startswith("-"):
                raise InputError(f"{command}: {name!r} is one value too many for the option before it")
            nearest = did_you_mean(name.lstrip("-").replace("-", "_"), option_names(config_class))
            raise InputError(f"{command}: unknown option {name}{nearest}")
        values = vars(namespace)
        if namespace.dry_run and not torch.cuda.is_available():
            # transformers refuses what only GPUs can do, even where nothing is to be computed.
            values = {**values, "use_cpu": True, "tf32": None}
        config, data, model, run, attack = parser.parse_dict(values, allow_extra_keys=True)
    except InputError:
        raise
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise InputError(f"{command}: {' '.join(str(error).split())}") from error
    check_positive(data)
    check_positive(attack)
    names = option_names(config_class)
    changed = {name: value for name, value in vars(namespace).items() if value != parser.get_default(name)}
    for name in set(config._VALID_DICT_FIELDS) & changed.keys():
        changed[name] = getattr(config, name)  # parsed from JSON
    return TrainOptions(config, data, model, run, attack, {name: changed[name] for name in names if name in changed})


def make_parser(config_class: type[DeRTaConfig] = DeRTaConfig, command: str = "derta train") -> HfArgumentParser:
    """Make the parser of all options; their help is what the docstrings of their classes say."""
    parser = _Parser(cast(Any, [config_class, *_DATACLASSES]), prog=command, allow_abbrev=False)
    parser.add_argument(
        "--config", help="YAML recipe, or the name of one of derta's; options on the command line win over it"
    )
    described: dict[str, str] = {}
    for class_ in (*reversed(config_class.__mro__), *_DATACLASSES):
        described |= dict(_DOCUMENTED.findall(inspect.cleandoc(class_.__doc__ or "") + "\n"))
    for action in parser._actions:
        if action.dest in described:
            text = " ".join(described[action.dest].split()).replace("%", "%%")
            default = action.default if action.default not in (None, "", [], False) else None
            action.help = text if default is None or "efaults to" in text else f"{text} Default: {default}."
    return parser


def option_names(config_class: type[DeRTaConfig] = DeRTaConfig) -> list[str]:
    """Names that a recipe or the command line may set."""
    return [f.name for options in (config_class, *_DATACLASSES) for f in fields(options) if f.init]


def _check_lists_once(argv: Sequence[str], parser: HfArgumentParser, command: str) -> None:
    """Stop at a list, or a recipe, that is given twice: of other options the last wins, but no file is left out."""
    given = [word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")]
    for name in ("config", *(action.dest for action in parser._actions if action.nargs == "+")):
        if given.count(name) > 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{command}: {flag} is given twice; give all values after one, or leave one out")


def _split_config(argv: list[str], command: str) -> tuple[Path | None, list[str]]:
    for index, argument in enumerate(argv):
        if argument.startswith("--config="):
            return recipe_path(argument.removeprefix("--config=")), argv[:index] + argv[index + 1 :]
        if argument == "--config":
            if index + 1 == len(argv):
                raise InputError(f"{command}: --config needs a file or a recipe's name")
            return recipe_path(argv[index + 1]), argv[:index] + argv[index + 2 :]
    return None, argv


def method_of(argv: Sequence[str], command: str = "derta train") -> str:
    """Return the method that options and their recipe ask for, before anything else of them is read."""
    config_path, words = _split_config(list(argv), command)
    methods = [str(read_yaml(config_path, "recipe")[0].get("method", DeRTaConfig.method))] if config_path else []
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--method":
            methods.append(value if equals else "".join(words[index + 1 : index + 2]))
    return methods[-1] if methods else DeRTaConfig.method


def recipe_arguments(recipe: Mapping[str, Any]) -> list[str]:
    """Turn a recipe into command-line arguments, so that both are checked by the same parser."""
    arguments: list[str] = []
    for key, value in recipe.items():
        if value is None:
            continue
        if isinstance(value, list):
            arguments += [f"--{key}", *map(str, value)]
        else:
            # In one word: a value may begin with a dash.
            arguments.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
    return arguments


def read_recipe(path: Path, config_class: type[DeRTaConfig] = DeRTaConfig) -> dict[str, Any]:
    """Read a YAML recipe.

    Raises:
        InputError: the file is missing or not YAML, or has a key that is no option; the message names the line.
    """
    recipe, lines = read_yaml(path, "recipe")
    names = option_names(config_class)
    for key, line in lines.items():
        if key not in names:
            raise InputError(f"{path}:{line}: unknown key {key!r}{did_you_mean(key, names)}")
    return recipe
