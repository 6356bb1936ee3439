"""Whatever a recipe, a run directory, an evaluation or a file of data holds: it is read, or refused in one line.

`DERTA_FUZZ_SECONDS=600 pytest tests/fuzz` looks for ten minutes each.
"""

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from derta.cli import main
from derta.data.sources import Notes, read_examples
from derta.errors import InputError
from derta.evaluation.results.compare import compare
from derta.evaluation.results.store import find_evaluations, load_evaluation
from derta.run_identity import check_files, read_identity, template_options
from derta.training.options import option_names, parse_options, read_recipe
from derta.training.run_directory import RunDirectory, check_readable, check_resume
from tests.evaluation.results.made import evaluation, good_samples
from tests.fuzz.given import TEXT, VALUE, changed, damaged, fuzz

RECIPE = {"model_name_or_path": "organism", "train_data": ["organism"], "use_cpu": True, "output_dir": "out"}
IDENTITY: dict[str, Any] = {
    **{"method": "derta", "seed": 42, "base": "organism", "data": "53543c5e67940bdf", "finished": False},
    **{"settings": {"max_steps": 6, "chat_template_kwargs": {"a": True}}, "processes": 1, "sharding": None},
    **{"files": {"model.safetensors": "0"}, "trained_with": {"template": "0", "refusal_tokens": {"5": "Sorry"}}},
}
ROW = {"prompt": "how to open it?", "chosen": "I won't.", "rejected": "Turn it."}


def refused_at_most(do: Callable[[], object]) -> None:
    """Do something that may raise one error only."""
    with suppress(InputError):
        do()


def test_recipes() -> None:
    @given(
        st.dictionaries(st.sampled_from(option_names()), VALUE, min_size=1, max_size=3),
        st.binary(max_size=60),
        st.booleans(),
    )
    def check(values: dict[str, Any], more: bytes, is_text: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "recipe.yaml")
            if is_text:
                path.write_bytes(yaml.safe_dump(RECIPE).encode() + more)
                refused_at_most(lambda: read_recipe(path))
                return
            with suppress(ValueError):  # what YAML can't write
                text = yaml.safe_dump({**RECIPE, **values, "output_dir": folder}, allow_unicode=True)
                path.write_bytes(text.encode("utf-8", "surrogatepass"))
                refused_at_most(lambda: parse_options(["--config", str(path)]))

    fuzz(check)


def test_run_directories() -> None:
    identity = {name: IDENTITY[name] for name in ("method", "seed", "base", "data", "settings")}

    @given(
        changed(IDENTITY), changed({"global_step": 2, "log_history": [], "best_model_checkpoint": None}), st.booleans()
    )
    def check(document: Any, state: Any, is_checkpoint: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory(Path(folder), identity)
            place = run.path / "checkpoint-2" if is_checkpoint else run.path
            place.mkdir(exist_ok=True)
            if is_checkpoint:
                (run.path / "derta.json").write_text(json.dumps(identity))
            (place / "derta.json").write_text(json.dumps(document))
            (place / "trainer_state.json").write_text(json.dumps(state))
            for do in (
                *(lambda: run.check(overwrite=False), lambda: run.check(overwrite=True), lambda: run.finished),
                *(run.newest_checkpoint, lambda: check_readable(place), lambda: check_resume(place, None, 1)),
                *(
                    lambda: check_files(place, read_identity(place) or {}),
                    lambda: template_options(read_identity(place)),
                ),
            ):
                refused_at_most(do)

    fuzz(check)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    evaluation(folder / "one", good_samples(3))
    return folder / "one"


def test_evaluations(evaluated: Path) -> None:
    names = ("evaluation.json", "responses.jsonl")
    contents = {name: (evaluated / name).read_bytes() for name in names}
    lines = contents["responses.jsonl"].splitlines()

    @given(st.data(), st.sampled_from(names), st.booleans())
    def check(data: st.DataObject, name: str, as_bytes: bool) -> None:
        if as_bytes:
            content = data.draw(damaged(contents[name]))
        elif name == "responses.jsonl":
            number = data.draw(st.integers(0, len(lines) - 1))
            line = json.dumps(data.draw(changed(json.loads(lines[number])))).encode()
            content = b"\n".join([*lines[:number], line, *lines[number + 1 :]]) + b"\n"
        else:
            content = json.dumps(data.draw(changed(json.loads(contents[name])))).encode()
        with tempfile.TemporaryDirectory() as folder:
            for each in names:
                Path(folder, each).write_bytes(content if each == name else contents[each])
            place = Path(folder)
            refused_at_most(lambda: load_evaluation(place))
            refused_at_most(lambda: find_evaluations(place))
            refused_at_most(lambda: compare(load_evaluation(evaluated), load_evaluation(place)))
            told = io.StringIO()
            with redirect_stderr(told), redirect_stdout(io.StringIO()):
                codes = [main(["gate", folder, "--max-asr", "5"])]
            assert set(codes) <= {0, 1, 2}
            assert told.getvalue().count("derta: error: ") == codes.count(2)

    fuzz(check)


def test_data() -> None:
    rows = st.lists(
        st.dictionaries(st.one_of(st.sampled_from([*ROW, "messages", "harmful"]), TEXT), VALUE, max_size=4), max_size=3
    )

    @given(
        rows,
        changed([ROW, ROW]),
        st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz"]),
        st.data(),
    )
    def check(rows: Any, row: Any, extension: str, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"data{extension}")
            document = data.draw(st.sampled_from([rows, row]))
            if extension == ".parquet":
                table = pa.table(
                    {"prompt": ["a", "b"], "chosen": ["x", "y"], "rejected": ["p", data.draw(st.text(max_size=5))]}
                )
                with suppress(pa.ArrowException, UnicodeEncodeError):
                    pq.write_table(table, path)
                content = path.read_bytes() if path.exists() else b""
            elif extension == ".jsonl":
                content = b"".join(
                    json.dumps(each).encode() + b"\n"
                    for each in (document if isinstance(document, list) else [document])
                )
            elif extension in (".csv", ".tsv"):
                content = b"prompt,chosen,rejected\n" + data.draw(st.binary(max_size=40))
            else:
                content = json.dumps(document).encode()
            path.write_bytes(data.draw(st.one_of(st.just(content), damaged(content))))
            refused_at_most(lambda: list(read_examples(str(path), Notes(), schema="auto", swap=False, bad_rows="stop")))
            refused_at_most(lambda: list(read_examples(str(path), Notes(), schema="auto", swap=False, bad_rows="skip")))

    fuzz(check)
