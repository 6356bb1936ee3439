"""What every command has in common: it reads every argument that it declares."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from derta.cli import COMMANDS, main, make_parser

HEAVY = ("torch", "transformers", "datasets", "inspect_ai", "matplotlib", "trl")


def declared_and_read(command: str) -> tuple[set[str], set[str]]:
    """Return the arguments that a command declares, and those that its module reads from `args`."""
    args = make_parser([command])
    for word in command.split():
        args = next(action for action in args._actions if action.nargs == "A...").choices[word]  # type: ignore[union-attr, index]
    module = import_module("derta.commands." + command.replace(" ", "_").replace("-", "_"))
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
    }
    if command == "gate":
        # Read by name, each in a test of its own.
        read |= set(module.LIMITS)
    return {action.dest for action in args._actions if action.dest != "help" or command == "train"}, read


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_that_is_accepted_is_read(command: str) -> None:
    declared, read = declared_and_read(command)
    assert declared
    assert declared <= read


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_own_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "train":
        pytest.skip("has tests of its own")
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert f"usage: derta {command} [-h]" in capsys.readouterr().out


def test_the_list_of_commands_waits_for_no_library() -> None:
    code = (
        "import sys\nfrom derta.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        f"assert not {{*{HEAVY}}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a", "b", "--oout", "c"]) == 2
    assert capsys.readouterr().err == "derta: error: derta compare: unrecognized arguments: --oout c\n"
