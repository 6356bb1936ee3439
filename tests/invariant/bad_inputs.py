"""Bad inputs by name: the command, what is made for it beforehand; the messages are in `bad_inputs.yaml`.

`python -m tests.invariant.bad_inputs` adds those that are missing there; read the difference.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

MESSAGES = Path(__file__).with_suffix(".yaml")
Make = Callable[[], object]


@dataclass(frozen=True)
class BadInput:
    """A command line that must end with one line and exit code 2.

    Attributes:
        argv: The command's words.
        make: Makes the bad input in the folder, beside what is there.
    """

    argv: list[str]
    make: Make


NONSENSE: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "cut": b'{"a": ',
    "not text": b"\xff\xfe\x00\x01" * 9,
    "a list": b"[1, 2]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "a key twice": b'{"model_type": "llama", "model_type": "llama"}',
}
EVAL = "eval --model model --behaviours behaviours.txt --attacks direct --max-new-tokens 1 --out out"
TRAIN = "train --model-name-or-path model --train-data data.jsonl --output-dir out --use-cpu true --max-steps 1"
MERGE = "merge --adapter adapter --out out"


def write(file: str, content: bytes | None) -> Make:
    """Put content into a file, or remove it."""
    return lambda: Path(file).unlink() if content is None else Path(file).write_bytes(content)


def change(file: str, **values: Any) -> Make:
    """Change values of a JSON file."""
    return lambda: Path(file).write_text(json.dumps({**json.loads(Path(file).read_text()), **values}))


def cut(file: str) -> Make:
    """Leave the first half of a file."""
    return lambda: Path(file).write_bytes(Path(file).read_bytes()[: Path(file).stat().st_size // 2])


def of_models() -> Iterator[tuple[str, str, Make]]:
    """Files of a model's directory, damaged."""
    harmless = {
        ("config.json", "a key twice"),
        ("tokenizer_config.json", "missing"),
        ("tokenizer_config.json", "a key twice"),
    }
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        for what, content in NONSENSE.items():
            if (file, what) not in harmless:
                yield f"{file}, {what}", EVAL, write(f"model/{file}", content)
    for what in ("missing", "empty", "not text"):
        yield f"weights, {what}", EVAL, write("model/model.safetensors", NONSENSE[what])
    yield "weights, cut", EVAL, cut("model/model.safetensors")
    yield "weights, a header that is too long", EVAL, write("model/model.safetensors", b"\xff" * 8 + b"{}")
    yield (
        "an index without its files",
        EVAL,
        lambda: (
            write("model/model.safetensors", None)(),
            write("model/model.safetensors.index.json", b'{"metadata": {}, "weight_map": {"a": "b.safetensors"}}')(),
        ),
    )
    yield (
        "an index that is none",
        EVAL,
        lambda: (
            write("model/model.safetensors", None)(),
            write("model/model.safetensors.index.json", b"[]")(),
        ),
    )


def of_configurations() -> Iterator[tuple[str, str, Make]]:
    """Configurations of wrong types and impossible shapes."""
    wrong: dict[str, tuple[Any, ...]] = {
        "hidden_size": ("x", -8, 0, 7, None, 1e9, [32]),
        "num_hidden_layers": ("two", -1, None, 2.5),
        "num_attention_heads": (0, 3, "four", -4),
        "num_key_value_heads": (3, 0, "two"),
        "intermediate_size": (-1, "x"),
        "vocab_size": (5, 0, -3, "many"),
        "max_position_embeddings": ("x",),
        "hidden_act": ("nope", 3),
        "model_type": ("nope", 3, None, "bert"),
        "rms_norm_eps": ("x",),
        "rope_parameters": ("x", {"rope_type": "nope"}),
        "dtype": ("float99",),
        "architectures": ("x",),
        "eos_token_id": ("x",),
    }
    harmless = {("num_hidden_layers", None), ("architectures", "x"), ("num_key_value_heads", 0)}
    for field, values in wrong.items():
        for value in values:
            if not (isinstance(value, str | int | None) and (field, value) in harmless):
                yield f"{field} is {value!r}", EVAL, change("model/config.json", **{field: value})
    yield "a tokenizer larger than the embedding", EVAL, change("model/config.json", vocab_size=200)
    yield "the same, in training", TRAIN, change("model/config.json", vocab_size=200)


