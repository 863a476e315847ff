"""What the front costs: tokens a second and time to the first token through HAProxy, against the server itself.

The server makes 128 tokens a stream and costs next to nothing: at 100 tokens/s a stream, as a GPU does, and as fast as
it can, which shows the front's share of the processor rather than what a user meets.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.serving.config import ServeConfig
from flows.serving.front import lifecycle, traffic
from flows.serving.runtimes import process
from tests.benchmarks import fast_server
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.streams import Streamed, stream

NAME = "front-overhead"
AT_A_TIME = 8
TURNS = 5
PACES = {"100 tokens/s a stream": (0.01, 24), "as fast as it can": (0.0, 80)}


def measure(workdir: Path) -> list[Row]:
    """Five turns of each, one after another."""
    front = lifecycle.ensure(ServeConfig(name="bench", front={"enabled": True}), workdir / "endpoints")
    rows = []
    try:
        for what, (pace_s, count) in PACES.items():
            with server(pace_s) as address:
                traffic.route(front, {address: 1})
                rows += _rows(what, front.url, f"http://{address}/v1", count)
    finally:
        lifecycle.stop(front)
    return rows


@contextmanager
def server(pace_s: float) -> Iterator[str]:
    """A server that streams at that pace; its address."""
    port = process.choose_port(0)
    child = subprocess.Popen([sys.executable, "-S", fast_server.__file__, str(port), str(pace_s)])
    try:
        assert process.wait_until(lambda: process.port_served(port), 20)
        yield f"127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


def _rows(what: str, through: str, direct: str, count: int) -> list[Row]:
    ours, other = [], []
    for _ in range(TURNS):
        ours.append(asked(through, count))
        other.append(asked(direct, count))
    slow = what.startswith("100")
    bar = (">= 0.95", lambda ratio: ratio >= 0.95) if slow else ("", None)
    where = f"HAProxy against the server itself, {AT_A_TIME} streams at a time, {what}"
    speeds = [[one.tokens_per_s for one in side] for side in (ours, other)]
    first = [[one.first_ms for one in side] for side in (ours, other)]
    return [
        compare(NAME, where, "tokens/s", *speeds, *bar),
        compare(NAME, f"{where}: to the first token", "ms", *first),
    ]


def asked(url: str, count: int, key: str = "") -> Streamed:
    """So many streams; none may break."""
    found = stream(lambda: url, AT_A_TIME, count, key=key)
    assert (found.broken, found.tokens) == ([], count * fast_server.TOKENS), found.broken[:3]
    return found
