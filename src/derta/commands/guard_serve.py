"""`derta guard serve`: an OpenAI-compatible proxy that holds text back until the model itself stayed calm about it."""

import os
import socket
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from derta.errors import InputError
from derta.redaction import redacted_text

if TYPE_CHECKING:
    from derta.guard.calibration import Calibration

KEY, UPSTREAM_KEY = "DERTA_GUARD_KEY", "DERTA_UPSTREAM_KEY"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Stand before a model server (vLLM, or any that names likely tokens): chat and text completions, streamed or "
        "not. Text leaves once --hold-back later tokens stayed below the threshold; otherwise the answer ends with a "
        f"refusal and finish_reason content_filter. With {KEY} in the environment clients must present it, and the "
        f"server gets {UPSTREAM_KEY}; without it the guard listens on this machine only."
    )
    add = parser.add_argument
    add("--upstream", required=True, metavar="URL", help="the server, such as http://127.0.0.1:8000")
    add("--calibration", type=Path, metavar="FILE", help="guard.json of derta guard calibrate")
    add("--model", help="in its place: the tuned model, whose refusal tokens are read, with --threshold")
    add("--threshold", type=float, metavar="P", help="probability of refusing that stops an answer")
    add("--hold-back", type=int, metavar="N", help="later tokens that must be calm (default: the calibration's, or 4)")
    add("--served-model", metavar="NAME", help="the server's name for the calibrated model (default: its only one)")
    add("--top-logprobs", type=int, default=20, metavar="K", help="likely tokens to ask the server for (default: 20)")
    add("--refusal", metavar="TEXT", help="what a stopped answer ends with")
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=9000, help="port to listen on (default: 9000)")
    add("--key-file", type=Path, metavar="FILE", help=f"file with the key, in place of {KEY}")
    add("--timeout", type=float, default=600, metavar="S", help="seconds that the server may be silent (default: 600)")
    add("--max-streams", type=int, default=1024, metavar="N", help="requests under way at most (default: 1024)")
    add("--canary-minutes", type=float, default=10, metavar="M", help="minutes that a canary counts (default: 10)")
    certain = "let tokens pass that a server says were the only possible ones: it may compute no probabilities"
    add("--allow-certain", action="store_true", help=certain)
    add("--log-contents", action="store_true", help="log what is asked, too")


def run(args: Namespace) -> int:
    """Serve until interrupted.

    Raises:
        InputError: An option or a file is wrong, or a library is missing.
    """
    try:
        import uvicorn

        from derta.guard.proxy import Guard, Settings
    except ImportError as error:
        raise InputError(f'derta guard serve needs {error.name}: pip install "derta[serve]"') from None
    settings = Settings(
        _upstream(args.upstream),
        calibration_of(args),
        served_model=args.served_model,
        # With one token named, a sure model and a server that computes no probabilities look the same.
        top_logprobs=_at_least(args.top_logprobs, 2, "top_logprobs"),
        key=_key(args.key_file),
        upstream_key=os.environ.get(UPSTREAM_KEY) or None,
        timeout=args.timeout,
        connections=_at_least(args.max_streams, 1, "max_streams"),
        canary_seconds=60 * args.canary_minutes,
        allow_certain=args.allow_certain,
        log_contents=args.log_contents,
    )
    if settings.key is None and not _is_loopback(args.host):
        raise InputError(f"`host`: {args.host} is reached from other machines; set {KEY} to what clients must present")
    how: dict[str, Any] = {"log_level": "warning", "access_log": False, "timeout_keep_alive": 75}
    server = uvicorn.Server(uvicorn.Config(Guard(settings).app, **how))
    with _listen(args.host, args.port) as listening:
        calibration = settings.calibration
        canaries = len(calibration.canaries) or "no"
        print(
            f"guarding {redacted_text(args.upstream)} at http://{args.host}:{listening.getsockname()[1]}: "
            f"stops above p(refuse) {calibration.threshold:.4g}, holds {calibration.hold_back} tokens back, "
            f"has {canaries} canaries",
            flush=True,
        )
        server.run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"`port`: can't listen at {host}:{port}: {reason}") from None


def calibration_of(args: Namespace) -> "Calibration":
    """Return what was calibrated, or what the options say, read with the model's tokenizer.

    Raises:
        InputError: Neither or both are given, or one can't be read.
    """
    from derta.guard.calibration import Calibration, load_calibration

    if (args.calibration is None) == (args.model is None):
        raise InputError(
            "`calibration`: give what derta guard calibrate wrote, or `model` and `threshold`; one of them"
        )
    if args.calibration is not None:
        calibration = load_calibration(args.calibration)
    elif args.threshold is None:
        raise InputError("`threshold`: with `model` say when to stop; derta guard calibrate finds out")
    else:
        from derta.generation.loading import load_tokenizer
        from derta.generation.refusal import refusal_ids

        tokenizer = load_tokenizer(args.model)
        ids = refusal_ids(args.model, tokenizer)
        calibration = Calibration(1.0, 4, ids, tuple(str(tokenizer.decode([each])) for each in ids), model=args.model)
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise InputError(f"`threshold`: {args.threshold:g} is no probability")
    if args.hold_back is not None:
        _at_least(args.hold_back, 0, "hold_back")
    given = {"threshold": args.threshold, "hold_back": args.hold_back, "refusal": args.refusal}
    return replace(calibration, **{name: value for name, value in given.items() if value is not None})


def _upstream(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"`upstream`: {url!r} is no address of a server; write it as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(KEY) or None
    try:
        key = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"`key_file`: {file}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    if not key:
        raise InputError(f"`key_file`: {file}: holds no key")
    return key


def _at_least(value: int, least: int, field: str) -> int:
    if value < least:
        raise InputError(f"`{field}`: {value}; give {least} or more")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
