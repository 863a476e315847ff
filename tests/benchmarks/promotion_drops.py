"""How many running requests a promotion drops: through the front, and for clients that look the address up each time.

Eight clients stream answers of 1.3 seconds without a pause while the name moves ten times from one server to the next.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from flows.progress import silent
from flows.serving import records
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.stop import stop_endpoint
from tests.benchmarks import fast_server
from tests.benchmarks.rows import Row
from tests.benchmarks.streams import Streamed, stream

NAME = "promotion-drops"
AT_A_TIME = 8
PROMOTIONS = 10
PACE_S = 0.01


def measure(workdir: Path) -> list[Row]:
    """Ten promotions with the front, then ten without."""
    ours, other = (_promote(workdir / str(front), front) for front in (True, False))
    dropped, theirs = len(ours.broken), len(other.broken)
    answered = (ours.tokens // fast_server.TOKENS, other.tokens // fast_server.TOKENS)
    where = (
        f"{PROMOTIONS} promotions, {AT_A_TIME} streams at a time: {answered[0]} answers whole, without {answered[1]}"
    )
    return [
        Row(
            name=NAME,
            ours=dropped,
            other=theirs,
            unit="requests",
            ratio=dropped / max(theirs, 1),
            bar="0 dropped",
            holds=dropped == 0,
            where=where,
        )
    ]


def _promote(workdir: Path, front: bool) -> Streamed:
    model, folder = workdir / "model", workdir / "endpoints"
    model.mkdir(parents=True)
    config = ServeConfig(
        name="bench",
        variant="command",
        command={
            "command_line": f"{sys.executable} -S {fast_server.__file__} {{port}} {PACE_S}",
            "health_path": "/health",
        },
        front={"enabled": front},
    )
    start_endpoint(config, model, folder, silent)
    found, done = [], threading.Event()

    def url() -> str:
        endpoint = records.load(folder, "bench")
        assert endpoint is not None
        return endpoint.public_url

    asking = threading.Thread(target=lambda: found.append(stream(url, AT_A_TIME, until=done.is_set)))
    asking.start()
    try:
        for number in range(PROMOTIONS):
            start_endpoint(config.model_copy(update={"environment": [f"N={number}"]}), model, folder, silent)
    finally:
        done.set()
        asking.join()
        stop_endpoint("bench", folder)
    return found[0]
