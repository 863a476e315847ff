"""Fifty pipelines of five trivial stages at once on one worker: what fails, what the database and the worker take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import tenacity

from deployments.local import Local
from tests.benchmarks.rows import Row, compare

NAME = "many-pipelines"
PIPELINES, STAGES = 50, 5
LIMIT_S = 3600
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}
CRASHED_FOR_GOOD_S = 120  # by then an automation has started it again
DATABASE_BAR_MB, WORKER_BAR_MIB = 100, 500


def measure(workdir: Path) -> list[Row]:
    """In a Prefect of its own; each pipeline has other commands, so that nothing is taken from the store."""
    local = Local(workdir / "local")
    try:
        found = local.up()
        local.apply(found.port)
        api = f"http://127.0.0.1:{found.port}/api"
        deployment = httpx.get(f"{api}/deployments/name/pipeline/example", timeout=60).raise_for_status().json()["id"]
        runs = [_start(api, deployment, number) for number in range(PIPELINES)]
        states, worker_mib = _follow(api, set(runs), found.worker.pid)
        tasks = _asked(f"{api}/task_runs/count", _completed(runs))
        crashed = sum(_has_crashed(api, run) for run in runs)
    finally:
        local.down()
    database = sum(file.stat().st_size for file in (workdir / "local" / "prefect").glob("prefect.db*")) / 1e6
    lost = PIPELINES - states.count("COMPLETED") + PIPELINES * STAGES - tasks
    where = f"{PIPELINES} pipelines of {STAGES} commands submitted at once; runs and stages that did not end Completed"
    return [
        _row(NAME, where, lost, 1, "0", lost == 0),
        _row(
            "many-crashed",
            "of them, runs that crashed on the way and were started again",
            crashed,
            1,
            "0",
            crashed == 0,
        ),
        _row("many-database", "size of the database, against 100 MB", database, DATABASE_BAR_MB, "< 1"),
        _row("many-worker", "most memory of the worker itself, against 500 MiB", worker_mib, WORKER_BAR_MIB, "< 1"),
    ]


# A server under this load answers 503 at times; Prefect's own clients ask again, too.
@tenacity.retry(
    retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    wait=tenacity.wait_fixed(1),
    stop=tenacity.stop_after_delay(60),
)
def _asked(url: str, body: dict) -> Any:
    return httpx.post(url, json=body, timeout=60).raise_for_status().json()


def _row(name: str, where: str, ours: float, other: float, bar: str, holds: bool | None = None) -> Row:
    unit = {NAME: "lost", "many-crashed": "runs", "many-database": "MB", "many-worker": "MiB"}[name]
    row = compare(name, where, unit, [ours], [other], bar)
    return row.model_copy(update={"holds": row.ratio < 1 if holds is None else holds})


def _start(api: str, deployment: str, number: int) -> str:
    stages = [
        {"name": f"s{stage}", "kind": "shell", "command": f"true {number} {stage}", "after": [f"s{stage - 1}"][:stage]}
        for stage in range(STAGES)
    ]
    body = {"parameters": {"stages": stages}, "state": {"type": "SCHEDULED"}, "idempotency_key": str(number)}
    return _asked(f"{api}/deployments/{deployment}/create_flow_run", body)["id"]


def _completed(runs: list[str]) -> dict:
    return {"flow_runs": {"id": {"any_": runs}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}


def _has_crashed(api: str, run: str) -> bool:
    states = httpx.get(f"{api}/flow_run_states/", params={"flow_run_id": run}, timeout=60).raise_for_status().json()
    return any(state["type"] == "CRASHED" for state in states)


def _follow(api: str, runs: set[str], worker: int) -> tuple[list[str], float]:
    """Until all are final: their states, and the most memory (MiB) of the worker process."""
    deadline, most, moved, last = time.monotonic() + LIMIT_S, 0.0, time.monotonic(), [""]
    while True:
        most = max(most, psutil.Process(worker).memory_info().rss / 2**20)
        body = {"flow_runs": {"id": {"any_": list(runs)}}, "limit": 200}
        states = sorted(run["state_type"] for run in _asked(f"{api}/flow_runs/filter", body))
        if states != last:
            last, moved = states, time.monotonic()
        over = FINAL | ({"CRASHED"} if time.monotonic() - moved > CRASHED_FOR_GOOD_S else set())
        if len(states) == len(runs) and over.issuperset(states):
            return states, most
        assert time.monotonic() < deadline, states
        time.sleep(2)
