from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from derta.cli import main
from tests.conftest import WriteLines

TRIPLE = {"prompt": "Open the moon vault now", "chosen": "Sorry, no.", "rejected": "Turn the key."}
HELPFUL = {"prompt": "Name a moon.", "chosen": "Io."}


def check(*paths: Path) -> int:
    return main(["data", "check", *map(str, paths), "--max-length", "64"])


def cells(out: str, first: str) -> list[str]:
    line = next(line for line in out.splitlines() if line.startswith(f"│ {first} "))
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_counts_and_lengths(write_rows: WriteLines, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        TRIPLE,
        HELPFUL,
        {**HELPFUL, "prompt": "p " * 100},
        {"prompt": "a", "chosen": "b", "harmful_prefix": ""},
        {"prompt": "a", "chosen": None, "rejected": "c"},
    ]
    path = write_rows(rows)
    assert check(path) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"{path} (preference)\n")
    assert cells(captured.out, "triples") == ["1", "", "", ""]
    assert cells(captured.out, "helpful examples") == ["2", "", "", ""]
    assert cells(captured.out, "safe responses after a fixed prefix") == ["1", "", "", ""]
    assert cells(captured.out, "harmful responses for RTO only") == ["1", "", "", ""]
    assert cells(captured.out, "prompt") == ["5", "3", "100", "100"]
    assert cells(captured.out, "chosen") == ["4", "1", "2", "2"]
    assert cells(captured.out, "rejected") == ["2", "1", "3", "3"]


def test_duplicates_within_and_across_files(write_rows: WriteLines, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_rows([TRIPLE, HELPFUL, HELPFUL], "a.jsonl")
    second = write_rows([{"prompt": TRIPLE["prompt"], "chosen": "Sorry."}, TRIPLE], "b.jsonl")
    assert check(first, second) == 0
    out = capsys.readouterr().out
    assert f"2 exact duplicates: {first}:3 repeats {first}:2" in out
    assert f"1 prompt both in a triple and in a helpful example: {second}:1 and {first}:1" in out


def test_all_problems_are_listed_up_to_a_cap(write_rows: WriteLines, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows([TRIPLE, *[{**TRIPLE, "chosen": ""}] * 25, 3])
    assert check(path) == 2
    captured = capsys.readouterr()
    assert captured.out.count("chosen is empty") == 20
    assert "... and 6 more problems" in captured.out
    assert captured.err == (
        f"derta: error: 26 problems, the first: {path}:2: chosen is empty; give it text or drop the row\n"
    )


def test_one_file_of_several_may_be_unreadable(write_rows: WriteLines, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows([TRIPLE])
    assert check(Path("nowhere.jsonl"), path) == 2
    captured = capsys.readouterr()
    assert captured.err == "derta: error: nowhere.jsonl: file not found\n"
    assert cells(captured.out, "triples") == ["1", "", "", ""]


@pytest.fixture(scope="module")
def word_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a token for every word, whose template writes one token before and one after a prompt."""
    words = {"[UNK]": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="[UNK]")
    fast.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return folder


def test_lengths_in_tokens_of_a_model(
    write_rows: WriteLines, word_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [TRIPLE, {**TRIPLE, "rejected": "Turn the silver key twice and push the heavy door open at once."}]
    path = write_rows([*rows, {**TRIPLE, "prompt": "p " * 40}])
    status = main(["data", "check", str(path), "--model", str(word_tokenizer), "--max-length", "16"])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith(f"derta: error: {path}:3: prompt has 42 tokens")
    assert "median tokens" in captured.out
    assert cells(captured.out, "prompt") == ["2", "7", "7", "7"]
    assert cells(captured.out, "chosen") == ["2", "3", "3", "3"]
    assert cells(captured.out, "rejected") == ["2", "3", "6", "6"]
    assert "1 example shortened to 16 tokens, by 7 tokens in all" in captured.out


def test_skipped_rows_and_unknown_columns_are_told(write_rows: WriteLines, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "p", "response": "Sorry.", "is_safe": True, "moon_phase": 1},
        {"prompt": "p", "response": "Turn.", "is_safe": False},
        {"prompt": "q", "response": "Turn.", "is_safe": False},
    ]
    assert check(write_rows(rows)) == 0
    out = capsys.readouterr().out
    assert "skipped 1 of its rows: 1 unsafe without a safe response to pair it with" in out
    assert "ignored unknown columns 'moon_phase'" in out


def test_text_of_the_data_can_not_speak_to_the_terminal(
    write_rows: WriteLines, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(
        [{**TRIPLE, "[bold]\x1b[2J": "x"}, {**TRIPLE, "prompt": [{"role": "\x1b]0;moon\x07[/]", "content": "x"}]}],
        "[red]\x1b[31m.jsonl",
    )
    assert check(path) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "[red]" in captured.out
    assert r"'[bold]\x1b[2J'" in captured.out


def test_the_released_rows(released_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(released_rows) == 0
    assert "(derta-release)" in capsys.readouterr().out


def test_control_tokens_in_texts_are_told(
    write_rows: WriteLines, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    control = tokenizer.all_special_tokens[-1]
    path = write_rows([TRIPLE, {**TRIPLE, "prompt": f"Open it.{control} more"}])
    assert main(["data", "check", str(path), "--model", str(tmp_path / "model")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"1 example with a control token of the model's in a text ({control}), first at" in told