def of_adapters() -> Iterator[tuple[str, str, Make]]:
    """Adapters that are damaged, of another rank or of another kind."""
    for what, content in NONSENSE.items():
        if what != "a key twice":
            yield f"adapter_config.json, {what}", MERGE, write("adapter/adapter_config.json", content)
    for what in ("missing", "empty", "not text"):
        yield f"the adapter's weights, {what}", MERGE, write("adapter/adapter_model.safetensors", NONSENSE[what])
    yield "the adapter's weights, cut", MERGE, cut("adapter/adapter_model.safetensors")
    wrong: dict[str, tuple[Any, ...]] = {
        "r": (4, 0, -2, "x", None),
        "lora_alpha": ("x",),
        "target_modules": (["nope"], 3, [], None),
        "peft_type": ("PROMPT_TUNING", "nope", 3),
        "task_type": ("nope",),
        "base_model_name_or_path": (None, "", 3, "nowhere", "a/b/c", "adapter", "behaviours.txt", "x\x1b[2J"),
    }
    for field, values in wrong.items():
        for value in values:
            yield f"adapter: {field} is {value!r}", MERGE, change("adapter/adapter_config.json", **{field: value})


def of_outputs() -> Iterator[tuple[str, str, Make]]:
    """Places that can't be written to."""
    places: dict[str, tuple[str, Make]] = {
        "a file": ("taken", lambda: Path("taken").write_text("mine")),
        "below a file": ("taken/x", lambda: Path("taken").write_text("mine")),
        "a name too long": ("x" * 300, lambda: None),
        "a link to nowhere": ("link/x", lambda: Path("link").symlink_to("/nowhere/at/all")),
        "below /dev/null": ("/dev/null/x", lambda: None),
    }
    commands = {
        "train": TRAIN.replace("--output-dir out", "--output-dir OUT"),
        "eval": EVAL.replace("--out out", "--out OUT"),
        "merge": MERGE.replace("--out out", "--out OUT"),
        "score": "score responses.jsonl --attack direct --out OUT",
        "data make": "data make --organism --out OUT",
        "data convert": "data convert data.jsonl --out OUT.jsonl",
        "gate": "gate evaluation --max-asr 5 --json OUT",
    }
    for name, command in commands.items():
        for what, (place, make) in places.items():
            if (name, what) in {("gate", "a file"), ("data convert", "a file")}:
                continue  # a file is what it writes
            yield f"{name} to {what}", command.replace("OUT", place), make


def of_data() -> Iterator[tuple[str, str, Make]]:
    """Files of data."""
    row = {"prompt": "p?", "chosen": "I won't.", "rejected": "Turn it."}
    rows: dict[str, bytes] = {
        "a lone surrogate in a prompt": json.dumps({**row, "prompt": "a\ud800"}).encode(),
        "a number of a million digits": b'{"prompt": ' + b"9" * 1_000_000 + b"}",
        "not a number": b'{"prompt": NaN, "chosen": "a", "rejected": "b"}',
        "a deep value": b'{"prompt": ' + b"[" * 90_000 + b"}",
        "a column that moves the cursor": json.dumps({"\x1b[2J": "a"}).encode(),
        "nothing": b"",
        "a byte order mark alone": b"\xef\xbb\xbf",
    }
    for what, content in rows.items():
        yield f"data: {what}", "data check bad.jsonl", write("bad.jsonl", content + b"\n" * bool(content))
    yield "data: no such file", "data check nowhere.jsonl", lambda: None
    yield "data: a directory", "data check adapter", lambda: None
    yield "data: a device", "data check /dev/zero", lambda: None
    yield "data: a name that moves the cursor", "data check a\x1b[2Jb.jsonl", lambda: None
    yield "data: Parquet of dates that don't exist", "data check bad.parquet", _impossible_dates
    yield "data: Parquet that is none", "data check bad.parquet", write("bad.parquet", b"PAR1" + b"\0" * 40 + b"PAR1")
    yield "behaviours: empty", EVAL.replace("behaviours.txt", "bad.txt"), write("bad.txt", b"\n\n")
    yield "behaviours: not text", EVAL.replace("behaviours.txt", "bad.txt"), write("bad.txt", b"\xff\xfe")
    yield "behaviours: no such file", EVAL.replace("behaviours.txt", "bad.txt"), lambda: None
    yield "a system prompt that is not text", f"{EVAL} --system bad.txt", write("bad.txt", b"\xff\xfe\xfa")


