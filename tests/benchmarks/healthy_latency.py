"""How long after the first answer a server could give the endpoint is called HEALTHY.

A process of its own asks the same server the same kind of question every 50 ms and tells when the first answer came.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from flows.base_models.resolve import BaseModelConfig, resolve
from flows.progress import silent
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from tests.benchmarks.rows import Row, compare

NAME = "healthy-latency"
WHERE = "transformers serve, a tiny model: from its first answer to HEALTHY, against the limit"
STARTS = 5
LIMIT_S = 1.0
ASK = """
import http.client, json, sys, time
port, model = int(sys.argv[1]), sys.argv[2]
body = {"model": model, "max_tokens": 16, "temperature": 0, "messages": [{"role": "user", "content": "Say one word."}]}
while True:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        if connection.getresponse().status == 200:
            break
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    time.sleep(0.05)
print(time.time())
"""


def measure(workdir: Path) -> list[Row]:
    """Five starts; negative where we were first to ask."""
    model = Path(resolve(BaseModelConfig(name="tiny:llama-3"), workdir / "models").path)
    waits = [_wait(model, workdir / f"endpoints-{number}") for number in range(STARTS)]
    return [
        compare(NAME, WHERE, "s", waits, [LIMIT_S], "<= 1", lambda ratio: ratio <= 1),
        compare(NAME, "the longest of five", "s", [max(waits)], [LIMIT_S], "<= 1", lambda ratio: ratio <= 1),
    ]


def _wait(model: Path, endpoints: Path) -> float:
    """Seconds from the first answer that somebody else got to HEALTHY."""
    port = process.choose_port(0)
    side = subprocess.Popen([sys.executable, "-S", "-c", ASK, str(port), str(model)], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = start_endpoint(ServeConfig(name="timed", port=port), model, endpoints, silent)
        healthy = time.time()
        assert (endpoint.state, endpoint.port) == (State.HEALTHY, port)
        answered, _ = side.communicate(timeout=60)
    finally:
        side.kill()
        side.wait()
        stop_endpoint("timed", endpoints)
    return healthy - float(answered)
