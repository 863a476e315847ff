"""A model server without a model: a real process, fast, that does wrong what a file of flags tells it to.

    python fake_server.py PORT FLAGS.json

Every path below `/NAME/` is answered as for a server of its own, so that one process can stand for hundreds. Flags, of
`NAME` or of all (""): health (a status), models (a name), chat (a status), delay_s (before a completion). "die" ends it
at once with an `out of memory` in its log.
"""

import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ANSWER = {"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": 1}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def flags(self):
        name = self.path.split("/")[1]
        flags = read(self.server.file)
        return {**flags.get("", {}), **flags.get(name, {})}

    def do_GET(self):
        flags = self.flags()
        if self.path.endswith("/health"):
            self.answer(flags.get("health", 200), {})
        else:
            self.answer(200, {"data": [{"id": flags.get("models", "fake")}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        flags = self.flags()
        time.sleep(flags.get("delay_s", 0))
        self.answer(flags.get("chat", 200), ANSWER)

    def answer(self, status, body):
        data = json.dumps(body).encode()
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
    print("serving", flush=True)
    server.serve_forever()
