"""A model server without a model: python small_server.py PORT [--load-s S] [--answer-s S]

It loads for a while (503 until then) and takes a while for an answer, which is the address it was asked at. On TERM it
finishes what it has begun.
"""

import argparse
import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--load-s", type=float, default=0)
parser.add_argument("--answer-s", type=float, default=0)
options = parser.parse_args()
ready_at = time.monotonic() + options.load_s


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if time.monotonic() >= ready_at else 503, {"data": [{"id": os.environ.get("MODEL", "small")}]})

    def do_POST(self):
        question = self.rfile.read(int(self.headers["Content-Length"]))
        if b"Say one word" not in question:
            time.sleep(options.answer_s)
        text = self.connection.getsockname()[0]
        self.answer(200, {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 1}})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them


if __name__ == "__main__":
    server = Server(("0.0.0.0", options.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
    print("small server", flush=True)
    server.serve_forever()
    server.server_close()
