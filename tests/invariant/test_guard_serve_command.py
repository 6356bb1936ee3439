"""`derta guard serve` as a user starts it."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from derta.cli import main
from derta.guard.calibration import Calibration, Canary, load_calibration, save_calibration
from tests.guard.upstream import CALIBRATION, Upstream, running


@pytest.fixture
def calibration(tmp_path):
    file = tmp_path / "guard.json"
    save_calibration(file, CALIBRATION)
    return str(file)


@pytest.fixture
def started(monkeypatch):
    """Where the guard would have been served."""
    found: dict[str, Any] = {}

    def listen(host, port):
        found.update(host=host, port=port)
        return socket.create_server(("127.0.0.1", 0))

    monkeypatch.setattr("derta.commands.guard_serve._listen", listen)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    return found


def error(capsys, *argv):
    assert main(["guard", "serve", *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_it_stands_before_a_server_until_it_is_ended(calibration):
    with running(Upstream([0.9] * 6).app) as server:
        command = [
            sys.executable,
            "-m",
            "derta",
            "guard",
            "serve",
            "--upstream",
            f"{server}/v1",
            "--calibration",
            calibration,
        ]
        with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert b"stops above p(refuse) 0.5, holds 2 tokens back" in process.stdout.readline()
            process.terminate()
            process.wait(30)
        assert process.returncode in (0, -15, 143)


def test_it_listens_elsewhere_with_a_key_only(calibration, started, capsys, monkeypatch, tmp_path):
    asked = ["--upstream", "http://127.0.0.1:1", "--calibration", calibration]
    monkeypatch.delenv("DERTA_GUARD_KEY", raising=False)
    assert "set DERTA_GUARD_KEY" in error(capsys, *asked, "--host", "0.0.0.0")
    assert main(["guard", "serve", *asked]) == 0
    assert (started["host"], started["port"]) == ("127.0.0.1", 9000)
    (tmp_path / "key").write_text("secret\n")
    assert main(["guard", "serve", *asked, "--host", "0.0.0.0", "--key-file", str(tmp_path / "key")]) == 0
    assert started["host"] == "0.0.0.0"
    monkeypatch.setenv("DERTA_GUARD_KEY", "secret")
    assert main(["guard", "serve", *asked, "--host", "::", "--port", "7"]) == 0
    assert "secret" not in "".join(capsys.readouterr())


def test_a_model_and_a_threshold_stand_for_a_calibration(started, capsys):
    asked = ["--upstream", "http://127.0.0.1:1", "--model", "organism"]
    assert main(["guard", "serve", *asked, "--threshold", "0.25", "--hold-back", "1"]) == 0
    assert "0.25, holds 1 tokens back" in capsys.readouterr().out
    assert "--threshold" in error(capsys, *asked)
    assert "no probability" in error(capsys, *asked, "--threshold", "2")


def test_what_is_wrong_is_one_line(calibration, tmp_path, capsys):
    asked = ["--upstream", "http://127.0.0.1:1", "--calibration", calibration]
    assert "one of them" in error(capsys, *asked[:2])
    assert "one of them" in error(capsys, *asked, "--model", "organism")
    assert "--upstream: 'localhost:80'" in error(capsys, "--upstream", "localhost:80", *asked[2:])
    assert "--top-logprobs: 1" in error(capsys, *asked, "--top-logprobs", "1")
    assert "can't be read" in error(capsys, *asked, "--key-file", str(tmp_path / "none"))
    damaged = tmp_path / "damaged.json"
    for change, said in (
        ({"threshold": 2}, "threshold"),
        ({"schema": 9}, "version"),
        ({"spellings": ["a"]}, "spellings"),
    ):
        damaged.write_text(json.dumps({**json.loads((tmp_path / "guard.json").read_text()), **change}))
        assert said in error(capsys, *asked[:2], "--calibration", str(damaged))


def test_a_port_that_is_taken_is_one_line_and_nothing_is_announced(calibration, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        asked = ["--upstream", "http://127.0.0.1:1", "--calibration", calibration, "--port", port]
        assert main(["guard", "serve", *asked]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"--port: can't listen at 127.0.0.1:{port}: Address already in use" in shown.err


def test_a_missing_library_is_named_with_its_extra(calibration, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    asked = ["--upstream", "http://127.0.0.1:1", "--calibration", calibration]
    assert 'pip install "derta[serve]"' in error(capsys, *asked)


def test_a_calibration_survives_its_file(tmp_path):
    saved = Calibration(
        0.25, 3, (5, 6), ("Sorry", " Sorry"), "No.", 1.0, 99, "runs/mine", "f00d", (Canary((1, 2), 0.9),)
    )
    save_calibration(tmp_path / "guard.json", saved)
    assert load_calibration(tmp_path) == load_calibration(tmp_path / "guard.json") == saved
