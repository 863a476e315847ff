"""A stage to a warm process pool, beside a run of a plain deployment with Prefect's defaults; and a stage in place."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from deployments.local import Local
from flows.store.files import read_json
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import CHECKOUT

NAME = "stage-dispatch"
WHERE = (
    "from asking for the run until its code starts, worker warm; the other: a flow that does nothing, default settings"
)
IN_PLACE = (
    "a prepare stage of 20 rows in a run under way, its work included; the other: a Prefect task that stores a result"
)
BAR_S = 6.0
IN_PLACE_BAR_S = 0.150
TIMES = 9
PLAIN = "plain"


def measure(workdir: Path) -> list[Row]:
    """In a Prefect of its own: first one after another in both pools by turns, then in place."""
    local = Local(workdir / "local")
    try:
        port = local.up().port
        _plain_worker(local)
        local.apply(port)
        ours, plain = [], []
        for number in range(TIMES):
            ours.append(_of_stage(port, number))
            plain.append(_of_plain(port))
        dispatch = compare(NAME, WHERE, "s", ours, plain, f"median < {BAR_S:.0f} s")
        found = _in_place(local, port, workdir)
    finally:
        local.down()
    here = compare("stage-in-place", IN_PLACE, "s", found["ours"], found["other"], f"median < {IN_PLACE_BAR_S:g} s")
    return [
        dispatch.model_copy(update={"holds": dispatch.ours < BAR_S}),
        here.model_copy(update={"holds": here.ours < IN_PLACE_BAR_S}),
    ]


def _plain_worker(local: Local) -> None:
    """A second pool whose worker has Prefect's own settings, and a deployment of a flow that does nothing."""
    port = local.up_pool(PLAIN, PREFECT_WORKER_QUERY_SECONDS="10").port
    flow = "tests/benchmarks/flows_for_dispatch.py:nothing"
    local.prefect(port, "--no-prompt", "deploy", flow, "--name", PLAIN, "--pool", PLAIN)


def _of_stage(port: int, number: int) -> float:
    """Of a command that does nothing, in the pool `local`, as the only stage of a pipeline."""
    stage = {"name": "one", "kind": "shell", "command": f"true {number}", "resources": {"work_pool": "local"}}
    run = _run(port, "pipeline/example", {"stages": [stage]})
    _wait(port, run)
    name = _ask(port, "GET", f"/flow_runs/{run}")["name"]
    [child] = _ask(port, "POST", "/flow_runs/filter", json={"flow_runs": {"name": {"any_": [f"{name}-one"]}}})
    return _delay(child)


def _of_plain(port: int) -> float:
    return _delay(_wait(port, _run(port, f"nothing/{PLAIN}", {})))


def _delay(run: dict) -> float:
    begun, asked = (datetime.datetime.fromisoformat(run[name]) for name in ("start_time", "created"))
    return (begun - asked).total_seconds()


def _run(port: int, deployment: str, parameters: dict) -> str:
    found = _ask(port, "GET", f"/deployments/name/{deployment}")
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return _ask(port, "POST", f"/deployments/{found['id']}/create_flow_run", json=body)["id"]


def _wait(port: int, run: str) -> dict:
    deadline = time.monotonic() + 120
    while (found := _ask(port, "GET", f"/flow_runs/{run}"))["state_type"] != "COMPLETED":
        assert found["state_type"] not in ("FAILED", "CRASHED", "CANCELLED"), found["state"]["message"]
        assert time.monotonic() < deadline, found["state"]
        time.sleep(0.3)
    return found


def _ask(port: int, method: str, path: str, **more: object) -> dict:
    answer = httpx.request(method, f"http://127.0.0.1:{port}/api{path}", timeout=60, **more)
    return answer.raise_for_status().json()


def _in_place(local: Local, port: int, workdir: Path) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "tests.benchmarks.flows_for_dispatch", str(workdir)]
    environment = local.environment(port) | {"PYTHONPATH": str(CHECKOUT), "PWD": os.getcwd()}
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[float]] = read_json(workdir / "in-place.json")
    return found
