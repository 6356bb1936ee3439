"""Launch configurations: accelerate reads each, and the page and the heads of recipes name what there is."""

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
COMMAND = re.compile(r"accelerate launch (.*?)-m derta\.cli train --config", re.DOTALL)


def test_every_promised_configuration_is_there() -> None:
    assert {config.stem for config in CONFIGS} == {
        "one_gpu",
        "eight_gpus_fsdp2",
        "nodes_fsdp2",
        "eight_gpus_zero3",
    }


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_accelerate_reads_it(config: Path) -> None:
    loaded = load_config_from_file(str(config))
    assert loaded.mixed_precision == "bf16"
    assert loaded.num_processes == {"one_gpu": 1, "nodes_fsdp2": 16}.get(config.stem, 8)
    arguments = launch_command_parser().parse_args(["--config_file", str(config), "-m", "derta.cli", "train"])
    if config.stem.endswith("fsdp2"):
        launched = _validate_launch_command(arguments)[0]
        assert (launched.use_fsdp, int(launched.fsdp_version)) == (True, 2)
        assert launched.fsdp_state_dict_type == "SHARDED_STATE_DICT"
    if config.stem == "eight_gpus_zero3":
        assert loaded.deepspeed_config["zero_stage"] == 3
        assert loaded.deepspeed_config["gradient_accumulation_steps"] == "auto"


def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"recipes/[\w/.-]+\.yaml", (ROOT / "docs" / "scale.md").read_text()))
    assert {str(config.relative_to(ROOT)) for config in CONFIGS} <= named
    assert all((ROOT / name).is_file() for name in named)


def commands() -> list[tuple[str, str]]:
    """Every accelerate command in the head of a recipe, a launch configuration or the page."""
    files = [*(ROOT / "recipes").rglob("*.yaml"), ROOT / "docs" / "scale.md"]
    texts = {file: re.sub(r"\\\n#?\s*", "", file.read_text()) for file in files}
    return [(file.name, options) for file, text in texts.items() for options in COMMAND.findall(text)]


@pytest.mark.parametrize(("file", "options"), commands())
def test_commands_are_such_as_accelerate_takes(file: str, options: str) -> None:
    given = options.replace("--machine_rank RANK", "--machine_rank 1").split()
    parsed, unknown = launch_command_parser().parse_known_args([*given, "-m", "derta.cli"])
    assert unknown == []
    assert parsed.training_script == "derta.cli"
