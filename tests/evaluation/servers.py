"""Model servers that speak OpenAI's protocol, for tests: what they were sent is kept, what they say is given."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, Any]], Any]
"""(path, request body) → text of the answer, a status code, seconds to stall as a float, or fields of the choice."""


class Server:
    """A running server and what it was sent: (path, body) in order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: list[tuple[str, dict[str, Any]]] = []


@contextmanager
def serving(answer: Answer, *, owned_by: str = "vllm", lists: Any = None) -> Iterator[Server]:
    """Serve one model, `m`, on a free port of this machine; `lists` is what it says in place of its models."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if lists is not None:
                self._send(lists if isinstance(lists, int) else 200, lists)
                return
            self._send(200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owned_by}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.sent.append((self.path, body))
            said = answer(self.path, body)
            if isinstance(said, float):
                time.sleep(said)
                said = 500
            if isinstance(said, int):
                self._send(said, {"error": {"message": "broken"}})
            elif self.path.endswith("/chat/completions"):
                more = said if isinstance(said, dict) else {"content": said}
                message = {"role": "assistant", "content": more.pop("content", None)}
                self._send(200, _completion("chat.completion", {"message": message, **more}))
            else:
                self._send(200, _completion("text_completion", {"text": said, "logprobs": None}))

        def _send(self, status, document):
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def _completion(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    choice = {"index": 0, "finish_reason": "stop", **choice}
    return {"id": "1", "object": kind, "created": 0, "model": "m", "choices": [choice], "usage": usage}
