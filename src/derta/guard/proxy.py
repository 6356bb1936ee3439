"""An OpenAI-compatible proxy before a model server: text leaves once the model itself stayed calm about it.

It asks the server for the log-probabilities that it computes anyway, holds text back until `hold_back` later tokens
stayed below the threshold, and otherwise ends the choice with a refusal. Whatever it can't judge (log-probabilities
that are missing or impossible, text that no token spells, a server that breaks off) ends in an error of its own:
nothing passes unguarded, and nothing but the known fields of a completion passes at all.
"""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from derta.guard.calibration import Calibration, Canary
from derta.guard.choice import GuardedChoice
from derta.guard.completion import ChoicePart, Completion, ServerError, UntrustedError, read_completion, write_choice
from derta.guard.metrics import Metrics, log
from derta.guard.refusal_bound import RefusalBound
from derta.guard.request import BadRequestError, GuardedRequest, read_request

MAX_REQUEST = 16 * 2**20
"""Bytes of a request at most."""
MAX_RESPONSE = 64 * 2**20
"""Bytes of an answer at most, whole or streamed."""
MAX_EVENT = 2**20
"""Bytes of one event of a stream at most."""
_CANARY_TOLERANCE = 0.25
"""How far p(refuse) of a canary may be off: quantised weights move it by less, other weights or biases by more."""


@dataclass(frozen=True)
class Settings:
    """How a guard runs.

    Attributes:
        upstream (`str`): the server's address, without `/v1`.
        calibration (`Calibration`): when to stop.
        served_model (`str`, *optional*): the server's name for the calibrated model, the only one that passes;
            defaults to the server's only one.
        top_logprobs (`int`, *optional*, defaults to 20): how many likely tokens the server is asked for.
        key (`str`, *optional*): what clients must present; `None` passes their own key on to the server.
        upstream_key (`str`, *optional*): what the server gets where clients present the guard's key.
        timeout (`float`, *optional*, defaults to 600): seconds that the server may be silent.
        connections (`int`, *optional*, defaults to 1024): requests under way at most.
        canary_seconds (`float`, *optional*, defaults to 600): how long a canary's result counts.
        allow_certain (`bool`, *optional*, defaults to `False`): whether tokens pass that are said to have been the
            only possible ones.
        log_contents (`bool`, *optional*, defaults to `False`): whether the log holds what was asked.
    """

    upstream: str
    calibration: Calibration
    served_model: str | None = None
    top_logprobs: int = 20
    key: str | None = None
    upstream_key: str | None = None
    timeout: float = 600.0
    connections: int = 1024
    canary_seconds: float = 600.0
    allow_certain: bool = False
    log_contents: bool = False


