"""Remove from a store what no kept run, endpoint or running work needs."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.states import Completed
from pydantic import Field

from flows.store import garbage
from flows.store.layout import Store

GIB = 2**30


@flow(name="gc-store")
def gc_store(
    dry_run: bool = True,
    keep_runs: Annotated[int, Field(ge=0)] = 20,
    keep_days: Annotated[float, Field(ge=1)] = 30,
    store: str = "",
) -> Any:
    """Find artifacts that nobody needs any more, and remove them if this is no dry run.

    Args:
        dry_run: Only say what would be removed.
        keep_runs: So many of the newest runs keep all that they used.
        keep_days: What was used in so many days is kept, at least one.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    place = Store(store)
    found = garbage.find(place, keep_runs, keep_days)
    rows = [
        {
            "what": str(one.path.relative_to(place.root)),
            "GiB": round(one.bytes / GIB, 3),
            "days unused": round(one.days, 1),
        }
        for one in found
    ]
    if rows:
        create_table_artifact(rows, key="garbage", description="What no kept run, endpoint or running work needs")
    freed = sum(one.bytes for one in found) if dry_run else garbage.remove(place, found)
    verb = "Would remove" if dry_run else "Removed"
    words = f"{verb} {len(found)} of the store's artifacts and working folders, {freed / GIB:.2f} GiB."
    get_run_logger().info("%s The store is %s.", words, place.root)
    return Completed(message=words)
