"""A second `make demo`, all stages cached, against the first one; and the most memory that a stage took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from flows.stages.report import report_of
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import CHECKOUT

NAME = "demo-again"
WHERE = "wall time of python -m deployments.demo; once fresh, three times cached"
CACHED_BAR_S = 60.0
FRESH_BAR_S = 720.0
MEMORY_BAR_GIB = 6.0


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
        peaks = [report.cost.peak_memory_gib for report in reports if report.cost.peak_memory_gib]
    finally:
        stop = [sys.executable, "-m", "deployments.local", "down", "--folder", str(workdir / "local")]
        subprocess.run(stop, cwd=CHECKOUT, check=True)
    within = f"cached < {CACHED_BAR_S:.0f} s"
    again = compare(NAME, WHERE, "s", seconds[1:], seconds[:1], within)
    fresh = compare("demo-fresh", "the first run, against its allowance", "s", seconds[:1], [FRESH_BAR_S], "<= 1")
    memory = compare(
        "demo-memory", "most memory of a stage, against 6 GiB", "GiB", [max(peaks)], [MEMORY_BAR_GIB], "< 1"
    )
    return [
        again.model_copy(update={"holds": again.ours < CACHED_BAR_S}),
        fresh.model_copy(update={"holds": fresh.ratio <= 1}),
        memory.model_copy(update={"holds": memory.ratio < 1}),
    ]