@dataclass
class _Call:
    """One request on its way.

    Attributes:
        path: which endpoint.
        request: what was asked, once it has been read.
        choices: the choices that have begun.
        outcome: how it ended; empty while it is under way.
    """

    path: str
    request: GuardedRequest | None = None
    choices: dict[int, GuardedChoice] = field(default_factory=dict)
    outcome: str = ""
    began: float = field(default_factory=time.monotonic)
    # The server's own identifier is text that nobody counts.
    id: str = field(default_factory=lambda: f"guarded-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def asked(self) -> GuardedRequest:
        assert self.request is not None
        return self.request

    @property
    def is_over(self) -> bool:
        return len(self.choices) == self.asked.choices and all(choice.is_over for choice in self.choices.values())

    @property
    def verdict(self) -> str:
        return "stopped" if any(each.hold_back.stopped_at is not None for each in self.choices.values()) else "passed"

    def to_json(self, parts: list[ChoicePart], usage: Mapping[str, int] | None) -> dict[str, Any]:
        """Return an answer, or an event of a stream: the one place where what a client gets is written."""
        asked = self.asked
        kind = "chat.completion" if asked.is_chat else "text_completion"
        if asked.is_chat and asked.is_stream:
            kind = "chat.completion.chunk"
        how: dict[str, Any] = {"is_chat": asked.is_chat, "is_stream": asked.is_stream}
        choices = [write_choice(part, **how, top_logprobs=asked.top_logprobs) for part in parts]
        head = {"id": self.id, "object": kind, "created": self.created, "model": asked.body["model"]}
        return {**head, "choices": choices, **({"usage": dict(usage)} if usage else {})}


class _GuardedStream(StreamingResponse):
    """A stream that ends its call however it ends: a client may leave before the first event."""

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


class Guard:
    """The proxy's application.

    Args:
        settings (`Settings`): how it runs.

    Attributes:
        app (`Starlette`): what a server of ASGI serves.
        metrics (`Metrics`): what it counts.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        calibration = settings.calibration
        self._bound = RefusalBound(calibration.tokens, calibration.spellings, allow_certain=settings.allow_certain)
        self._model = settings.served_model
        self._proving = asyncio.Lock()
        self._proven_at: float | None = None
        # Given up before the server, after uvicorn's 5 seconds, would: a request on a closed connection is lost.
        limits = httpx.Limits(max_connections=settings.connections, max_keepalive_connections=64, keepalive_expiry=2.0)
        timeout = httpx.Timeout(settings.timeout, connect=10.0, pool=1.0)
        self._client = httpx.AsyncClient(
            base_url=settings.upstream, limits=limits, timeout=timeout, trust_env=False,
            headers={"accept-encoding": "identity"},
        )  # fmt: skip
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/{rest:path}", self._unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
        ]
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # A server that isn't there yet, or wants a client's key, is proven at the first request.
        try:
            await self._prove(_authorization(self.settings.upstream_key))
        except (UntrustedError, ServerError, httpx.HTTPError) as error:
            log({"outcome": "unproven", "reason": _reason(error)})
        yield
        await self._client.aclose()

    def _refused(self, request: Request, *, needs_key: bool = True) -> Response | None:
        headers, key = request.headers, self.settings.key
        if "transfer-encoding" in headers and "content-length" in headers:
            return _error(400, "a request has one length: Content-Length or Transfer-Encoding", "invalid_request_error")
        if key is None:
            # A page in a browser of this machine reaches a guard without a key: under a name of its own (Host), or
            # with a form (Origin).
            origin = headers.get("origin")
            if not _is_local(headers.get("host", "")) or (origin is not None and not _is_local(_netloc(origin))):
                message = "without a key the guard answers programs of this machine only, at localhost"
                return _error(403, message, "permission_error")
        elif needs_key and not hmac.compare_digest(
            headers.get("authorization", "").encode("latin-1"), f"Bearer {key}".encode()
        ):
            return _error(401, "the guard wants its key: Authorization: Bearer KEY", "authentication_error")
        return None

    def _headers(self, request: Request) -> dict[bytes, bytes]:
        """Return what the server gets of a client's headers: no more than a key."""
        given = request.headers.get("authorization")
        if self.settings.upstream_key is None and self.settings.key is None and given:
            return {b"authorization": given.encode("latin-1")}
        return _authorization(self.settings.upstream_key)

    async def _prove(self, headers: dict[bytes, bytes]) -> None:
        """Check that the server has the model, and that p(refuse) is what it was when it was calibrated.

        Raises:
            UntrustedError: It isn't.
            ServerError: The server doesn't answer as one.
        """
        async with self._proving:
            if self._proven_at is not None and time.monotonic() - self._proven_at < self.settings.canary_seconds:
                return
            if self._model is None:
                self._model = await self._only_model(headers)
            for canary in self.settings.calibration.canaries:
                measured = await self._measure(canary, headers)
                if abs(measured - canary.probability) > _CANARY_TOLERANCE:
                    self._proven_at = None
                    raise UntrustedError(
                        f"p(refuse) of a known text is {measured:.2g} at this server, and was {canary.probability:.2g} "
                        "when it was calibrated: another model, or probabilities after a change by the sampler"
                    )
            self._proven_at = time.monotonic()

    async def _only_model(self, headers: dict[bytes, bytes]) -> str:
        answer = await self._client.get("/v1/models", headers=headers, timeout=10.0)
        try:
            (model,) = answer.json()["data"]
            name = model["id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            message = "the server doesn't name one model; say with --served-model which one was calibrated"
            raise UntrustedError(message) from None
        if not isinstance(name, str):
            raise ServerError("the server names no model")
        return name

    async def _measure(self, canary: Canary, headers: dict[bytes, bytes]) -> float:
        body: dict[str, Any] = {"model": self._model, "prompt": list(canary.tokens), "max_tokens": 1}
        # Likely tokens of a greedy request are all certain where they are told after the sampler.
        body |= {"temperature": 0, "logprobs": self.settings.top_logprobs}
        answer = await self._client.post("/v1/completions", json=body, headers=headers, timeout=60.0)
        if answer.status_code != 200:
            raise ServerError(f"the server answers a canary with status {answer.status_code}")
        found = read_completion(answer.content, is_chat=False, is_stream=False)
        if len(found.choices) != 1 or not found.choices[0].logprobs:
            raise UntrustedError("the server tells no log-probabilities of a canary")
        return self._bound(found.choices[0].logprobs[0])

    async def _health(self, request: Request) -> Response:
        if refused := self._refused(request, needs_key=False):
            return refused
        try:
            answer = await self._client.get("/v1/models", headers=self._headers(request), timeout=5.0)
        except httpx.HTTPError as error:
            return JSONResponse({"status": "no server", "reason": type(error).__name__}, 503)
        fails = answer.status_code >= 500
        return JSONResponse({"status": "server fails" if fails else "ok"}, 503 if fails else 200)

    async def _metrics(self, request: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        if refused := self._refused(request):
            return refused
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _models(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        try:
            await self._prove(self._headers(request))
        except (UntrustedError, ServerError, httpx.HTTPError) as error:
            return _error(502, _reason(error), "upstream_error")
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "derta guard"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _unknown(self, request: Request) -> Response:
        message = "the guard passes /v1/chat/completions, /v1/completions and /v1/models only"
        return self._refused(request) or _error(404, message, "not_found_error")

    async def _complete(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        self.metrics.streams.inc()
        call = _Call(request.url.path)
        answer: httpx.Response | None = None
        is_handed_over = False
        try:
            headers = self._headers(request)
            content = await _body(request)
            await self._prove(headers)
            assert self._model is not None
            call.request = read_request(
                content,
                is_chat=call.path.endswith("/chat/completions"),
                model=self._model,
                top_logprobs=self.settings.top_logprobs,
            )
            sent = self._client.build_request("POST", call.path, json=call.asked.body, headers=headers)
            answer = await self._client.send(sent, stream=True)
            if answer.status_code != 200:
                # Its body may hold anything: a completion, or the key that the guard itself has sent.
                self._end(call, "upstream_error", answer.status_code)
                status = answer.status_code if 400 <= answer.status_code < 500 else 502
                return _error(status, f"the server answers with status {answer.status_code}", "upstream_error")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ServerError("the server compresses what it was asked to send plainly")
            if call.asked.is_stream:
                is_handed_over = True
                return _GuardedStream(self._events(call, answer), partial(self._close, call, answer))
            document = self._guarded(call, await _limited(answer))
            self._end(call, call.verdict, 200)
            return JSONResponse(document)
        except BadRequestError as error:
            self._end(call, "refused", 400)
            return _error(400, str(error), "invalid_request_error")
        except ClientDisconnect:
            self._end(call, "gone", 0)
            return PlainTextResponse("", 499)
        except httpx.PoolTimeout:
            self._end(call, "refused", 503)
            return _error(503, "the guard has as many requests under way as it may", "overloaded_error")
        except (UntrustedError, ServerError, httpx.HTTPError) as error:
            return JSONResponse(self._failed(call, error), 502)
        finally:
            if not is_handed_over:
                self._end(call, "gone", 0)
                if answer is not None:
                    await answer.aclose()

    def _guarded(self, call: _Call, content: bytes) -> dict[str, Any]:
        """Return a whole answer with its choices guarded."""
        found = self._read(call, content)
        parts = [call.choices[part.index].whole(part) for part in found.choices]
        if not call.is_over or len(parts) != call.asked.choices:
            raise ServerError("the server answers with fewer or more choices than were asked for")
        return call.to_json(parts, found.usage)

    async def _events(self, call: _Call, answer: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the events of a stream as they may leave; the server is read no faster than the client reads."""
        ended = False
        try:
            async for data in _data(answer):
                if data == b"[DONE]":
                    ended = True
                    break
                found = self._read(call, data)
                for part in found.choices:
                    for leaving in call.choices[part.index].push(part):
                        yield _event(call.to_json([leaving], None))
                if not found.choices and found.usage:
                    yield _event(call.to_json([], found.usage))
                if call.is_over and not call.asked.wants_usage:
                    ended = True
                    break
            if not ended or not call.is_over:
                raise ServerError("the server broke off before its answer ended")
            yield b"data: [DONE]\n\n"
            self._end(call, call.verdict, 200)
        except (UntrustedError, ServerError, httpx.HTTPError) as error:
            yield _event(self._failed(call, error))

    def _read(self, call: _Call, content: bytes) -> Completion:
        """Read an answer or an event, and begin the choices that begin in it."""
        asked = call.asked
        found = read_completion(content, is_chat=asked.is_chat, is_stream=asked.is_stream)
        for part in found.choices:
            if not 0 <= part.index < asked.choices:
                raise UntrustedError("the server sends a choice that wasn't asked for")
            if part.index not in call.choices:
                calibration = self.settings.calibration
                call.choices[part.index] = GuardedChoice(calibration, self._bound, follows=asked.follows)
        return found

    def _failed(self, call: _Call, error: Exception) -> dict[str, Any]:
        """Return what a client is told of a server's failure."""
        is_untrusted = isinstance(error, UntrustedError)
        self._end(call, "untrusted" if is_untrusted else "broken_off", 502, _reason(error))
        return _message(_reason(error), "guard_error" if is_untrusted else "upstream_error", 502)

    async def _close(self, call: _Call, answer: httpx.Response) -> None:
        self._end(call, "gone", 200)
        await answer.aclose()

    def _end(self, call: _Call, outcome: str, status: int, reason: str | None = None) -> None:
        """Count and log a request, once."""
        if call.outcome:
            return
        call.outcome = outcome
        seconds = time.monotonic() - call.began
        holds = [choice.hold_back for choice in call.choices.values()]
        self.metrics.streams.dec()
        self.metrics.requests.labels(outcome).inc()
        self.metrics.tokens.inc(sum(hold.seen for hold in holds))
        self.metrics.seconds.observe(seconds)
        for hold in holds:
            if hold.stopped_at is not None:
                self.metrics.stopped_at.observe(hold.stopped_at)
                self.metrics.released.observe(hold.released)
        event = {"path": call.path, "outcome": outcome, "status": status, "seconds": round(seconds, 4)}
        event |= {"tokens": [hold.seen for hold in holds], "stopped_at": [hold.stopped_at for hold in holds]}
        if reason is not None:
            event["reason"] = reason
        if self.settings.log_contents and call.request is not None:
            event["request"] = call.request.body
        log(event)


def _reason(error: Exception) -> str:
    """Return what went wrong in words of our own: those of a library may hold an address or a header."""
    if isinstance(error, UntrustedError):
        return f"stopped by the guard: {error}"
    return str(error) if isinstance(error, ServerError) else f"the server broke off: {type(error).__name__}"


def _authorization(key: str | None) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()} if key else {}


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _is_local(netloc: str) -> bool:
    """Whether a Host or the place of an Origin is this machine's own."""
    try:
        name = urlsplit(f"//{netloc}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_REQUEST:
            raise BadRequestError(f"the request has more than {MAX_REQUEST} bytes")
    return bytes(content)


async def _limited(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > MAX_RESPONSE:
            raise ServerError(f"the server sends more than {MAX_RESPONSE} bytes")
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
            raise ServerError("the server sends more than an answer can hold")


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _message(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _error(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse(_message(message, kind, status), status)
