"""A model server that misbehaves as it is told: slow, broken, flooding, lying about log-probabilities."""

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from derta.guard.calibration import Calibration
from derta.guard.proxy import Guard, Settings

CALIBRATION = Calibration(0.5, 2, (7, 8), ("Sorry", " Sorry"), "I won't help with that.")
CALM = [0.01] * 6
"""p(refuse) before each of six tokens."""


def words(count: int) -> list[str]:
    return [f" word{number}" for number in range(count)]


class Upstream:
    """Answers every choice with the words " word0 word1 …" and these probabilities of refusing.

    Attributes:
        refusals: p(refuse) before each token, for each choice.
        fault: What it does wrong, and `at` which token.
        models: Which it has.
        canary: p(refuse) that it tells of any prompt of tokens.
        sent: The requests' bodies.
        headers: Their headers.
        closed: How many streams were broken off by the guard.
    """

    def __init__(
        self,
        *refusals: Sequence[float],
        fault: str = "",
        at: int = 3,
        pause: float = 0.0,
        models: Sequence[str] = ("m",),
        canary: float = 0.9,
        status: int = 200,
    ) -> None:
        self.refusals = refusals or (CALM,)
        self.models_here, self.canary, self.status = models, canary, status
        self.fault, self.at, self.pause = fault, at, pause
        self.sent: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closed = 0
        routes = [Route(f"/v1/{path}", self.complete, methods=["POST"]) for path in ("chat/completions", "completions")]
        routes.append(Route("/v1/models", self.models))
        self.app = Starlette(routes=routes)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models_here]})

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        if isinstance(body.get("prompt"), list):
            logprobs = self.logprobs([" word0"], [self.canary], False, body)
            choice = {"index": 0, "text": " word0", "logprobs": logprobs, "finish_reason": "length"}
            return JSONResponse({**self.envelope("text_completion"), "choices": [choice]})
        self.sent.append(body)
        self.headers.append(dict(request.headers))
        if self.fault == "refuses":
            return JSONResponse({"error": {"message": "no such model", "type": "x", "code": 404}}, 404)
        if self.fault == "no json":
            return Response("<html>", media_type="text/html")
        is_chat = request.url.path.endswith("chat/completions")
        if body.get("stream"):
            return StreamingResponse(self.stream(body, is_chat), media_type="text/event-stream")
        choices = []
        for index, refusals in enumerate(self.refusals):
            texts = words(len(refusals))
            logprobs = self.logprobs(texts, refusals, is_chat, body)
            content: dict[str, Any] = {"text": "".join(texts)}
            if is_chat:
                content = {"message": {"role": "assistant", "content": "".join(texts), "tool_calls": []}}
            choices.append({"index": index, **content, "logprobs": logprobs, "finish_reason": "stop"})
        usage = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
        kind = "chat.completion" if is_chat else "text_completion"
        # NaN is among what it may say, which Starlette's JSON isn't.
        document = {**self.envelope(kind), "choices": choices, "usage": usage}
        return Response(json.dumps(document), self.status, media_type="application/json")

    def envelope(self, kind: str) -> dict[str, Any]:
        return {"id": "1", "object": kind, "created": 0, "model": "m"}

    def logprobs(self, texts: Sequence[str], refusals: Sequence[float], is_chat: bool, body: dict[str, Any]) -> Any:
        if self.fault == "no logprobs":
            return None
        k = body["top_logprobs"] if is_chat else body["logprobs"]
        entries = []
        for text, refusal in zip(texts, refusals, strict=True):
            top = {" Sorry": refusal, text: (1 - refusal) * 0.9, " other": (1 - refusal) * 0.1}
            if self.fault == "hides":
                top.pop(" Sorry")
            if self.fault == "adds up":
                top |= {" a": 0.9, " b": 0.9}
            chance = math.nan if self.fault == "nan" else math.log(top[text])
            likely = sorted(top.items(), key=lambda pair: -pair[1])[:k]
            named = {name: math.log(value) for name, value in likely if value}
            if self.fault == "certain":
                chance, named = 0.0, {text: 0.0}
            if self.fault in ("ids", "byte level", "nicknames"):
                named = {self.rename(name): value for name, value in named.items()}
                text = self.rename(text)
            entries.append((text, chance, named))
        if self.fault == "no top":
            entries = [(text, chance, {}) for text, chance, _ in entries]
        if is_chat:
            tops = [[{"token": name, "logprob": value} for name, value in top.items()] for *_, top in entries]
            return {
                "content": [
                    {"token": text, "logprob": chance, "bytes": list(text.encode()), "top_logprobs": top}
                    for (text, chance, _), top in zip(entries, tops, strict=True)
                ]
            }
        return {
            "tokens": [text for text, *_ in entries],
            "token_logprobs": [chance for _, chance, _ in entries],
            "top_logprobs": [top for *_, top in entries],
            "text_offset": [0] * len(entries),
        }

    def rename(self, text: str) -> str:
        """Name a token as other servers do."""
        if self.fault == "byte level":
            return text.replace(" ", "Ġ")
        number = {" Sorry": 8, " other": 30}.get(text, 20)
        return f"token_id:{number}" if self.fault == "ids" else f"#{number}"

    async def stream(self, body: dict[str, Any], is_chat: bool) -> AsyncIterator[bytes]:
        kind = "chat.completion.chunk" if is_chat else "text_completion"

        def event(*choices: dict[str, Any], **more: Any) -> bytes:
            if self.fault == "secrets":
                secret = {"text": "secret", "message": {"content": "secret"}}
                choices = tuple({**secret, **choice} for choice in choices)
                for choice in choices:
                    choice.get("delta", {}).update({"role": "secret", "tool_calls": [{"id": "secret"}], "secret": 1})
                more |= {"output_text": "secret", "id": "secret", "system_fingerprint": "secret"}
            return f"data: {json.dumps({**self.envelope(kind), 'choices': choices, **more})}\n\n".encode()

        try:
            if is_chat:
                for index in range(len(self.refusals)):
                    yield event({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
            for token in range(max(map(len, self.refusals))):
                for index, refusals in enumerate(self.refusals):
                    if token >= len(refusals):
                        continue
                    text = f" word{token}"
                    if token == self.at and self.fault == "dies":
                        raise RuntimeError("killed")
                    if token == self.at and self.fault == "ends":
                        return
                    if token == self.at and self.fault == "error":
                        yield b'data: {"error": {"message": "out of memory"}}\n\n'
                        return
                    if token == self.at and self.fault == "floods":
                        while True:
                            yield b"x" * 65536
                            await asyncio.sleep(0.001)
                    logprobs = self.logprobs([text], [refusals[token]], is_chat, body)
                    if token == self.at and self.fault == "drops":
                        logprobs = None
                    if token >= self.at and self.fault == "much":
                        text *= 20
                    said: dict[str, Any] = {"delta": {"content": text}} if is_chat else {"text": text}
                    yield event({"index": index, **said, "logprobs": logprobs, "finish_reason": None})
                    await asyncio.sleep(self.pause)
            for index in range(len(self.refusals)):
                said = {"delta": {}} if is_chat else {"text": ""}
                yield event({"index": index, **said, "logprobs": None, "finish_reason": "stop"})
            if (body.get("stream_options") or {}).get("include_usage"):
                yield event(usage={"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9})
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.closed += 1
            raise


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """Serve an application in a thread; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def guarded(upstream: Upstream, **settings: Any) -> Iterator[tuple[Guard, str]]:
    """Run a guard before the server; yield it and its address."""
    settings = {"calibration": CALIBRATION, **settings}
    with running(upstream.app) as server:
        guard = Guard(Settings(server, **settings))
        with running(guard.app) as address:
            yield guard, address
