"""A model server without a model: a real process, fast, that does wrong what a file of flags tells it to.

    python fake_server.py PORT FLAGS.json

Every path below `/NAME/` is answered as for a server of its own, so that one process can stand for hundreds. Flags, of
`NAME` or of all (""): health (a status), models (a name), chat (a status), every (only each so many-th completion has
that status, the first one included), text (a body in place of the completion), delay_s (before a completion), steps
(how many its engine makes between two looks at its metrics), running (requests it has besides). "die" ends it at once
with an `out of memory` in its log.

It counts as vLLM does (`/metrics`), and how many questions were the watcher's (`/seen`).
"""

import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROBE = b"Say one word."
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="fake"}} {running}
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{le="+Inf",model_name="fake"}} {steps}
vllm:iteration_tokens_total_count{{model_name="fake"}} {steps}
vllm:iteration_tokens_total_sum{{model_name="fake"}} 0.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{{finished_reason="stop",model_name="fake"}} {good}
vllm:request_success_total{{finished_reason="abort",model_name="fake"}} 7.0
"""
ANSWER = {"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": 1}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def flags(self):
        name = self.path.split("/")[1]
        flags = read(self.server.file)
        return {**flags.get("", {}), **flags.get(name, {})}

    def do_GET(self):
        flags = self.flags()
        counts = self.server.counts
        if self.path.endswith("/health"):
            self.answer(flags.get("health", 200), {})
        elif self.path.endswith("/metrics"):
            counts["steps"] += flags.get("steps", 0)
            running = counts["running"] + flags.get("running", 0)
            self.answer(200, METRICS.format(**counts | {"running": running}))
        elif self.path.endswith("/seen"):
            self.answer(200, counts)
        else:
            self.answer(200, {"data": [{"id": flags.get("models", "fake")}]})

    def do_POST(self):
        probe = PROBE in self.rfile.read(int(self.headers["Content-Length"]))
        flags, counts = self.flags(), self.server.counts
        counts["probes" if probe else "others"] += 1
        counts["running"] += 1
        time.sleep(flags.get("delay_s", 0))
        counts["running"] -= 1
        counts["asked"] += 1
        status = 200 if (counts["asked"] - 1) % flags.get("every", 1) else flags.get("chat", 200)
        counts["good"] += status == 200
        self.answer(status, flags.get("text", ANSWER))

    def answer(self, status, body):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def server_bind(self):
        # As HTTPServer does it, without the look-up of the host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


def read(file):
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    if read(Path(sys.argv[2])).get("die"):
        sys.exit("CUDA out of memory")
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    server.file = Path(sys.argv[2])
    server.counts = dict.fromkeys(("running", "steps", "good", "asked", "probes", "others"), 0)
    print("serving", flush=True)
    server.serve_forever()
