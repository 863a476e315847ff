"""Fifty pipelines of five trivial stages at once on one worker: what fails, what the database and the worker take."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from deployments.local import Local
from tests.benchmarks.rows import Row, compare
from tests.end_to_end.conftest import Prefect

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
        prefect = Prefect(local, found.port)
        runs = [prefect.start("pipeline/example", stages=_commands(number)) for number in range(PIPELINES)]
        states, worker_mib = _follow(prefect, set(runs), found.worker.pid)
        tasks = prefect.ask("POST", "/task_runs/count", json=_completed(runs))
        crashed = sum(_has_crashed(prefect, run) for run in runs)
    finally:
        local.down()
    database = sum(file.stat().st_size for file in (workdir / "local" / "prefect").glob("prefect.db*")) / 1e6
    lost = PIPELINES - states.count("COMPLETED") + PIPELINES * STAGES - tasks
    where = f"{PIPELINES} pipelines of {STAGES} commands submitted at once; runs and stages that did not end Completed"
    return [
        _row(NAME, where, lost, 1, "0", lost == 0),
        _row("many-crashed", "of them, runs that crashed and were started again", crashed, 1, "0", crashed == 0),
        _row("many-database", "size of the database, against 100 MB", database, DATABASE_BAR_MB, "< 1"),
        _row("many-worker", "most memory of the worker itself, against 500 MiB", worker_mib, WORKER_BAR_MIB, "< 1"),
    ]


def _row(name: str, where: str, ours: float, other: float, bar: str, holds: bool | None = None) -> Row:
    unit = {NAME: "lost", "many-crashed": "runs", "many-database": "MB", "many-worker": "MiB"}[name]
    row = compare(name, where, unit, [ours], [other], bar)
    return row.model_copy(update={"holds": row.ratio < 1 if holds is None else holds})


def _commands(number: int) -> list[dict]:
    return [
        {"name": f"s{stage}", "kind": "shell", "command": f"true {number} {stage}", "after": [f"s{stage - 1}"][:stage]}
        for stage in range(STAGES)
    ]


def _completed(runs: list[str]) -> dict:
    return {"flow_runs": {"id": {"any_": runs}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}


def _has_crashed(prefect: Prefect, run: str) -> bool:
    states = prefect.ask("GET", "/flow_run_states/", params={"flow_run_id": run})
    return any(state["type"] == "CRASHED" for state in states)


def _follow(prefect: Prefect, runs: set[str], worker: int) -> tuple[list[str], float]:
    """Until all are final: their states, and the most memory (MiB) of the worker process."""
    deadline, most, moved, last = time.monotonic() + LIMIT_S, 0.0, time.monotonic(), [""]
    while True:
        most = max(most, psutil.Process(worker).memory_info().rss / 2**20)
        body = {"flow_runs": {"id": {"any_": list(runs)}}, "limit": 200}
        states = sorted(run["state_type"] for run in prefect.ask("POST", "/flow_runs/filter", json=body))
        if states != last:
            last, moved = states, time.monotonic()
        over = FINAL | ({"CRASHED"} if time.monotonic() - moved > CRASHED_FOR_GOOD_S else set())
        if len(states) == len(runs) and over.issuperset(states):
            return states, most
        assert time.monotonic() < deadline, states
        time.sleep(2)
