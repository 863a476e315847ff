"""A registry that holds one image, as much of one as a pull needs (Docker's HTTP API V2)."""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

OCI = "application/vnd.oci.image"


@contextmanager
def registry(layer, command, stalls=False):
    """Its address; any name with the tag 1 is an image of that layer (tar) and command, other tags are not there.

    `stalls`: half of the layer comes, then nothing.
    """
    over = Event()
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": command}}
    config["rootfs"] = {"type": "layers", "diff_ids": [_digest(layer)]}
    blobs = {_digest(data): data for data in (layer, json.dumps(config).encode())}
    kinds = ("layer.v1.tar", "config.v1+json")
    described = [
        {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": len(data)}
        for kind, (digest, data) in zip(kinds, blobs.items(), strict=True)
    ]
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json"}
    manifest = json.dumps(manifest | {"config": described[1], "layers": described[:1]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            kind, name = self.path.rstrip("/").split("/")[-2:]
            if self.path == "/v2/":
                self.answer(200, b"{}")
            elif kind == "blobs" and name in blobs:
                self.answer(200, blobs[name])
            elif kind == "manifests" and name in ("1", _digest(manifest)):
                self.answer(200, manifest, f"{OCI}.manifest.v1+json")
            else:
                self.answer(404, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode())

        do_HEAD = do_GET  # noqa: N815

        def answer(self, status, data, kind="application/json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                half = len(data) // 2 if stalls and data is layer else len(data)
                self.wfile.write(data[:half])
                self.wfile.flush()
                if half < len(data):
                    over.wait(60)
                    self.close_connection = True

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def _digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
