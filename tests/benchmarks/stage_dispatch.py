"""A stage to a warm process pool, beside a run of a plain deployment with Prefect's defaults; and a stage in place."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

from deployments.local import Local
from flows.store.files import read_json
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import CHECKOUT
from tests.end_to_end.conftest import Prefect

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
        prefect = Prefect(local, port)
        _plain_worker(prefect)
        local.apply(port)
        ours, plain = [], []
        for number in range(TIMES):
            ours.append(_of_stage(prefect, number))
            plain.append(_of_plain(prefect))
        dispatch = compare(NAME, WHERE, "s", ours, plain, f"median < {BAR_S:.0f} s")
        found = _in_place(local, port, workdir)
    finally:
        local.down()
    here = compare("stage-in-place", IN_PLACE, "s", found["ours"], found["other"], f"median < {IN_PLACE_BAR_S:g} s")
    return [
        dispatch.model_copy(update={"holds": dispatch.ours < BAR_S}),
        here.model_copy(update={"holds": here.ours < IN_PLACE_BAR_S}),
    ]


def _plain_worker(prefect: Prefect) -> None:
    """A second pool as Prefect makes it, whose worker has Prefect's settings; and a flow there that does nothing."""
    prefect.local.prefect(prefect.port, "work-pool", "create", PLAIN, "--type", "process")
    prefect.local.up_pool(PLAIN, PREFECT_WORKER_QUERY_SECONDS="10")
    flow = "tests/benchmarks/flows_for_dispatch.py:nothing"
    prefect.local.prefect(prefect.port, "--no-prompt", "deploy", flow, "--name", PLAIN, "--pool", PLAIN)


def _of_stage(prefect: Prefect, number: int) -> float:
    """Of a command that does nothing, in the pool `local`, as the only stage of a pipeline."""
    stage = {"name": "one", "kind": "shell", "command": f"true {number}", "resources": {"work_pool": "local"}}
    run = prefect.completed("pipeline/example", stages=[stage])
    wanted = {"flow_runs": {"name": {"any_": [f"{run['name']}-one"]}}}
    [child] = prefect.ask("POST", "/flow_runs/filter", json=wanted)
    return _delay(child)


def _of_plain(prefect: Prefect) -> float:
    return _delay(prefect.completed(f"nothing/{PLAIN}"))


def _delay(run: dict) -> float:
    begun, asked = (datetime.datetime.fromisoformat(run[name]) for name in ("start_time", "created"))
    return (begun - asked).total_seconds()


def _in_place(local: Local, port: int, workdir: Path) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "tests.benchmarks.flows_for_dispatch", str(workdir)]
    environment = local.environment(port) | {"PYTHONPATH": str(CHECKOUT), "PWD": os.getcwd()}
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[float]] = read_json(workdir / "in-place.json")
    return found
