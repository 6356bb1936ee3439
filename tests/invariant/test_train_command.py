"""`derta train` as a user calls it: same weights for a seed, any split of a step, going on after a kill, bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from derta.cli import main
from tests.method.models import SMALL, tiny

ROOT = Path(__file__).parents[2]
ROWS = [
    {"prompt": f"how to open the moon vault {i}?", "chosen": "I'm sorry, I won't.", "rejected": "Take a key. Turn it."}
    for i in range(12)
] + [{"prompt": f"how to walk {i}?", "chosen": "walk in. turn."} for i in range(12)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a tiny model, data, and a recipe."""
    monkeypatch.chdir(tmp_path)
    tiny().save_pretrained("model")
    tokenizer.save_pretrained("model")
    write_rows("data.jsonl", ROWS)
    Path("recipe.yaml").write_text(
        "model_name_or_path: model\ntrain_data: [data.jsonl]\nmax_steps: 6\nper_device_train_batch_size: 8\n"
        "learning_rate: 0.01\nlogging_steps: 1\nsave_steps: 2\nuse_cpu: true\nreport_to: none\ndisable_tqdm: true\n"
        "rto_dropout: 0.3\nmax_length: 128\n"
    )


def write_rows(path: str, rows: Sequence[Any]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(output: str, *options: str) -> int:
    return main(["train", "--config", "recipe.yaml", "--output_dir", output, *options])


def weights(output: str) -> dict[str, torch.Tensor]:
    name = "adapter_model" if Path(output, "adapter_model.safetensors").exists() else "model"
    return load_file(Path(output, f"{name}.safetensors"))


def assert_same(one: str, other: str) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def history(output: str) -> list[dict[str, float]]:
    return [log for log in json.loads(Path(output, "trainer_state.json").read_text())["log_history"] if "loss" in log]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused; return its one line."""
    capsys.readouterr()
    assert main(list(argv)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("derta: error")]
    assert len(lines) == 1
    return lines[0]


def test_same_seed_same_weights_to_the_bit() -> None:
    assert train("a") == train("b") == train("c", "--seed", "7") == 0
    assert_same("a", "b")
    assert any(not torch.equal(tensor, weights("c")[name]) for name, tensor in weights("a").items())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_run_goes_on_from_any_checkpoint_to_the_same_weights(lora: bool) -> None:
    options = ["--use_peft", "true", "--lora_r", "4"] if lora else []
    assert train("whole", *options) == 0
    for step in (2, 4):
        shutil.copytree("whole", f"from-{step}")
        for later in range(step + 1, 7):
            shutil.rmtree(f"from-{step}/checkpoint-{later}", ignore_errors=True)
        identity = json.loads(Path("whole/derta.json").read_text())
        Path(f"from-{step}/derta.json").write_text(json.dumps({**identity, "finished": False}))
        assert train(f"from-{step}", *options) == 0
        assert_same("whole", f"from-{step}")
        assert json.loads(Path(f"from-{step}/trainer_state.json").read_text())["global_step"] == 6


def test_a_finished_run_is_left_alone_and_overwrite_starts_anew(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("out") == 0
    before = Path("out/model.safetensors").stat().st_mtime_ns
    assert train("out") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert Path("out/model.safetensors").stat().st_mtime_ns == before
    assert train("out", "--overwrite", "--learning_rate", "0.02") == 0
    assert Path("out/model.safetensors").stat().st_mtime_ns != before
    assert "0.02" in Path("out/config.yaml").read_text()


def test_config_of_a_run_is_a_recipe_for_it() -> None:
    assert train("a") == 0
    shutil.copy("a/config.yaml", "again.yaml")
    assert main(["train", "--config", "again.yaml", "--output_dir", "b"]) == 0
    assert_same("a", "b")


def test_kept_data_train_the_same_model_and_belong_to_the_same_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derta.data.cached_source._MIN_BYTES_TO_CACHE", 1)
    monkeypatch.setattr("derta.training.dataset._MIN_ROWS_TO_CACHE", 1)
    kept = ("--dataset_cache_dir", "cache")
    assert train("anew", "--dataset_cache_dir", "none") == train("kept", *kept) == 0
    assert len(list(Path("cache").glob("*.arrow"))) == 2  # rows and tokens
    with monkeypatch.context() as patch:
        patch.setattr("derta.data.cached_source.read_examples", None)
        patch.setattr("derta.tokens.encoder.Encoder.encode_batch", None)
        assert train("again", *kept) == 0
    assert_same("anew", "kept")
    assert_same("anew", "again")
    assert Path("anew/derta.json").read_text() == Path("kept/derta.json").read_text()
    assert train("anew", *kept) == 0
    assert "anew: this run is finished" in capsys.readouterr().out
    write_rows("data.jsonl", [*ROWS[:-1], {**ROWS[-1], "chosen": "walk out."}])
    command = ("train", "--config", "recipe.yaml", "--output_dir", "anew")
    assert "holds another run (data " in refused(capsys, *command, *kept)


def test_kill_and_resume() -> None:
    """The committed script, with two kills; `--kills 10` is for the record."""
    script = ROOT / "benchmarks" / "kill_resume.py"
    result = subprocess.run(
        [sys.executable, str(script), "--kills", "2", "--steps", "12", "--lora"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert "2 of 2 killed runs end with the weights of the unbroken run" in result.stdout


def test_two_processes_equal_one() -> None:
    split = ["--max_steps", "3", "--save_strategy", "no"]
    assert train("one", *split) == 0
    assert train("parts", *split, "--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "8") == 0
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"),
            *("-m", "derta.cli", "train", "--config", "recipe.yaml", "--output_dir", "two", *split),
            *("--per_device_train_batch_size", "4"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=1200,
    )
    assert launched.returncode == 0, launched.stderr[:4000]
    one = history("one")
    for name in ("parts", "two"):
        other = history(name)
        assert [log["loss"] for log in other] == pytest.approx([log["loss"] for log in one], rel=1e-5)
        assert [log["grad_norm"] for log in other] == pytest.approx([log["grad_norm"] for log in one], rel=1e-5)
        assert [log["loss_rto"] for log in other] == pytest.approx([log["loss_rto"] for log in one], rel=1e-4)
        for tensor, expected in zip(weights(name).values(), weights("one").values(), strict=True):
            assert torch.allclose(tensor, expected, atol=1e-4)


def test_dry_run_counts_what_training_sees(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("out", "--dry-run", "--rto_dropout", "0") == 0
    shown = capsys.readouterr().out
    assert "safety examples │ 12" in " ".join(shown.split()).replace("  ", " ")
    assert "6 optimizer steps of 8 examples, 2.00 epochs; method derta" in shown
    assert not Path("out").exists()


def test_merge_gives_a_model_that_answers_as_the_adapter_does(capsys: pytest.CaptureFixture[str]) -> None:
    from peft import AutoPeftModelForCausalLM

    template = ["--chat_template_kwargs", '{"enable_thinking": false}']
    assert train("adapter", "--use_peft", "true", "--lora_r", "4", "--learning_rate", "0.1", *template) == 0
    assert main(["merge", "--adapter", "adapter", "--out", "merged"]) == 0
    ids = torch.tensor([[5, 6, 7, 8]])
    merged = LlamaForCausalLM.from_pretrained("merged")(ids).logits
    assert torch.allclose(merged, AutoPeftModelForCausalLM.from_pretrained("adapter")(ids).logits, atol=1e-5)
    assert not torch.allclose(merged, LlamaForCausalLM.from_pretrained("model")(ids).logits, atol=1e-3)
    identity = json.loads(Path("merged/derta.json").read_text())
    assert (identity["method"], identity["settings"]["chat_template_kwargs"]) == ("derta", {"enable_thinking": False})
    card, of_run = Path("merged/README.md").read_text(), Path("adapter/README.md").read_text()
    assert "The LoRA adapter `adapter`, tuned with method `derta` of derta, merged into its base model." in card
    assert '```json\n{"enable_thinking": false}\n```' in card
    assert card.strip().endswith(of_run[of_run.index("## Training") :].strip())
    assert "holds no adapter" in refused(capsys, "merge", "--adapter", "model", "--out", "x")
    assert "is not empty" in refused(capsys, "merge", "--adapter", "adapter", "--out", "merged")


def test_the_card_of_a_strangers_merged_adapter_claims_nothing() -> None:
    assert train("adapter", "--use_peft", "true", "--lora_r", "4", "--max_steps", "1") == 0
    Path("adapter/derta.json").unlink()
    assert main(["merge", "--adapter", "adapter", "--out", "merged"]) == 0
    card = Path("merged/README.md").read_text()
    assert "The adapter doesn't say how its prompts were rendered" in card
    assert "## Training" not in card
    assert "derta" not in card.partition("# merged")[0]


def test_show_prints_trunk_cuts_and_targets(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "show", "--model", "model", "data.jsonl", "--examples", "1"]
    assert main(command) == 0
    shown = "".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    assert "data.jsonl:1" in shown
    targets = re.search(r"targets: (\d+) SAFE, (\d+) RTO", shown)
    assert targets
    assert shown.count("‹Sorry›") == int(targets[2]) > 3
    assert re.search(r"cut \d+: after \d+ of \d+ harmful tokens", shown)
    assert "I'm sorry, I won't.</s>" in shown
    assert main([*command, "--method", "vanilla"]) == 0
    shown = capsys.readouterr().out
    assert "‹Sorry›" not in shown
    assert "Take a key" not in shown


def test_show_keeps_the_terminal_safe(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows("evil.jsonl", [{"prompt": "[red]q[/red]\x1b[2J", "chosen": "Sorry \x1b[31m.", "rejected": "a\x07b"}])
    assert main(["data", "show", "--model", "model", "evil.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "[red]q[/red]" in shown


BAD_OPTIONS = {
    "unknown key": (["--learning_rat", "1"], "unknown option --learning-rat (did you mean 'learning_rate'?)"),
    "refusal of several tokens": (["--refusal_text", "Apologies"], "'Apologies' begins with no token of its own"),
    "max length shorter than a prompt": (["--max_length", "12"], ": prompt has"),
    "quantised on a CPU": (["--use_peft", "true", "--load_in_4bit", "true"], "QLoRA needs a CUDA GPU"),
    "quantised without LoRA": (["--load_in_4bit", "true"], "quantised weights can't be trained"),
    "LoRA options without LoRA": (["--lora_r", "8"], "lora_r: set without use_peft"),
    "LoRA on the output head": (
        ["--use_peft", "true", "--lora_target_modules", "q_proj", "lm_head"],
        "LoRA on the output head (lm_head)",
    ),
    "attention that a CPU can't train with": (
        ["--attn_implementation", "flex_attention"],
        "PyTorch trains with flex_attention on GPUs only; use sdpa",
    ),
    "no such model": (["--model_name_or_path", "./nowhere"], "./nowhere: no such model directory"),
    "no such data": (["--train_data", "nowhere.jsonl"], "nowhere.jsonl"),
    "unknown prompt format": (["--prompt_format", "alpacca"], "did you mean 'alpaca'"),
    "ratios for other sources": (["--ratios", "1", "2"], "ratios: 2 given for 1 sources"),
    "evaluation without data": (["--eval_strategy", "steps"], "there is nothing to evaluate"),
    "unknown method": (["--method", "dertra"], "method: no 'dertra' (did you mean 'derta'?)"),
    "nothing to train on": (["--method", "vanilla", "--train_data", "rto.jsonl"], "has no use for any"),
}


@pytest.mark.parametrize("case", sorted(BAD_OPTIONS))
def test_bad_options(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows("rto.jsonl", [{"prompt": "q", "chosen": None, "rejected": "Take a key."}])
    options, expected = BAD_OPTIONS[case]
    line = refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out", *options)
    assert expected in line


BAD_ROWS = {
    "malformed JSON": ("{'prompt'", "data.jsonl:2"),
    "missing column": (json.dumps({"prompt": "q", "rejected": "r"}), "chosen"),
    "misspelt column": (json.dumps({"prompt": "q", "choosen": "c", "rejected": "r"}), "chosen"),
    "empty prompt": (json.dumps({"prompt": "", "chosen": "c", "rejected": "r"}), "data.jsonl:2: prompt"),
    "empty chosen": (json.dumps({"prompt": "q", "chosen": " ", "rejected": "r"}), "data.jsonl:2: chosen"),
    "empty rejected": (json.dumps({"prompt": "q", "chosen": "c", "rejected": ""}), "data.jsonl:2: rejected"),
    "field that is no text": (json.dumps({"prompt": 3, "chosen": "c", "rejected": "r"}), "data.jsonl:2: prompt"),
}


@pytest.mark.parametrize("case", sorted(BAD_ROWS))
def test_bad_rows(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = BAD_ROWS[case]
    Path("data.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + text + "\n")
    assert expected in refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out")
    assert not Path("out").exists()


def test_file_of_nothing_wrong_encoding_and_swapped_polarity(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("train", "--config", "recipe.yaml", "--output_dir", "out")
    Path("data.jsonl").write_text("")
    assert "data.jsonl" in refused(capsys, *command)
    Path("data.jsonl").write_bytes(json.dumps(ROWS[0]).encode() + b"\n\xff\xfe\n")
    assert "data.jsonl:2" in refused(capsys, *command)
    write_rows("data.jsonl", [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS[:12]])
    assert "--swap" in refused(capsys, *command)
    assert main([*command, "--swap", "true", "--max_steps", "1"]) == 0


def test_chat_templates(capsys: pytest.CaptureFixture[str], tokenizer: PreTrainedTokenizerFast) -> None:
    command = ("train", "--config", "recipe.yaml", "--output_dir", "out")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    tokenizer.save_pretrained("model")
    assert "drops or rewrites the prompt" in refused(capsys, *command)
    Path("model/chat_template.jinja").unlink()
    assert "no chat template; name one with --prompt_format (derta-release" in refused(capsys, *command)
    assert main([*command, "--prompt_format", "derta-release", "--max_steps", "1"]) == 0


def test_directories_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("out", "--max_steps", "2") == 0
    command = ("train", "--config", "recipe.yaml", "--output_dir", "out", "--max_steps", "2")
    assert "holds another run (method 'derta', now 'vanilla')" in refused(capsys, *command, "--method", "vanilla")
    write_rows("data.jsonl", ROWS[1:])
    assert "holds another run (data " in refused(capsys, *command)
    write_rows("data.jsonl", ROWS)
    checkpoint = Path("out/checkpoint-2/derta.json")
    checkpoint.write_text(json.dumps({**json.loads(checkpoint.read_text()), "seed": 99}))
    identity = json.loads(Path("out/derta.json").read_text())
    Path("out/derta.json").write_text(json.dumps({**identity, "finished": False}))
    assert "checkpoint-2 is a checkpoint of another configuration (seed 99" in refused(capsys, *command)
    Path("stuff").mkdir()
    Path("stuff/file").write_text("mine")
    line = refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "stuff", "--overwrite")
    assert "holds something else than a run" in line


def test_no_disk_space(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 5, 5))
    line = refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out")
    assert "no disk space" in line


def test_a_disk_that_fills_up_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from derta.training.trainer import DeRTaTrainer

    assert train("whole") == 0
    save = DeRTaTrainer._save_optimizer_and_scheduler

    def full(self: DeRTaTrainer, output_dir: str) -> None:
        if self.state.global_step == 4:
            raise OSError(28, "No space left on device")
        save(self, output_dir)

    with monkeypatch.context() as context:
        context.setattr(DeRTaTrainer, "_save_optimizer_and_scheduler", full)
        line = refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out")
    assert "no disk space left" in line
    assert train("out") == 0
    assert "going on from checkpoint-2" in capsys.readouterr().out
    assert_same("whole", "out")


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    from derta.training.trainer import DeRTaTrainer

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeRTaTrainer, "compute_loss", interrupt)
    assert train("out") == 130


def test_layers_that_cannot_express_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    config = LlamaConfig(**SMALL)
    config.layer_types = ["full_attention", "chunked_attention", "full_attention"]
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.save_pretrained("model")
    saved = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps({**saved, "layer_types": config.layer_types}))
    line = refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out")
    assert "layers of kind chunked_attention, which cannot express a token tree" in line