def _impossible_dates() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    days = pa.array([2**31 - 1], pa.int32()).cast(pa.date32())
    assert date.max.year < 10_000
    pq.write_table(pa.table({"prompt": days, "chosen": ["a"], "rejected": ["b"]}), "bad.parquet")


def of_runs() -> Iterator[tuple[str, str, Make]]:
    """Run directories whose identity says nothing."""
    for what, content in NONSENSE.items():
        if what in ("missing", "a key twice"):
            continue
        yield (
            f"a run's identity, {what}",
            TRAIN,
            lambda content=content: (
                Path("out").mkdir(),
                write("out/derta.json", content)(),
            ),
        )
        yield f"a model's identity, {what}", EVAL, write("model/derta.json", content)
    yield "a checkpoint that is a file", TRAIN, lambda: (Path("out").mkdir(), Path("out/checkpoint-3").write_text("x"))
    yield "a directory of other things", TRAIN, lambda: (Path("out").mkdir(), Path("out/mine.txt").write_text("x"))


def of_options() -> Iterator[tuple[str, str, Make]]:
    """Options that say nothing that could be done."""
    more = (
        *("--limit 0", "--limit -1", "--epochs 0", "--epochs -2", "--max-new-tokens 0", "--max-new-tokens -5"),
        *("--temperature -1", "--temperature nan", "--depths 0", "--depths x", "--seed x", "--search gcg_steps=0"),
        *("--search temperature=nan", "-M a=[1", "--depths 5,5", "--task gsm8k=a --task gsm8k=b"),
        *("--attacks nope", "--judge nope", "-M dtype=nope", "--task nope=x", "--templates nowhere"),
        *("--search-limit 0", "--judge-quality nowhere", "--model-role attacker"),
    )
    for options in more:
        yield f"eval {options}", f"eval --model model --behaviours behaviours.txt --out out {options}", lambda: None
    yield "eval --prompts nowhere", f"{EVAL} --prompts nowhere", lambda: None
    for options in ("--max-asr nan", "--max-asr -1", "--max-unscored -1", "--max-broken 101"):
        yield f"gate {options}", f"gate evaluation --max-garbled 5 {options}", lambda: None
    for argv in (
        *("gate nowhere --max-asr 5", "gate adapter --max-asr 5", "compare evaluation nowhere"),
        *("show evaluation --id nope", "nope"),
    ):
        yield argv, argv, lambda: None
    yield "a model whose name leads out", EVAL.replace("model model", "model model adapter/.."), lambda: None
    yield (
        "a file whose name leads out",
        "score responses.jsonl ...jsonl --attack direct --out out",
        lambda: shutil.copy("responses.jsonl", "...jsonl"),
    )
    yield "a model whose name moves the cursor", EVAL.replace("model model", "model x\x1b[2J"), lambda: None


