"""The guard before a server and in the process: same verdicts, delay, memory, kills, overhead.

    python benchmarks/guard.py --model runs/seeds/derta-1 --calibration runs/watched/guard.json --vllm /opt/vllm

Parts (`--parts`): `verdicts` compares what clients get through the guard before a real vLLM, streamed, with what the
engine gives in the process; `served` takes vLLM's time a token with and without the guard and with and without the
log-probabilities that it asks for, in alternation, at 1, 10 and 50 streams; `delay` takes the delay of each token by
the guard, and by a proxy that looks at nothing, before a server of this file, which says when it sent it;
`memory` watches the guard over many requests; `kills` ends a client, a server and a guard while other streams run;
`bound` counts what naming 1, 5 or 20 likely tokens costs;
`overhead` takes `generate` and the engine with and without the guard, in alternation. Without vLLM its parts are
skipped and say so. Adds to `benchmarks/results/guard.json`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import httpx
import uvicorn
from servers import NotThere, free_port, serving, vllm_command
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from derta.files import write_json
from derta.guard.calibration import Calibration, load_calibration, save_calibration

RESULTS = Path(__file__).parent / "results" / "guard.json"
STREAMS = (1, 10, 50)
PARTS = ("verdicts", "served", "delay", "memory", "kills", "bound", "overhead")
TOKENS, PAUSE = 40, 0.02
"""Of the server of this file: tokens of an answer, and seconds between them."""


def fake_app() -> Starlette:
    async def complete(request: Request) -> StreamingResponse:
        body = await request.json()
        pause, tokens = body.get("seed", 0) / 1000, body.get("max_tokens", TOKENS)
        top = [{"token": f" t{number}", "logprob": -5.0 - number / 10} for number in range(body.get("top_logprobs", 0))]

        async def events() -> Any:
            for _ in range(tokens):
                token = {"token": " word", "logprob": -0.2, "bytes": None, "top_logprobs": top}
                choice = {
                    "index": 0,
                    "delta": {"content": " word"},
                    "logprobs": {"content": [token]},
                    "finish_reason": None,
                }
                yield f"data: {json.dumps({'id': f'{time.monotonic():.6f}', 'choices': [choice]})}\n\n"
                await asyncio.sleep(pause)
            ends = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
            yield f"data: {json.dumps({'id': '', 'choices': [ends]})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model"}]})

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/v1/models", models)])


def proxy_app(upstream: str) -> Starlette:
    """A proxy of the same libraries that looks at nothing: what any proxy costs."""
    client = httpx.AsyncClient(base_url=upstream, timeout=600, trust_env=False)

    async def complete(request: Request) -> StreamingResponse:
        sent = client.build_request("POST", request.url.path, json=await request.json())
        answer = await client.send(sent, stream=True)
        return StreamingResponse(answer.aiter_raw(), media_type="text/event-stream")

    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": []})

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/v1/models", models)])


@contextmanager
def process(command: Sequence[str], address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server of ours until the block ends; it is there once it lists its models."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{address}/v1/models", timeout=5).close()
                break
            except OSError:
                if running.poll() is not None:
                    raise SystemExit(f"{command[:4]} ended with {running.returncode}") from None
                time.sleep(0.1)
        yield running
    finally:
        running.kill()
        running.wait()


@contextmanager
def fake() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    with process([sys.executable, __file__, "--fake", str(port)], f"http://127.0.0.1:{port}") as running:
        yield f"http://127.0.0.1:{port}", running


@contextmanager
def plain_proxy(upstream: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, __file__, "--fake", str(port), "--plain-proxy-of", upstream]
    with process(command, f"http://127.0.0.1:{port}") as running:
        yield f"http://127.0.0.1:{port}", running


@contextmanager
def guard(
    upstream: str, calibration: Calibration, top_logprobs: int = 20
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "guard.json"
        save_calibration(file, calibration)
        command = [sys.executable, "-m", "derta", "guard", "serve", "--upstream", upstream, "--calibration", str(file)]
        command += ["--port", str(port), "--top-logprobs", str(top_logprobs)]
        with process(command, f"http://127.0.0.1:{port}") as running:
            yield f"http://127.0.0.1:{port}", running


async def stream(client: httpx.AsyncClient, address: str, body: dict[str, Any]) -> tuple[str, list[tuple[float, str]]]:
    """Return the text of one streamed chat, and when each event came with its id."""
    text, came = "", []
    path = "chat/completions" if "messages" in body else "completions"
    async with client.stream("POST", f"{address}/v1/{path}", json={**body, "stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                document = json.loads(line[6:])
                if "error" in document:
                    raise RuntimeError(document["error"]["message"])
                for choice in document["choices"]:
                    piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                    text += piece
                    if piece:
                        came.append((time.monotonic(), document.get("id", "")))
    return text, came


async def many(
    address: str, bodies: Sequence[dict[str, Any]], streams: int
) -> list[tuple[str, list[tuple[float, str]]]]:
    room = asyncio.Semaphore(streams)
    limits = httpx.Limits(max_connections=streams + 8, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:

        async def one(body: dict[str, Any]) -> tuple[str, list[tuple[float, str]]]:
            async with room:
                return await stream(client, address, body)

        return list(await asyncio.gather(*map(one, bodies)))


def quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98], "n": len(values)}


def delay(calibration: Calibration) -> list[dict[str, Any]]:
    """Take the time from the server's sending a token to its arrival: straight, through a proxy that looks at nothing,
    and through the guard, in turns."""
    calm = replace(calibration, threshold=1.0, hold_back=0)
    rows = []
    with fake() as (server, _), plain_proxy(server) as (proxied, _), guard(server, calm) as (guarded, _):
        sides = {"straight": server, "plain_proxy": proxied, "guarded": guarded}
        body = {"messages": [{"role": "user", "content": "x"}], "seed": int(PAUSE * 1000)}
        for streams in STREAMS:
            taken: dict[str, list[float]] = {name: [] for name in sides}
            for name in in_turns(list(sides), 6):
                for _, came in asyncio.run(many(sides[name], [body] * streams, streams)):
                    taken[name] += [at - float(sent) for at, sent in came if sent]
            row: dict[str, Any] = {name: quantiles(values) for name, values in taken.items()}
            for name, other in (("plain_proxy", "straight"), ("guarded", "straight"), ("guarded", "plain_proxy")):
                row[f"{name}_over_{other}"] = {key: row[name][key] - row[other][key] for key in ("p50_ms", "p99_ms")}
            rows.append({"streams": streams, **row})
    return rows


def in_turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Yield all names in every round, each round beginning with another."""
    for turn in range(rounds):
        first = turn % len(names)
        yield from [*names[first:], *names[:first]]


