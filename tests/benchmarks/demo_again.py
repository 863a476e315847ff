"""A second `make demo`, all stages cached, against the first; a cached run by itself; the most memory of a stage."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

from deployments.local import Local
from flows.stages.report import report_of
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import CHECKOUT
from tests.end_to_end.conftest import Prefect

NAME = "demo-again"
WHERE = "wall time of python -m deployments.demo; once fresh, three times cached"
CACHED_BAR_S = 60.0
FRESH_BAR_S = 720.0
MEMORY_BAR_GIB = 6.0
RUN_BAR_S = 10.0
RUN_WHERE = (
    "a cached run, from asking for it to Completed, server and worker warm; against the same before anything is cached"
)


def measure(workdir: Path) -> list[Row]:
    """In a folder and a Prefect of its own."""
    environment = {**os.environ, "FINETUNE_LOCAL": str(workdir / "local")}
    seconds = []
    try:
        for _ in range(4):
            started = time.monotonic()
            demo = [sys.executable, "-m", "deployments.demo"]
            subprocess.run(demo, cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - started)
        runs = (workdir / "local" / "store" / "runs").iterdir()
        reports = [report for report in map(report_of, runs) if report is not None]
        runs_s = [_cached_run(workdir / "local") for _ in range(3)]
        peaks = [report.cost.peak_memory_gib for report in reports if report.cost.peak_memory_gib]
    finally:
        stop = [sys.executable, "-m", "deployments.local", "down", "--folder", str(workdir / "local")]
        subprocess.run(stop, cwd=CHECKOUT, check=True)
    within = f"cached < {CACHED_BAR_S:.0f} s"
    again = compare(NAME, WHERE, "s", seconds[1:], seconds[:1], within)
    fresh = compare("demo-fresh", "the first run, against its allowance", "s", seconds[:1], [FRESH_BAR_S], "<= 1")
    run = compare("demo-cached-run", RUN_WHERE, "s", runs_s, seconds[:1], f"< {RUN_BAR_S:.0f} s")
    memory = compare(
        "demo-memory", "most memory of a stage, against 6 GiB", "GiB", [max(peaks)], [MEMORY_BAR_GIB], "< 1"
    )
    return [
        again.model_copy(update={"holds": again.ours < CACHED_BAR_S}),
        run.model_copy(update={"holds": run.ours < RUN_BAR_S}),
        fresh.model_copy(update={"holds": fresh.ratio <= 1}),
        memory.model_copy(update={"holds": memory.ratio < 1}),
    ]


def _cached_run(folder: Path) -> float:
    """Seconds by the server's clock."""
    local = Local(folder)
    found = local.record()
    assert found is not None
    run = Prefect(local, found.port).completed("demo")
    created, ended = (datetime.datetime.fromisoformat(run[name]) for name in ("created", "end_time"))
    return (ended - created).total_seconds()