def of_evaluations() -> Iterator[tuple[str, str, Make]]:
    """Evaluations that are damaged, and evaluating on."""
    for file in ("evaluation.json", "responses.jsonl"):
        for what in ("missing", "not text", "deep", "null"):
            yield f"{file}, {what}", "gate evaluation --max-asr 5", write(f"evaluation/{file}", NONSENSE[what])
    yield "responses.jsonl, cut", "gate evaluation --max-asr 5", cut("evaluation/responses.jsonl")
    again = EVAL.replace("--out out", "--out evaluation")
    for what, damage in (("cut", lambda log: cut(str(log))()), ("empty", lambda log: log.write_bytes(b""))):
        # Logs are read of what isn't finished only.
        yield (
            f"a log, {what}",
            again,
            lambda damage=damage: (
                Path("evaluation/responses.jsonl").unlink(),
                damage(next(Path("evaluation/logs").glob("*.eval"))),
            ),
        )
    yield "evaluation.json, deep, again", again, write("evaluation/evaluation.json", NONSENSE["deep"])


BAD_INPUTS = {
    name: BadInput(argv.split(" "), make)
    for kind in (
        *(
            of_models,
            of_configurations,
            of_adapters,
            of_outputs,
            of_data,
            of_runs,
            of_options,
            of_evaluations,
        ),
    )
    for name, argv, make in kind()
}
"""All of them, by name."""


def make_inputs(folder: Path) -> None:
    """Make what is right: a tiny model, an adapter of it, data, responses and an evaluation."""
    from peft import LoraConfig, get_peft_model

    from derta.cli import main
    from tests.conftest import small_tokenizer
    from tests.method.models import tiny

    tokenizer = small_tokenizer()
    model = tiny(vocab_size=len(tokenizer))
    model.save_pretrained(folder / "model")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder / "adapter")
    os.chdir(folder)
    change("adapter/adapter_config.json", base_model_name_or_path="model")()
    for place in ("model", "adapter"):
        tokenizer.save_pretrained(place)
    row = {"prompt": "how to open it?", "chosen": "I won't.", "rejected": "Turn it."}
    Path("data.jsonl").write_text(json.dumps(row) + "\n")
    Path("responses.jsonl").write_text(json.dumps({"prompt": "how?", "response": "Turn it."}) + "\n")
    Path("behaviours.txt").write_text("how to open the moon vault?\n")
    if main(EVAL.replace("--out out", "--out evaluation").split()) not in (0, 1):
        raise RuntimeError("the right inputs don't do")


def shown(message: str) -> str:
    """A message without a library's own words, which change with its version, and without names that were drawn."""
    message = re.sub(r"[\w-]+\.eval", "LOG.eval", message)
    for before in ("can't be loaded: ", "can't be read: ", "not JSON: ", "can't go on from it: ", "can't set up"):
        head, found, _ = message.partition(before)
        if found:
            return head + found
    return message


def main() -> None:
    """Write the messages down."""
    import contextlib
    import io
    import tempfile

    import yaml

    from derta.cli import main as derta

    made = Path(tempfile.mkdtemp())
    make_inputs(made)
    # Those that are there stay: take out of the file what is to be written anew.
    known = yaml.safe_load(MESSAGES.read_text("utf-8")) if MESSAGES.exists() else {}
    found = {name: message for name, message in known.items() if name in BAD_INPUTS}
    for name, bad in BAD_INPUTS.items():
        if name in found:
            continue
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(made, folder, dirs_exist_ok=True)
            os.chdir(folder)
            bad.make()
            told = io.StringIO()
            try:
                with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                    code: Any = derta(bad.argv)
            except BaseException as error:
                code = f"{type(error).__name__}: {str(error)[:300]}"
            lines = [line for line in told.getvalue().splitlines() if line.startswith("derta: error: ")]
            if code == 2 and len(lines) == 1:
                found[name] = shown(lines[0].removeprefix("derta: error: "))
            else:
                print(f"{name}: {code}: {told.getvalue()[-300:]}", flush=True)
    MESSAGES.write_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000), encoding="utf-8")
    print(f"{len(found)} of {len(BAD_INPUTS)}")


if __name__ == "__main__":
    main()
