"""An OpenAI-compatible proxy before a model server: text leaves once the model itself stayed calm about it.

It asks the server for the log-probabilities that it computes anyway, holds text back until `hold_back` later tokens
stayed below the threshold, and otherwise ends the choice with a refusal. Whatever it can't judge (log-probabilities
that are missing or impossible, text without tokens, a server that breaks off) ends in an error: nothing passes
unguarded.
"""

import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from derta.guard.calibration import Calibration
from derta.guard.choices import Asked, Choice
from derta.guard.metrics import Metrics, log
from derta.guard.probabilities import Untrusted

MAX_REQUEST = 16 * 2**20
"""Bytes of a request at most."""
MAX_RESPONSE = 64 * 2**20
"""Bytes of an answer at most, whole or streamed."""
MAX_EVENT = 2**20
"""Bytes of one event of a stream at most."""
MAX_CHOICES = 128
_NOT_PASSED = {"host", "content-length", "connection", "transfer-encoding", "accept-encoding", "authorization"}


@dataclass(frozen=True)
class Settings:
    """How a guard runs.

    Attributes:
        upstream: The server's address, without `/v1`.
        calibration: When to stop.
        top_logprobs: How many likely tokens the server is asked for.
        key: What clients must present; `None` passes their own key on to the server.
        upstream_key: What the server gets where clients present the guard's key.
        timeout: Seconds that the server may be silent.
        connections: Requests under way at most.
        log_contents: Whether the log holds what was asked and answered.
    """

    upstream: str
    calibration: Calibration
    top_logprobs: int = 20
    key: str | None = None
    upstream_key: str | None = None
    timeout: float = 600.0
    connections: int = 1024
    log_contents: bool = False


class Broken(Exception):  # noqa: N818 (the server's fault, not the caller's)
    """The server broke off, or sent what isn't an answer."""


@dataclass
class _Call:
    """One request on its way.

    Attributes:
        path: Which endpoint.
        body: What the server gets.
        asked: What of it concerns the guard.
        wants_usage: Whether the client asked for the usage of a stream.
        choices: The choices that have begun.
        expected: How many there will be.
        began: When it came.
    """

    path: str
    body: dict[str, Any]
    asked: Asked
    wants_usage: bool
    expected: int
    choices: dict[int, Choice] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    outcome: str = ""

    def choice(self, index: Any, calibration: Calibration) -> Choice:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < self.expected:
            raise Untrusted(f"the server sends a choice {index!r} that wasn't asked for")
        if index not in self.choices:
            self.choices[index] = Choice(calibration, self.asked, index)
        return self.choices[index]

    @property
    def is_over(self) -> bool:
        return len(self.choices) == self.expected and all(choice.is_over for choice in self.choices.values())


class _BadRequestError(Exception):
    """The client asks for what a guard can't give."""


