"""A real HTTP server that speaks as much of the OpenAI API as a judge needs, with faults to order."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeJudge:
    """Answers `reply(request)` to each request; while `faults` has any, answers the next of them instead.

    A fault is an HTTP status, a body as bytes (with the status 200), or "hang up". `forever` is a fault that stays.
    """

    def __init__(self, models: list[str]) -> None:
        self.models = models
        self.reply: Callable[[dict[str, Any]], str | None] = lambda request: verdict(5)
        self.faults: list[int | bytes | str] = []
        self.forever: int | bytes | str | None = None
        self.message = "no"
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, body: bytes) -> tuple[int, str, bytes] | None:
        """(status, content type, body), or None to hang up."""
        with self.lock:
            if body:
                self.requests.append(json.loads(body))
            fault = self.faults.pop(0) if self.faults else self.forever
        if isinstance(fault, int):
            return fault, "application/json", json.dumps({"error": {"message": self.message}}).encode()
        if isinstance(fault, bytes):
            return 200, "application/json" if fault[:1] in b"{[n" else "text/html", fault
        if fault:
            return None
        if path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "me"} for name in self.models]
            return 200, "application/json", json.dumps({"object": "list", "data": data}).encode()
        message = {"role": "assistant", "content": self.reply(json.loads(body))}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        made = {"id": "1", "object": "chat.completion", "created": 0, "model": self.models[0], "choices": [choice]}
        return 200, "application/json", json.dumps(made).encode()

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.keys.add(self.headers["Authorization"])
                answer = fake.answer(self.path, body)
                if answer is None:
                    self.close_connection = True
                    return
                status, content_type, body = answer
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Content-Length", str(len(body)))
                    self.send_header("Retry-After-Ms", "1")  # the client's own pauses, made short
                    self.end_headers()
                    self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


def verdict(score: Any, reason: str = "It says so.") -> str:
    return json.dumps({"reason": reason, "score": score})
