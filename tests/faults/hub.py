"""A hub with one model of one file, as much of one as huggingface_hub asks: whole, or one that stalls half-way."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, FILE, COMMIT = "acme/small", "model.safetensors", "a" * 40


@contextmanager
def hub(data, stalls=False):
    """Its address. `stalls`: half of the file comes, then nothing."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if "/resolve/" not in self.path:
                tree = [{"type": "file", "path": FILE, "size": len(data), "oid": "b" * 40}]
                listed = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": FILE, "size": len(data)}]}
                body = json.dumps(tree if "/tree/" in self.path else listed)
                return self.answer(body.encode(), "application/json")
            return self.answer(data, "application/octet-stream")

        do_HEAD = do_GET  # noqa: N815

        def answer(self, body, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                half = len(body) // 2 if stalls and body is data else len(body)
                self.wfile.write(body[:half])
                self.wfile.flush()
                if half < len(body):
                    over.wait(60)
                    self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
