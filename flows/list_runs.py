"""All runs of a store: what each has gained, what it cost, and why those that failed did."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.errors import ConfigError, FinetuneError
from flows.reporting.runs import count_line
from flows.stages.endpoints import failed
from flows.stages.opening import open_store
from flows.stages.runs import show_runs


@flow(name="list-runs")
def list_runs(store: str = "") -> Any:
    """Show all runs on the page `runs`, and write `runs.html` into the store, whose table can be sorted.

    Args:
        store: Where the runs have left their reports: a folder, or s3://bucket/prefix, or s3-store/NAME of an S3 Store
            block. Empty means FINETUNE_STORE of the environment.
    """
    try:
        place = open_store(store)
        runs = show_runs(place)
    except FinetuneError as error:
        return failed(error)
    except OSError as error:
        return failed(ConfigError(f"store: {place.root} cannot be written to: {error}."))
    return Completed(message=f"{count_line(runs)}. {place.root / 'runs.html'}")
