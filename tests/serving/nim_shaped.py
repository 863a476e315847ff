"""A server with NIM's contract: NIM_* variables, progress in the log, 503 at /v1/health/ready while it loads.

Run inside a container by the tests; LOAD_S is how long it loads (s), EXIT_CODE ends it in the middle of that.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

MODEL = os.environ["NIM_SERVED_MODEL_NAME"]
READY = []


def load():
    with open(os.environ["NIM_MODEL_PATH"] + "/config.json") as stream:
        config = json.load(stream)
    seconds = float(os.environ.get("LOAD_S", "0"))
    for percent in (25, 50, 75, 100):
        print(f"Downloading model files: {percent}% done", flush=True)
        time.sleep(seconds / 8)
    if "EXIT_CODE" in os.environ:
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", flush=True)
        os._exit(int(os.environ["EXIT_CODE"]))
    for percent in (50, 100):
        print(f"Loading safetensors checkpoint shards: {percent}% Completed", flush=True)
        time.sleep(seconds / 4)
    os.makedirs(os.environ["NIM_CACHE_PATH"], exist_ok=True)
    open(os.environ["NIM_CACHE_PATH"] + "/engine", "a").close()
    READY.append(config["model_type"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/v1/health/live":
            self.answer(200, {"message": "Service is live."})
        elif self.path == "/v1/health/ready":
            self.answer(200 if READY else 503, {"message": "Service is ready." if READY else "Service is not ready."})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": MODEL, "root": os.environ["NIM_MODEL_PATH"]}]})
        elif self.path == "/v1/metadata":
            told = ("NIM_", "NGC_", "HF_HOME")
            self.answer(200, {name: value for name, value in os.environ.items() if name.startswith(told)})
        else:
            self.answer(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"{READY[0]} heard {body['messages'][0]['content']}"
        self.answer(200, {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 3}})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    Thread(target=load, daemon=True).start()
    print("NIM-shaped server, python", sys.version.split()[0], flush=True)
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["NIM_SERVER_PORT"])), Handler).serve_forever()
