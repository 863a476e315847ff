"""HAProxy against the LiteLLM proxy as the front of one endpoint: the same streams, each with one token check.

LiteLLM lives in an environment of its own, made by hand: python3.11 -m venv build/litellm &&
build/litellm/bin/pip install 'litellm[proxy]'. Without it there is no row. It runs without a database, so the master
key is its only one, and with one worker, as its documentation starts it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from flows.serving import records
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint, ProcessRecord
from flows.serving.front import lifecycle, tokens, traffic
from flows.serving.front.folder import running
from flows.serving.runtimes import process
from flows.serving.state import State
from tests.benchmarks.front_overhead import AT_A_TIME, asked, server
from tests.benchmarks.rows import Row, compare

NAME = "front-choice"
LITELLM = Path("build/litellm/bin/litellm")
KEY = "sk-bench"
TURNS = 3
COUNT = 16
CONFIG = """\
model_list:
  - model_name: fast
    litellm_params: {{model: openai/fast, api_base: "{url}", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


def measure(workdir: Path) -> list[Row]:
    """Three turns of each, one after another, at 100 tokens/s a stream."""
    if not LITELLM.exists():
        print(f"{NAME}: skipped, there is no {LITELLM}")
        return []
    with (
        server(0.01) as address,
        _haproxy(workdir / "endpoints", address) as (url, token, pid),
        _litellm(workdir, address) as (other_url, other_pid),
    ):
        turns = [(asked(url, COUNT, token), asked(other_url, COUNT, KEY)) for _ in range(TURNS)]
        memory = [psutil.Process(one).memory_info().rss / 2**20 for one in (pid, other_pid)]
    where = f"HAProxy against the LiteLLM proxy, {AT_A_TIME} streams at a time, 100 tokens/s a stream, one token check"
    return [
        compare(NAME, where, "tokens/s", *([one[side].tokens_per_s for one in turns] for side in (0, 1))),
        compare(NAME, "time to the first token", "ms", *([one[side].first_ms for one in turns] for side in (0, 1))),
        compare(NAME, "memory after that", "MiB", [memory[0]], [memory[1]]),
    ]


@contextmanager
def _haproxy(endpoints: Path, address: str) -> Iterator[tuple[str, str, int]]:
    front = lifecycle.ensure(ServeConfig(name="bench", front={"enabled": True, "access": "token"}), endpoints)
    try:
        traffic.route(front, {address: 1})
        record = ProcessRecord(pid=1, start_ticks=1, boot_id="b", log="")
        known = {"url": f"http://{address}/v1", "state": State.HEALTHY, "model": "fast", "port": 1, "front": front}
        more = {"variant": "command", "runtime": "process", "process": record, "ready_path": "", "settings": ""}
        records.save(endpoints, Endpoint(name="bench", started="", **known, **more))
        token = tokens.issue(endpoints, "bench", "bench", 1)
        found = running(front.path)
        assert found is not None
        yield front.url, token, found.pid
    finally:
        lifecycle.stop(front)


@contextmanager
def _litellm(workdir: Path, address: str) -> Iterator[tuple[str, int]]:
    port = process.choose_port(0)
    config = workdir / "litellm.yaml"
    config.write_text(CONFIG.format(url=f"http://{address}/v1", key=KEY))
    words = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DO_NOT_TRACK": "1"}
    with (workdir / "litellm.log").open("w") as log:
        child = subprocess.Popen(words, env=os.environ | quiet, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        assert process.wait_until(lambda: _serves(url), 180), (workdir / "litellm.log").read_text()[-3000:]
        yield url, child.pid
    finally:
        child.kill()
        child.wait()


def _serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {KEY}"}, trust_env=False).is_success
    except httpx.HTTPError:
        return False
