"""Remove from a store what no kept run, endpoint or running work needs."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.states import Completed
from pydantic import Field

from flows.errors import ConfigError, FinetuneError
from flows.stages.endpoints import failed
from flows.stages.opening import open_store
from flows.store import garbage
from flows.store.bucket import garbage as bucket_garbage
from flows.store.bucket.shared import SharedStore
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
    try:
        place = open_store(store)
        if not isinstance(place, SharedStore) and not (place.artifacts.is_dir() or place.works.is_dir()):
            words = f"{place.root} is no store: nothing has been made there yet."
            return failed(ConfigError(f"store: {words}")) if store else Completed(message=f"Nothing to remove: {words}")
        words = _collect(place, dry_run, keep_runs, keep_days)
    except (FinetuneError, OSError) as error:
        return failed(error)
    get_run_logger().info("%s The store is %s.", words, place.location)
    return Completed(message=words)


def _collect(place: Store, dry_run: bool, keep_runs: int, keep_days: float) -> str:
    """Find and show what nobody needs, and remove it if this is no dry run; what was done, in words."""
    place.check()
    found = garbage.find(place, keep_runs, keep_days)
    in_bucket = bucket_garbage.find(place, keep_runs, keep_days) if isinstance(place, SharedStore) else []
    rows = [_row(str(one.path.relative_to(place.root)), one.bytes, one.days) for one in found]
    rows += [_row(f"bucket: {one.name}", one.bytes, one.days) for one in in_bucket]
    if rows:
        create_table_artifact(rows, key="garbage", description="What no kept run, endpoint or running work needs")
    if not dry_run:
        if isinstance(place, SharedStore):
            in_bucket = bucket_garbage.remove(place, in_bucket)
        found = garbage.remove(place, found)
    going = [one.bytes for one in found] + [one.bytes for one in in_bucket]
    verb = "Would remove" if dry_run else "Removed"
    words = f"{verb} {len(going)} of the store's artifacts and working folders, {sum(going) / GIB:.2f} GiB."
    if kept := len(rows) - len(going):
        words += f" Kept {kept} that came into use meanwhile."
    return words


def _row(what: str, size: int, days: float) -> dict[str, Any]:
    return {"what": what, "GiB": round(size / GIB, 3), "days unused": round(days, 1)}
