"""A real HTTP server that speaks the OpenAI API in chat, completion and streaming mode, with faults to order."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODELS = ["fake", "other"]


class FakeEndpoint:
    """Answers each request with `reply(what was asked)`, a word a token.

    `fault(number, body)` may order a fault for the request of that number (from 0): a status, bytes (a body with status
    200), "hang up" (in the middle of the answer), or None. `headers` go with a status; `delay_s` before each answer.
    """

    def __init__(self, port=0):
        self.reply = lambda asked: f"You asked: {asked}"
        self.fault = lambda number, body: None
        self.headers = {}
        self.message = "no"
        self.delay_s = 0.0
        self.usage = True
        self.requests = []
        self.keys = set()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def _handler(fake):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                fake.keys.add(self.headers["Authorization"])
                fault = fake.fault(-1, {})
                if isinstance(fault, int):
                    self.whole(fault, {"error": {"message": fake.message}})
                elif isinstance(fault, bytes):
                    self.page(fault)
                else:
                    data = [{"id": name, "object": "model", "created": 0, "owned_by": "me"} for name in MODELS]
                    self.whole(200, {"object": "list", "data": data})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    number = len(fake.requests)
                    fake.requests.append(body)
                    fake.keys.add(self.headers["Authorization"])
                    fake.under_way += 1
                    fake.most_under_way = max(fake.most_under_way, fake.under_way)
                try:
                    time.sleep(fake.delay_s)
                    with suppress(OSError):
                        self.answer(fake.fault(number, body), body)
                finally:
                    with fake.lock:
                        fake.under_way -= 1

            def answer(self, fault, body):
                if isinstance(fault, int):
                    self.whole(fault, {"error": {"message": fake.message}}, fake.headers)
                elif isinstance(fault, bytes):
                    self.page(fault)
                elif body.get("stream"):
                    self.stream(body, torn=fault == "hang up")
                else:
                    self.whole(200, completion(fake, body), torn=fault == "hang up")

            def whole(self, status, value, headers=None, torn=False):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, text in (headers or {}).items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if torn else data)
                self.close_connection = self.close_connection or torn

            def page(self, data):
                self.send_response(200)
                self.send_header("Content-Type", "application/json" if data[:1] in b"{[n" else "text/html")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def stream(self, body, torn):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                events = stream(fake, body)
                for event in events[: len(events) // 2] if torn else events:
                    self.wfile.write(f"data: {event}\n\n".encode())
                self.close_connection = True

            def log_message(self, *_):
                pass

        return Handler


def asked(body):
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def choice(body, text, end, part):
    said = {"text": text} if "prompt" in body else {"delta" if part else "message": {"content": text}}
    return {"index": 0, "finish_reason": end, **said}


def answer(fake, body):
    """The words of the reply, cut off at max_tokens, and how it ended."""
    words = str(fake.reply(asked(body))).split()
    return words[: body["max_tokens"]], "length" if len(words) > body["max_tokens"] else "stop"


def completion(fake, body):
    words, end = answer(fake, body)
    made = {"id": "1", "object": "x", "created": 0, "model": body["model"]}
    usage = {"prompt_tokens": len(asked(body).split()), "completion_tokens": len(words), "total_tokens": 0}
    return {**made, "choices": [choice(body, " ".join(words), end, False)], **({"usage": usage} if fake.usage else {})}


def stream(fake, body):
    words, end = answer(fake, body)
    made = {"id": "1", "object": "x", "created": 0, "model": body["model"]}
    parts = [{**made, "choices": [choice(body, f"{word} ", None, True)]} for word in words]
    last = [{**made, "choices": [choice(body, "", end, True)]}]
    usage = {"prompt_tokens": 1, "completion_tokens": 100, "total_tokens": 101}
    counted = [{**made, "choices": [], "usage": usage}] if fake.usage else []
    return [json.dumps(event) for event in [*parts, *last, *counted]] + ["[DONE]"]
