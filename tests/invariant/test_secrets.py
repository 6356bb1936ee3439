"""Keys, tokens and passwords stay out of everything that a command writes or prints."""

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from derta.cli import main
from derta.redaction import redacted, redacted_text
from derta.training import DeRTaConfig
from tests.evaluation.servers import Answer, serving

MARK = "PLANTED"
"""Every secret of this test begins so."""
TRAIN = ["train", "--model-name-or-path", "organism", "--train-data", "organism", "--output-dir", "run"]
TRAIN += ["--max-examples", "8", "--max-steps", "2", "--save-steps", "1", "--use-cpu", "true"]
EVAL = ["eval", "--model", "openai-api/test/m", "--behaviours", "behaviours.txt", "--limit", "2", "--out", "out"]
DIRECT = ["--attacks", "direct"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "TEST_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"{MARK}-{name}")
    # Inspect's traces are files too.
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    Path("behaviours.txt").write_text("how to open the vault?\nhow to close it?\n")


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file, file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    yield from ((file / name, packed.read(name)) for name in packed.namelist())


def assert_nothing_leaked(capfd: pytest.CaptureFixture[str]) -> str:
    told = "".join(capfd.readouterr())
    assert MARK not in told, told
    assert [str(file) for file, content in contents(Path.cwd()) if MARK.encode() in content] == []
    return told


def test_training_keeps_tokens_to_itself(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--hub-token", f"{MARK}-hub", "--model-init-kwargs", f'{{"token": "{MARK}-init"}}']
    assert main([*TRAIN, *options]) == 0
    assert_nothing_leaked(capfd)
    assert Path("run/checkpoint-2").is_dir()
    assert not list(Path("run").rglob("training_args.bin")), "a pickle"
    # Another token is no other run.
    assert main([*TRAIN, "--model-init-kwargs", f'{{"token": "{MARK}-new"}}']) == 0
    assert "this run is finished" in assert_nothing_leaked(capfd)


def test_a_pickled_configuration_has_no_token(tmp_path: Path) -> None:
    config = DeRTaConfig(str(tmp_path), use_cpu=True, hub_token=MARK)
    assert MARK.encode() not in pickle.dumps(config)
    assert config.hub_token == MARK


def url(server_url: str) -> str:
    return server_url.replace("://", f"://user:{MARK}-password@")


def answer(path: str, body: object) -> str:
    return "Sorry, no."


def fail(path: str, body: object) -> int:
    return 401


@pytest.mark.parametrize("by", ["environment", "options"])
@pytest.mark.parametrize(("says", "code"), [(answer, 0), (fail, 1)])
def test_an_evaluation_keeps_keys_and_passwords_to_itself(
    by: str, says: Answer, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["-M", f"default_headers={{X-Door: {MARK}-header}}"]
    with serving(says) as server:
        if by == "environment":
            monkeypatch.setenv("TEST_BASE_URL", url(server.url))
        else:
            options += ["-M", f"base_url={url(server.url)}", "-M", f"api_key={MARK}-key"]
        assert main([*EVAL, *DIRECT, *options]) == code
    assert_nothing_leaked(capfd)
    assert Path("out/evaluation.json").exists()


@pytest.mark.parametrize("what", ["no server", "a key is refused", "an attack can't be made"])
def test_no_error_tells_the_password_of_a_server(
    what: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(answer, owned_by="somebody", lists=401 if what == "a key is refused" else None) as server:
        place = "http://127.0.0.1:9/v1" if what == "no server" else server.url
        monkeypatch.setenv("TEST_BASE_URL", url(place))
        assert main([*EVAL, "--attacks", "prefill", "-M", f"api_key={MARK}-key"]) == 2
    told = assert_nothing_leaked(capfd)
    assert told.count("derta: error: ") == 1
    assert f"http://***@{place.removeprefix('http://')}" in told or what == "an attack can't be made"


def test_what_is_a_secret_is_told_by_its_name() -> None:
    secret = {"api_key": "x", "HF_TOKEN": "x", "x-api-key": "x", "headers": {"X-Door": "x"}, "auth": ["x"]}
    assert redacted({"a": [secret]}) == {
        "a": [
            {"api_key": "***", "HF_TOKEN": "***", "x-api-key": "***", "headers": {"X-Door": "***"}, "auth": "***"},
        ]
    }
    plain = {"tokenizer": "x", "max_tokens": 3, "chat_template_kwargs": {"keyboard": "x"}, "token": None, "key": False}
    assert redacted(plain) == plain


def test_what_is_secret_in_a_url() -> None:
    hidden = "at https://***@host:1/v1?api_key=***&page=2, or http://host/@me and a@b.c"
    assert redacted_text("at https://u:p@host:1/v1?api_key=abc&page=2, or http://host/@me and a@b.c") == hidden