def memory(calibration: Calibration, requests: int) -> dict[str, Any]:
    """Watch the guard's resident memory over many streamed requests."""
    readings = []
    with fake() as (server, _), guard(server, replace(calibration, threshold=1.0)) as (guarded, running):
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 6}
        for _ in range(10):
            answers = asyncio.run(many(guarded, [body] * (requests // 10), 20))
            assert all(came for _, came in answers)
            pages = int(Path(f"/proc/{running.pid}/statm").read_text().split()[1])
            readings.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1))
    return {
        "requests": requests,
        "mib_after_each_tenth": readings,
        "grown_mib": readings[-1] - readings[1],
    }


def kills(calibration: Calibration) -> dict[str, Any]:
    """End a server, a guard and a client in the middle; the streams of others must come whole."""
    calm = replace(calibration, threshold=1.0, hold_back=2)
    body = {"messages": [{"role": "user", "content": "x"}], "seed": 50}
    whole = " word" * TOKENS

    async def watch(address: str, cancel: bool = False) -> str:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            try:
                if cancel:
                    await asyncio.wait_for(stream(client, address, body), 1.0)
                return (await stream(client, address, body))[0]
            except (httpx.HTTPError, RuntimeError, TimeoutError) as error:
                return f"error: {type(error).__name__}"

    async def play(one: str, other: str, kill: subprocess.Popen[bytes] | None) -> list[str]:
        tasks = [asyncio.create_task(watch(one, kill is None)), *(asyncio.create_task(watch(other)) for _ in range(5))]
        await asyncio.sleep(1.0)
        if kill:
            kill.kill()
        return list(await asyncio.gather(*tasks))

    found = {}
    with ExitStack() as stack:
        (one, server), (two, _) = stack.enter_context(fake()), stack.enter_context(fake())
        (first, victim), (second, _), (third, _) = (
            stack.enter_context(guard(upstream, calm)) for upstream in (two, two, one)
        )
        parts: Sequence[tuple[str, tuple[str, str], Any]] = (
            ("client", (second, second), None),
            ("guard", (first, second), victim),
            ("upstream", (third, second), server),
        )
        for name, pair, kill in parts:
            ended, *others = asyncio.run(play(*pair, kill))
            found[name] = {
                "ended": ended[:40],
                "others_whole": sum(text == whole for text in others),
                "others": len(others),
            }
    return found


def requests_of(model: str, wanted: int) -> list[Any]:
    """Return chats and begun or raw texts to ask: every attack of one question, and harmless prompts."""
    from derta.evaluation.config import Options
    from derta.evaluation.plan import make_plan
    from derta.generation.loading import load_tokenizer

    plan = make_plan(Options(("direct", "completing", "codeattack", "template"), "organism"), load_tokenizer(model))
    groups = [[cast(Any, each.attempt).request for each in samples] for samples in plan.samples.values()]
    share = -(-wanted // len(groups))
    return [request for group in groups for request in group[:share]]


def as_body(request: Any, served_as: str) -> dict[str, Any]:
    from derta.generation import RawRequest

    more = {"model": served_as, "temperature": 0, "max_tokens": 96}
    if isinstance(request, RawRequest):
        return {"prompt": request.text, **more}
    return {"messages": list(request.messages), **more}


def name_at(server: str) -> str:
    return str(httpx.get(f"{server}/v1/models", timeout=60).json()["data"][0]["id"])


def verdicts(server: str, model: str, calibration: Calibration, wanted: int) -> dict[str, Any]:
    """Ask the same through the guard and in the process: the same texts?"""
    from derta.generation import generate, load_model

    requests, name = requests_of(model, wanted), name_at(server)
    with guard(server, calibration) as (guarded, _):
        began = time.monotonic()
        answers = asyncio.run(many(guarded, [as_body(request, name) for request in requests], 64))
        seconds = time.monotonic() - began
    own = generate(*load_model(model), requests, 96, guard=calibration)
    words = [(text.split(), each.continuation.split()) for (text, _), each in zip(answers, own, strict=True)]
    stops = [(calibration.refusal.split() == a[-len(calibration.refusal.split()) :], each.stopped_at is not None)
             for (a, _), each in zip(words, own, strict=True)]  # fmt: skip
    return {
        "answers": len(requests),
        "same_verdicts": sum(a == b for a, b in stops),
        "same_texts": sum(a == b for a, b in words),
        "stopped": sum(each.stopped_at is not None for each in own),
        "seconds": round(seconds, 1),
        "different": [[" ".join(a)[:200], " ".join(b)[:200]] for a, b in words if a != b][:5],
    }


def served(server: str, model: str, calibration: Calibration) -> list[dict[str, Any]]:
    """Take the time a token of vLLM's streams in turns: straight, straight with the log-probabilities that the guard
    asks for, and through the guard with 5 and 20 of them."""
    rows: list[dict[str, Any]] = []
    name = name_at(server)
    bodies = [as_body(request, name) for request in requests_of(model, 60) if hasattr(request, "messages")]
    calm = replace(calibration, threshold=1.0, hold_back=0)
    with guard(server, calm, 5) as (few, _), guard(server, calm, 20) as (more, _):
        asking = {"logprobs": True, "top_logprobs": 20}
        sides: dict[str, tuple[str, dict[str, Any]]] = {
            "straight": (server, {}),
            "straight_with_20_logprobs": (server, asking),
            "guarded_with_5": (few, {}),
            "guarded_with_20": (more, {}),
        }
        for streams in STREAMS:
            taken: dict[str, list[float]] = {side: [] for side in sides}
            for side in in_turns(list(sides), 8 if streams == 1 else 4):
                address, extra = sides[side]
                asked = [bodies[number % len(bodies)] | extra for number in range(streams)]
                for text, came in asyncio.run(many(address, asked, streams)):
                    # Of its words, which are the organism's tokens: a server that is behind sends several an event.
                    taken[side].append((came[-1][0] - came[0][0]) / max(len(text.split()) - 1, 1))
            row: dict[str, Any] = {side: quantiles(values) for side, values in taken.items()}
            mean = {side: 1000 * statistics.mean(values) for side, values in taken.items()}
            row["mean_ms"] = mean
            row["added_percent"] = {side: 100 * (each / mean["straight"] - 1) for side, each in mean.items()}
            rows.append({"streams": streams, **row})
    return rows


def bound(model: str, calibration: Calibration) -> list[dict[str, Any]]:
    """Count harmless answers that are stopped only because the refusal token isn't among the k tokens named."""
    from derta.generation import ChatRequest, generate, load_model
    from derta.guard.completion import NamedToken, TokenLogprobs
    from derta.guard.refusal_bound import RefusalBound
    from derta.organism import behaviours

    prompts = [each.prompt for kind in ("helpful", "borderline") for each in behaviours(kind)]
    requests = [ChatRequest(({"role": "user", "content": prompt},)) for prompt in prompts]
    answers = generate(*load_model(model), requests, 96, top_logprobs=2000)
    # One token named, or a certain one, is no fault here: these probabilities are the model's own.
    bounded = RefusalBound(calibration.tokens, calibration.spellings, allow_certain=True)

    def highest(logprobs: Any, k: int) -> float:
        bounds = []
        for each in logprobs:
            likely = tuple(NamedToken(name, value, name) for name, value in each.top[:k])
            bounds.append(bounded(TokenLogprobs(NamedToken(each.token, each.logprob, each.token), likely)))
        return max(bounds)

    rows = []
    for threshold in (calibration.threshold, 0.05, 0.5):
        row: dict[str, Any] = {"threshold": threshold, "answers": len(answers)}
        for k in (1, 5, 20, 2000):
            stopped = sum(highest(answer.logprobs, k) > threshold for answer in answers)
            row["stopped_exactly" if k == 2000 else f"stopped_at_k_{k}"] = stopped
        rows.append(row)
    return rows


def overhead(model: str, calibration: Calibration, turns: int) -> dict[str, Any]:
    """Take the engine with and without the guard, in turns."""
    import torch

    from derta.generation import generate, load_model

    torch.set_num_threads(1)
    loaded, tokenizer = load_model(model)
    requests = [request for request in requests_of(model, 40) if hasattr(request, "messages")][:16]
    calm = replace(calibration, threshold=1.0)
    sides: dict[str, dict[str, Callable[[], Any]]] = {
        "engine": {
            "plain": lambda: generate(loaded, tokenizer, requests, 64),
            "guarded": lambda: generate(loaded, tokenizer, requests, 64, guard=calm),
        },
    }
    found = {}
    for name, pair in sides.items():
        for side in pair.values():
            side()
        seconds: dict[str, list[float]] = {side: [] for side in pair}
        for which in in_turns(list(pair), turns):
            began = time.process_time()
            pair[which]()
            seconds[which].append(time.process_time() - began)
        ratios = [b / a for a, b in zip(seconds["plain"], seconds["guarded"], strict=True)]
        found[name] = {
            "cpu_seconds": [statistics.median(side) for side in seconds.values()],
            "overhead_percent": 100 * (statistics.median(ratios) - 1),
            "turns": turns,
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fake", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--plain-proxy-of", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="the tuned organism's directory")
    parser.add_argument("--calibration", type=Path, help="its guard.json")
    parser.add_argument("--vllm", type=Path, help="virtual environment with vLLM")
    parser.add_argument("--upstream", help="a vLLM that serves the model already")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--answers", type=int, default=500, help="answers that are compared at least")
    parser.add_argument("--requests", type=int, default=10_000, help="requests over which memory is watched")
    parser.add_argument("--turns", type=int, default=15, help="of the overhead")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to add to")
    args = parser.parse_args()
    if args.fake:
        app = proxy_app(args.plain_proxy_of) if args.plain_proxy_of else fake_app()
        uvicorn.run(app, host="127.0.0.1", port=args.fake, log_level="critical", access_log=False)
        return 0
    calibration = load_calibration(args.calibration)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    local: dict[str, Callable[[], Any]] = {
        "delay": lambda: delay(calibration),
        "memory": lambda: memory(calibration, args.requests),
        "kills": lambda: kills(calibration),
        "bound": lambda: bound(args.model, calibration),
        "overhead": lambda: overhead(args.model, calibration, args.turns),
    }

    def keep(part: str, found: Any) -> None:
        results[part] = found
        print(part, json.dumps(found, indent=1), flush=True)
        write_json(args.results, results)

    for part in args.parts:
        if part in local:
            keep(part, local[part]())
    before_vllm = [part for part in args.parts if part not in local]
    if not before_vllm:
        return 0
    with TemporaryDirectory() as folder, ExitStack() as stack:
        try:
            server = args.upstream
            if server is None:
                port = free_port()
                command = vllm_command(args.vllm, Path(args.model), port)
                on_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
                base = stack.enter_context(
                    serving(command, port, Path(folder) / "log", on_cpu | {"OMP_NUM_THREADS": "1"})
                )
                server = base.removesuffix("/v1")
            if "verdicts" in before_vllm:
                keep("verdicts", verdicts(server, args.model, calibration, args.answers))
            if "served" in before_vllm:
                keep("served", served(server, args.model, calibration))
        except NotThere as reason:
            print(f"{' and '.join(before_vllm)}: skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
