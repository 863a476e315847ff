"""Flows of the benchmark `stage-dispatch`: one that does nothing, and one that times stages in place."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from prefect import flow, task

from flows.corpus.sources.registry import Sources
from flows.corpus.sources.tables import TableSource
from flows.stages.pipeline import Pipeline
from flows.stages.run_context import RunOptions, current_run
from flows.store.files import write_json

TIMES = 15
WARM_UP = 3  # the first ones import things


@flow
def nothing() -> None:
    """Do nothing."""


@task(persist_result=True)
def stored(number: int) -> dict[str, int]:
    """A result to be stored."""
    return {"number": number}


@flow(name="in-place")
def in_place(folder: str) -> None:
    """Time the stages and plain tasks by turns, and leave the seconds in `in-place.json`."""
    line = Pipeline(current_run(RunOptions(store=f"{folder}/store")))
    ours, other = [], []
    for number in range(TIMES):
        file = Path(folder, f"{number}.csv")
        rows = [f"What is number {number}.{row}?,It is number {row} of {number}." for row in range(20)]
        file.write_text("\n".join(["question,answer", *rows]), "utf-8")
        started = time.monotonic()
        line.prepare(Sources(tables=[TableSource(path=str(file))]), name=f"prepare-{number}")
        ours.append(time.monotonic() - started)
        started = time.monotonic()
        stored(number)
        other.append(time.monotonic() - started)
    write_json(Path(folder, "in-place.json"), {"ours": ours[WARM_UP:], "other": other[WARM_UP:]})


if __name__ == "__main__":
    in_place(sys.argv[1])
