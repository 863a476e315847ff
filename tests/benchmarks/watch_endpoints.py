"""A pass of the watcher over 200 endpoints, each with a day's history, against probing them one after another.

The server is a process of its own that takes 50 ms for an answer, as a small model does; a pass is made in a fresh
process, as the flow's is, and timed without that process's start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from flows.serving import history, records
from flows.serving.endpoint import Endpoint
from flows.serving.history import History, Sample
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.variants.launch import Launch
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import CHECKOUT
from tests.serving import fake_server

NAME = "watch-endpoints"
WHERE = "200 endpoints that answer in 50 ms, 24 h of history each"
ENDPOINTS = 200
ANSWER_S = 0.05
REPEATS = 3
LIMIT_S = 5.0
LIMIT_MIB = 200.0
PASS = """
import re, sys, time
from datetime import UTC, datetime
from pathlib import Path
from flows.serving import records
from flows.serving.watch import watch

folder = Path(sys.argv[1])
began = time.monotonic()
if sys.argv[2] == "watch":
    watch(folder, datetime.now(UTC))
else:
    from flows.serving import probe
    states = [probe.check(records.load(folder, name)).state.value for name in records.names(folder)]
    assert set(states) == {"HEALTHY"}, states
seconds = time.monotonic() - began
# Not ru_maxrss: what the process that started this one held counts there too.
peak_kib = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(seconds, int(peak_kib) / 1024)
"""


def measure(workdir: Path) -> list[Row]:
    """Three passes each, in turns; rows for the ratio, for the seconds and for the memory."""
    flags = workdir / "flags.json"
    flags.write_text(json.dumps({"": {"delay_s": ANSWER_S}}))
    port = process.choose_port(0)
    command = [sys.executable, "-S", fake_server.__file__, str(port), str(flags)]
    server = process.start(Launch(command=command, env={}, model="fake", ready_path="/health"), workdir / "log")
    try:
        while not process.port_served(port):
            time.sleep(0.05)
        folder = workdir / "endpoints"
        for number in range(ENDPOINTS):
            _endpoint(folder, f"e{number}", port, server)
        ours, other, memory = [], [], []
        for _ in range(REPEATS):
            seconds, mib = _pass(folder, "watch")
            ours.append(seconds)
            memory.append(mib)
            other.append(_pass(folder, "one after another")[0])
        found = [history.load(folder, name) for name in records.names(folder)]
        assert all(one.state is State.HEALTHY and one.samples[-1].latency_s for one in found)
    finally:
        process.stop(server, port)
    return [
        compare(NAME, WHERE, "s", ours, other, "<= 0.5", lambda ratio: ratio <= 0.5),
        compare(NAME, "the same pass, against the limit", "s", ours, [LIMIT_S], "<= 1", lambda ratio: ratio <= 1),
        compare(NAME, "its most memory, against the limit", "MiB", memory, [LIMIT_MIB], "<= 1", lambda r: r <= 1),
    ]


def _endpoint(folder: Path, name: str, port: int, server: object) -> None:
    endpoint = Endpoint.model_validate(
        {
            "name": name,
            "url": f"http://127.0.0.1:{port}/{name}/v1",
            "state": State.HEALTHY,
            "model": "fake",
            "variant": "command",
            "runtime": "process",
            "process": server,
            "port": port,
            "ready_path": "/health",
            "settings": "",
            "revision": 1,
            "started": "2026-01-01T00:00:00+00:00",
        }
    )
    records.save(folder, endpoint)
    now = datetime.now(UTC).timestamp()
    samples = [Sample(now - 60 * minute, 0.0512) for minute in range(1439, 0, -1)]
    history.save(folder, name, History(state=State.HEALTHY, samples=samples))


def _pass(folder: Path, how: str) -> tuple[float, float]:
    command = [sys.executable, "-c", PASS, str(folder), how]
    seconds, mib = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(mib)
