"""Recipes and options: every shipped recipe parses, and mistakes are named."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from derta.errors import InputError
from derta.training.config import DeRTaConfig
from derta.training.options import AttackOptions, DataOptions, RunOptions, make_parser, parse_options, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
NAMES = {recipe.stem for recipe in RECIPES}


def test_every_promised_recipe_is_there() -> None:
    assert {
        "llama3-8b-full",
        "llama3-70b-lora",
        "mistral-7b-full",
        "mixtral-8x7b-lora",
        "llama3-8b-lora",
        "mistral-7b-lora",
        "llama3-8b-instruct-100step",
        "llama3-70b-instruct-100step",
        "qwen3-8b-lora",
        "organism",
    } <= NAMES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_recipe_parses_and_says_how_to_start_it(recipe: Path) -> None:
    # bf16 needs an accelerator or the CPU by name.
    options = parse_options(["--config", str(recipe), "--use_cpu", "true"])
    assert options.model.model_name_or_path
    assert options.data.train_data
    head = "".join(line for line in recipe.read_text().splitlines(keepends=True)[:6] if line.startswith("#"))
    assert f"recipes/{recipe.stem}.yaml" in head
    assert "derta" in head


LAPTOP = ("organism", "smollm2", "gemma-3")
"""Recipes for a CPU, which have steps and rates of their own."""


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES if not r.stem.startswith(LAPTOP)], ids=lambda recipe: recipe.stem
)
def test_paper_settings(recipe: Path) -> None:
    """The paper's hyper-parameters: 128 examples a step, 2 epochs (or 100 steps), seed 1; full and LoRA rows."""
    options = parse_options(["--config", str(recipe), "--use_cpu", "true"])
    config, model = options.config, options.model
    gpus = int(recipe.read_text().split("--num_processes ")[1].split()[0])
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps * gpus == 128
    assert config.seed == 1
    assert config.bf16
    if "100step" in recipe.stem:
        assert config.max_steps == 100
        assert config.prompt_format is None
    else:
        assert config.num_train_epochs == 2
    if model.use_peft:
        assert (config.learning_rate, config.warmup_steps, config.weight_decay) == (1e-4, 0, 0)
        beyond = recipe.stem.startswith("qwen3")
        assert (config.contexts, config.cuts_per_triple, config.rto_dropout, config.rto_schedule) == (
            ("recommended", 3, 0.5, "early") if beyond else (None, 1, 0, "uniform")
        )
        assert model.lora_alpha == 16
        assert model.lora_r == (96 if "70b" in recipe.stem or "8x7b" in recipe.stem else 32)
    else:
        assert (config.learning_rate, config.warmup_steps, config.weight_decay) == (2e-5, 0.03, 2e-5)
        assert (config.rto_dropout, config.max_length) == (0.95, 1024)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_dry_run_of_a_recipe_needs_no_gpu(recipe: Path) -> None:
    options = parse_options(["--config", str(recipe), "--dry-run", "--tf32", "true"])
    assert options.config.bf16 != recipe.stem.startswith(LAPTOP)
    if options.config.bf16:
        with pytest.raises(InputError, match="bf16"):
            parse_options(["--config", str(recipe)])


def test_docstrings_describe_every_option() -> None:
    described = {action.dest: action.help or "" for action in make_parser()._actions}
    for options in (DeRTaConfig, DataOptions, RunOptions, AttackOptions):
        own = [field.name for field in fields(options) if field.name in vars(options).get("__annotations__", {})]
        assert all(described[name] for name in own)
    assert described["rto_weight"] == "Weight λ of RTO in the loss. Default: 1.0."


def test_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model_name_or_path: m\ntrain_data: [a.jsonl, b.jsonl]\nlearning_rate: 1e-3\nmax_length: 99\n"
        "rto_on_end: false\nchat_template_kwargs: {enable_thinking: false}\n"
    )
    options = parse_options(["--config", str(recipe), "--max_length", "77", "--train_data", "c.jsonl", "--dry-run"])
    assert options.config.learning_rate == 1e-3
    assert options.config.max_length == 77
    assert options.config.rto_on_end is False
    assert options.config.chat_template_kwargs == {"enable_thinking": False}
    assert options.data.train_data == ["c.jsonl"]
    assert options.run.dry_run
    assert options.overrides["max_length"] == 77
    assert options.overrides["chat_template_kwargs"] == {"enable_thinking": False}
    assert "method" not in options.overrides


@pytest.mark.parametrize("option", ["--train-data", "--train_data", "--train-data=", "--config"])
def test_a_list_and_a_recipe_are_given_once(option: str) -> None:
    """Of two lists of files the first would not be trained on."""
    again = [option + "b"] if option.endswith("=") else [option, "b"]
    with pytest.raises(InputError, match=f"{again[0].partition('=')[0].replace('_', '-')} is given twice"):
        parse_options(["--config", "a", "--train-data", "a", *again])


def test_unknown_keys_name_line_and_neighbour(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# head\nmax_length: 9\nlearning_rat: 0.1\n")
    with pytest.raises(
        InputError, match=r"recipe\.yaml:3: unknown key 'learning_rat' \(did you mean 'learning_rate'\?\)"
    ):
        read_recipe(recipe)
    with pytest.raises(InputError, match=r"unknown option --rto-dropuot \(did you mean 'rto_dropout'\?\)"):
        parse_options(["--rto-dropuot", "0.5"])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("max_length: [1\n", r"recipe\.yaml:2: not YAML"),
        ("- a\n- b\n", "a recipe is a YAML mapping"),
        ("", "a recipe is a YAML mapping"),
        ("max_length: many\n", "--max_length.*invalid int value: 'many'"),
        ("method: derto\n", "method: no 'derto'"),
        (
            "rto_dropout: 2\n",
            "rto_dropout: 2.0 is not from 0 and below 1; for no RTO use method harmful-prefix",
        ),
    ],
)
def test_bad_recipes(text: str, match: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(InputError, match=match) as error:
        parse_options(["--config", str(recipe)])
    assert "\n" not in str(error.value)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"absent\.yaml: no such file and no recipe has this name; derta recipes lists them"
    ):
        parse_options(["--config", str(tmp_path / "absent.yaml")])


def test_liger_kernels_leave_the_loss_alone(tmp_path: Path) -> None:
    config = DeRTaConfig(str(tmp_path), use_cpu=True, use_liger_kernel=True, liger_kernel_config={"rope": False})
    assert config.liger_kernel_config == {"rope": False, "fused_linear_cross_entropy": False}
    with pytest.raises(InputError, match="liger_kernel_config: fused_linear_cross_entropy would take the place"):
        DeRTaConfig(
            str(tmp_path),
            use_cpu=True,
            use_liger_kernel=True,
            liger_kernel_config={"fused_linear_cross_entropy": True},
        )
