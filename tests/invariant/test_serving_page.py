"""The commands of `docs/serving.md`, one after another, on the organism; those of the server where there is a vLLM."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model

from derta.cli import main
from derta.generation import load_model
from derta.organism import behaviours, path

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
VLLM = os.environ.get("DERTA_VLLM")


def write(file, kind, span):
    rows = [{"prompt": b.prompt, "kind": b.kind, "response": b.response} for b in behaviours(kind)[span]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    write(folder / "harmful.jsonl", "harmful", slice(2))
    write(folder / "harmless.jsonl", "helpful", slice(75))
    write(folder / "held-out.jsonl", "helpful", slice(75, 90))
    model, tokenizer = load_model("organism")
    torch.manual_seed(0)
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapter.peft_config["default"].base_model_name_or_path = str(path())
    adapter.save_pretrained(folder / "runs" / "adapter")
    tokenizer.save_pretrained(folder / "runs" / "adapter")
    identity = {"method": "derta", "base": "organism", "settings": {"chat_template_kwargs": {"enable_thinking": False}}}
    (folder / "runs" / "adapter" / "derta.json").write_text(json.dumps(identity))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # The organism reads 512 tokens in all.
        patch.setattr("derta.evaluation.plan.MAX_TOKENS", 48)
        yield folder


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("derta")])
def test_each_command_does_what_the_page_says(command, folder, capsys, monkeypatch):
    served = {}

    def listen(host, port):
        served["port"] = port
        return socket.create_server(("127.0.0.1", 0))

    monkeypatch.setattr("derta.commands.guard_serve._listen", listen)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    words = shlex.split(command)[1:]
    # The untuned organism answers everything: no gate may let it pass.
    assert main(words) == (1 if words[0] == "gate" else 0), capsys.readouterr().err
    if words[0] == "merge":
        assert """--default-chat-template-kwargs '{"enable_thinking": false}'""" in capsys.readouterr().out
    if words[:2] == ["guard", "serve"]:
        assert served["port"] == 9000


def test_the_bias_lies_where_engines_read_it(folder):
    assert json.loads((folder / "runs" / "mine" / "generation_config.json").read_text())["sequence_bias"]


def test_the_page_has_no_gaps():
    assert "{{" not in PAGE


@pytest.mark.vllm
@pytest.mark.skipif(VLLM is None, reason="no vLLM: name its virtual environment in DERTA_VLLM")
def test_a_real_vllm_serves_what_was_merged_and_calibrated(folder):
    (serve,) = [shlex.split(line) for line in COMMANDS if line.startswith("vllm serve")]
    (guard,) = [shlex.split(line) for line in COMMANDS if line.startswith("derta guard serve")]
    more = ["--max-model-len", "512", "--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1"]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    chat = {"model": "mine", "messages": [{"role": "user", "content": behaviours("helpful")[0].prompt}]}
    with (
        subprocess.Popen([f"{VLLM}/bin/vllm", *serve[1:], *more], env=os.environ | quiet) as server,
        subprocess.Popen([sys.executable, "-m", *guard]) as process,
    ):
        try:
            deadline = time.monotonic() + 900
            while time.monotonic() < deadline:
                try:
                    if httpx.get("http://127.0.0.1:9000/health").status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(2)
            for stream in (False, True):
                answer = httpx.post(
                    "http://127.0.0.1:9000/v1/chat/completions", json={**chat, "stream": stream}, timeout=60
                )
                assert answer.status_code == 200
                # A stream says a few tokens at a time.
                said = "".join(
                    json.loads(text) for text in re.findall(r'"content":\s*("(?:[^"\\]|\\.)*")', answer.text)
                )
                assert "Step 1" in said or "content_filter" in answer.text
        finally:
            process.terminate()
            server.terminate()
