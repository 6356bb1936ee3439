"""What a guard counts, for Prometheus, and its log: neither holds a word of what was said."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_TOKENS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
OUTCOMES = ("passed", "stopped", "refused", "upstream_error", "untrusted", "broken_off", "gone")
"""`refused` are requests that the guard itself doesn't pass on, `gone` those whose client left."""


class Metrics:
    """The numbers of one guard, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        more: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("derta_guard_requests", "Requests by outcome.", ["outcome"], **more)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.tokens = Counter("derta_guard_tokens", "Tokens that came from the server.", **more)
        self.streams = Gauge("derta_guard_streams", "Requests under way.", **more)
        self.stopped_at = Histogram(
            "derta_guard_stopped_at_tokens", "Tokens written when a choice was stopped.", buckets=_TOKENS, **more
        )
        self.released = Histogram(
            "derta_guard_released_tokens", "Tokens that had left when a choice was stopped.", buckets=_TOKENS, **more
        )
        self.seconds = Histogram("derta_guard_request_seconds", "Seconds that requests took.", **more)


def log(event: Mapping[str, Any]) -> None:
    """Write one line of JSON to standard error."""
    line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False)
    print(line, file=sys.stderr, flush=True)
