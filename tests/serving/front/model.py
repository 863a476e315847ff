"""A model server for fronts: it says which port answered, and what it was asked for arrives by bits.

/slow streams 20 bits in two seconds; /500 fails; /gone closes without a word; /cut breaks off in the middle.
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path.endswith("/gone"):
            self.connection.close()
        elif self.path.endswith(("/slow", "/cut")):
            self.stream(20 if self.path.endswith("/slow") else 3)
        else:
            self.answer(500 if self.path.endswith("/500") else 200, str(self.server.server_port))

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def stream(self, bits):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for bit in range(bits):
            self.wfile.write(b"2\r\n%02d\r\n" % bit)
            time.sleep(0.1)
        if bits == 20:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.connection.close()

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Model(ThreadingHTTPServer):
    """Serves until it is closed; `seen` are the requests it got, a path and headers each."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """A client that goes away is no news."""

    def close(self):
        self.shutdown()
        self.server_close()
