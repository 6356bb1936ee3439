"""What all commands have in common: they read every argument that they declare, and show what there is."""

import argparse
import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import derta
from derta.cli import COMMANDS, MOVED, main, make_parser

HEAVY = ("torch", "transformers", "datasets", "inspect_ai", "matplotlib", "trl")


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = make_parser([command])
    for word in command.split():
        (choice,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        parser = choice.choices[word]
    return parser


def read_by(command: str) -> set[str]:
    """Return the arguments that the module of a command reads from `args`."""
    module = import_module("derta.commands." + command.replace(" ", "_").replace("-", "_"))
    nodes = ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    read = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "args"}
    # Limits are read by name, and each has a test of its own.
    return read | set(module.LIMITS) if command == "gate" else read


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_that_is_accepted_is_read(command: str) -> None:
    by_main = {"help", "help_all", "quiet"}
    assert {action.dest for action in parser_of(command)._actions} - by_main <= read_by(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_help_and_only_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: derta {command} " in shown
    assert "%%" not in shown


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], *([*command.split(), "--help"] for command in COMMANDS if command != "train")]
)
def test_help_waits_for_no_library(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom derta.cli import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
        f"assert not set({HEAVY}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("module", ["derta", "derta.cli"])
def test_a_bare_command_shows_help(module: str) -> None:
    shown = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=True).stdout
    assert all(command.split()[0] in shown for command in COMMANDS)


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"derta {derta.__version__}\n"


def test_the_trainers_help_begins_with_what_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    for option in ("--config", "--method", "--rto-dropout", "--output-dir", "--model-name-or-path", "--help-all"):
        assert f"  {option} " in shown or f"{option} shows" in shown
    assert "--push-to-hub" not in shown
    assert len(shown.splitlines()) < 190


@pytest.mark.parametrize("flag", ["--max-asr", "--max_asr"])
def test_dashes_and_underscores_are_the_same(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "no-such-directory", flag, "5"]) == 2
    assert "no-such-directory" in capsys.readouterr().err


def test_values_keep_their_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "no_such_directory", "--max_asr=5", "--judge=some_judge"]) == 2
    assert "no_such_directory" in capsys.readouterr().err


def test_an_unknown_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a", "b", "--oout", "c"]) == 2
    assert capsys.readouterr().err == "derta: error: derta compare: unrecognized arguments: --oout c\n"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("tran --config x", "derta has no command 'tran' (did you mean 'train'?); derta --help lists them"),
        ("data chek x", "derta data has no command 'chek' (did you mean 'check'?); derta data --help lists them"),
        ("help", "derta has no command 'help'; derta --help lists them"),
    ],
)
def test_an_unknown_command_is_one_line(typed: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    assert capsys.readouterr().err == f"derta: error: {told}\n"


@pytest.mark.parametrize("name", [name for name in MOVED if name not in COMMANDS])
def test_a_command_that_has_moved_says_where_to(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "x"]) == 2
    assert capsys.readouterr().err == f"derta: error: derta {name} has moved: {MOVED[name]}\n"
    words = MOVED[name].split()
    if words[0] == "derta":
        assert {" ".join(words[1:2]), " ".join(words[1:3])} & COMMANDS.keys()


def test_a_name_that_moves_counts_from_when_it_is_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("data", "gate", "gate results", "show"):
        monkeypatch.setitem(MOVED, name, "derta merge")
    monkeypatch.delitem(COMMANDS, "show")
    for typed in ("show x --max-asr 5", "gate results x", "show", "data"):
        assert main(typed.split()) == 2
        assert "has moved: derta merge\n" in capsys.readouterr().err
    for typed in ("gate x --max-asr 5", "data check x"):
        assert main(typed.split()) == 2
        assert "has moved" not in capsys.readouterr().err


def test_nobody_need_hear_a_command(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "p", "chosen": "I cannot help.", "rejected": "Turn the key."}\n')
    command = f"{sys.executable} -m derta data check {data}"
    done = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run(f"{command} >&- 2>&-", shell=True).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("shtab")
    # Inspect comes with an extra.
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    for word in ("gate", "--max-over-refusal", "--rto-dropout"):
        assert word in script