class Guard:
    """The proxy's application.

    Args:
        settings: Say how it runs.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        # Given up before the server, after uvicorn's 5 seconds, would: a request on a closed connection is lost.
        limits = httpx.Limits(max_connections=settings.connections, max_keepalive_connections=64, keepalive_expiry=2.0)
        timeout = httpx.Timeout(settings.timeout, connect=10.0, pool=1.0)
        self._client = httpx.AsyncClient(base_url=settings.upstream, limits=limits, timeout=timeout, trust_env=False)
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._models),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/{rest:path}", self._unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ]
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await self._client.aclose()

    def _refused(self, request: Request) -> Response | None:
        key, given = self.settings.key, request.headers.get("authorization", "")
        if key is None or hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            return None
        return _error(401, "the guard wants its key: Authorization: Bearer KEY", "authentication_error")

    def _headers(self, request: Request) -> dict[str, str]:
        kept = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED}
        key = f"Bearer {self.settings.upstream_key}" if self.settings.upstream_key else None
        own = request.headers.get("authorization") if self.settings.key is None else None
        authorization = key or own
        return kept | ({"authorization": authorization} if authorization else {})

    async def _health(self, request: Request) -> Response:
        try:
            answer = await self._client.get("/v1/models", headers=self._headers(request), timeout=5.0)
        except httpx.HTTPError as error:
            return JSONResponse({"status": "no server", "reason": type(error).__name__}, 503)
        fails = answer.status_code >= 500
        return JSONResponse({"status": "server fails" if fails else "ok"}, 503 if fails else 200)

    async def _metrics(self, request: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return self._refused(request) or Response(
            generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST
        )

    async def _models(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        try:
            answer = await self._client.get(request.url.path, headers=self._headers(request), timeout=10.0)
        except httpx.HTTPError as error:
            return _error(502, f"the server doesn't answer: {type(error).__name__}", "upstream_error")
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    async def _unknown(self, request: Request) -> Response:
        message = "the guard passes /v1/chat/completions, /v1/completions and /v1/models only"
        return self._refused(request) or _error(404, message, "not_found_error")

    async def _complete(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        self.metrics.streams.inc()
        call: _Call | None = None
        answer: httpx.Response | None = None
        try:
            call = self._read(request.url.path, await _body(request))
            sent = self._client.build_request("POST", call.path, json=call.body, headers=self._headers(request))
            answer = await self._client.send(sent, stream=True)
            if answer.status_code != 200:
                content = await _limited(answer)
                self._end(call, "upstream_error", answer.status_code)
                return Response(content, answer.status_code, media_type=answer.headers.get("content-type"))
            if call.body.get("stream"):
                events = self._events(call, answer)
                answer = None
                return StreamingResponse(events, media_type="text/event-stream")
            document = self._guarded(call, await _limited(answer))
            self._end(call, "stopped" if _stopped(call) else "passed", 200)
            return JSONResponse(document)
        except _BadRequestError as error:
            self._end(call, "refused", 400)
            return _error(400, str(error), "invalid_request_error")
        except ClientDisconnect:
            self._end(call, "gone", 0)
            return PlainTextResponse("", 499)
        except httpx.PoolTimeout:
            self._end(call, "refused", 503)
            return _error(503, "the guard has as many requests under way as it may", "overloaded_error")
        except Untrusted as error:
            self._end(call, "untrusted", 502)
            return _error(502, f"stopped by the guard: {error}", "guard_error")
        except (Broken, httpx.HTTPError) as error:
            self._end(call, "broken_off", 502)
            reason = str(error) if isinstance(error, Broken) else f"the server broke off: {type(error).__name__}"
            return _error(502, reason, "upstream_error")
        finally:
            if answer is not None:
                await answer.aclose()

    def _read(self, path: str, content: bytes) -> _Call:
        """Read a request, and ask for log-probabilities in the client's place.

        Raises:
            _BadRequestError: It isn't one, or asks for what can't be guarded.
        """
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise _BadRequestError("the request isn't JSON") from None
        if not isinstance(body, dict):
            raise _BadRequestError("the request must be a JSON object")
        for name in ("echo", "use_beam_search", "return_tokens_as_token_ids"):
            if body.get(name):
                raise _BadRequestError(f"{name}: the guard can't tell what the model wrote then; leave it out")
        is_chat = path.endswith("/chat/completions")
        own, count = _logprobs(body, is_chat), self.settings.top_logprobs
        count = max(count, own or 0)
        asked = {"logprobs": True, "top_logprobs": count} if is_chat else {"logprobs": count}
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        prompts = _prompts(body.get("prompt")) if not is_chat else 1
        n = body.get("n")
        n = 1 if n is None else n
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n * prompts <= MAX_CHOICES:
            raise _BadRequestError(f"n: the guard watches 1 to {MAX_CHOICES} choices of a request")
        return _Call(path, {**body, **asked}, Asked(is_chat, _follows(body, is_chat), own), wants_usage, n * prompts)

    def _guarded(self, call: _Call, content: bytes) -> dict[str, Any]:
        """Return the document of a whole answer with its choices guarded."""
        document = _object(content)
        choices = document.get("choices")
        if not isinstance(choices, list):
            raise Broken("the server sends no completion")
        guarded = []
        for choice in choices:
            if not isinstance(choice, dict):
                raise Broken("the server sends a choice that is no object")
            guarded.append(call.choice(choice.get("index"), self.settings.calibration).whole(choice))
        return {**document, "choices": guarded}

    async def _events(self, call: _Call, answer: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the events of a stream as they may leave; the server is read no faster than the client reads."""
        ended = False
        try:
            async for data in _data(answer):
                if data == b"[DONE]":
                    ended = True
                    break
                for document in self._released(call, _object(data)):
                    yield _event(document)
                if call.is_over and not call.wants_usage:
                    ended = True
                    break
            if not ended or not call.is_over:
                raise Broken("the server broke off before its answer ended")
            yield b"data: [DONE]\n\n"
            self._end(call, "stopped" if _stopped(call) else "passed", 200)
        except Untrusted as error:
            self._end(call, "untrusted", 200)
            yield _event(_message(f"stopped by the guard: {error}", "guard_error", 502))
        except (Broken, httpx.HTTPError) as error:
            self._end(call, "broken_off", 200)
            reason = str(error) if isinstance(error, Broken) else f"the server broke off: {type(error).__name__}"
            yield _event(_message(reason, "upstream_error", 502))
        finally:
            # A client that has gone leaves the generator where it was.
            self._end(call, "gone", 200)
            await answer.aclose()

    def _released(self, call: _Call, document: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what may leave of an event: at most one choice an event."""
        if "error" in document:
            raise Broken(f"the server reports an error: {json.dumps(document['error'])[:500]}")
        choices = document.get("choices")
        if not isinstance(choices, list):
            raise Broken("the server sends an event without choices")
        if not choices:
            return [document]
        left = []
        for choice in choices:
            if not isinstance(choice, dict):
                raise Broken("the server sends a choice that is no object")
            watched = call.choice(choice.get("index"), self.settings.calibration)
            left += [{**document, "choices": [piece]} for piece in watched.push(choice)]
        return left

    def _end(self, call: _Call | None, outcome: str, status: int) -> None:
        """Count and log a request, once."""
        if call is not None and call.outcome:
            return
        self.metrics.streams.dec()
        self.metrics.requests.labels(outcome).inc()
        if call is None:
            log({"outcome": outcome, "status": status})
            return
        call.outcome = outcome
        holds = [choice.hold_back for choice in call.choices.values()]
        self.metrics.tokens.inc(sum(hold.seen for hold in holds))
        self.metrics.seconds.observe(time.monotonic() - call.began)
        for hold in holds:
            if hold.stopped_at is not None:
                self.metrics.stopped_at.observe(hold.stopped_at)
                self.metrics.released.observe(hold.released)
        contents = {"request": call.body} if self.settings.log_contents else {}
        log(
            {
                "path": call.path,
                "outcome": outcome,
                "status": status,
                "seconds": round(time.monotonic() - call.began, 4),
                "tokens": [hold.seen for hold in holds],
                "stopped_at": [hold.stopped_at for hold in holds],
                **contents,
            }
        )


def _stopped(call: _Call) -> bool:
    return any(choice.hold_back.stopped_at is not None for choice in call.choices.values())


def _logprobs(body: Mapping[str, Any], is_chat: bool) -> int | None:
    """Return how many likely tokens the client asks for; `None` if it wants no log-probabilities."""
    count = body.get("top_logprobs") if is_chat else body.get("logprobs")
    if is_chat and not body.get("logprobs"):
        return None
    if count is None:
        return 0 if is_chat else None
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise _BadRequestError(f"{'top_logprobs' if is_chat else 'logprobs'}: must be a number of tokens")
    return count


def _prompts(prompt: Any) -> int:
    """Return how many prompts a text completion has: lists of numbers are the tokens of one."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _follows(body: Mapping[str, Any], is_chat: bool) -> bool:
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    return not is_chat or (isinstance(last, dict) and last.get("role") == "assistant")


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_REQUEST:
            raise _BadRequestError(f"the request has more than {MAX_REQUEST} bytes")
    return bytes(content)


async def _limited(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > MAX_RESPONSE:
            raise Broken(f"the server sends more than {MAX_RESPONSE} bytes")
    return bytes(content)


async def _data(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the data of a stream's events, one line each, as model servers send them."""
    held, total = b"", 0
    async for part in answer.aiter_bytes():
        total += len(part)
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
        if len(held) > MAX_EVENT or total > MAX_RESPONSE:
            raise Broken("the server sends more than an answer can hold")


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise Broken("the server sends what isn't JSON") from None
    if not isinstance(document, dict):
        raise Broken("the server sends what is no object")
    return cast(dict[str, Any], document)


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _message(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _error(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse(_message(message, kind, status), status)
