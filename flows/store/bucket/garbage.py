"""What of a store in a bucket nobody needs any more, and removing it; by the same rules as on a machine."""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flows.store import garbage as local
from flows.store.bucket import lease
from flows.store.bucket.client import Bucket, Entry
from flows.store.bucket.shared import SharedStore
from flows.store.layout import DONE, MANIFEST


@dataclass
class BucketGarbage:
    """Something that nobody needs: its name in the bucket, bytes, days since its last use, keys that lead to it."""

    name: str
    bytes: int
    days: float
    keys: list[str] = field(default_factory=list)


def find(store: SharedStore, keep_runs: int, keep_days: float) -> list[BucketGarbage]:
    """What can go, the biggest first: artifacts, what is left of torn uploads, and checkpoints of what was given up.

    Args:
        store: the store; nothing in it is changed.
        keep_runs: so many of the newest runs keep all that they used, whatever its age.
        keep_days: what was used in so many days is kept, at least one.
    """
    entries = store.bucket.entries("")
    folders: dict[str, list[Entry]] = defaultdict(list)
    for name, entry in entries.items():
        parts = name.split("/")
        given_up = parts[0] == "work" and parts[2] == "checkpoints" and f"work/{parts[1]}/{DONE}" not in entries
        if len(parts) > 3 and (parts[0] == "artifacts" or given_up):
            folders["/".join(parts[:3])].append(entry)
    keys = _keys(store.bucket, entries)
    used, needed = _uses(store, entries, keep_runs)
    for name, makers in keys.items():
        made = max(entries[f"work/{key}/{DONE}"].written for key in makers)
        used[name] = max(used.get(name, made), made)
    now = datetime.datetime.now(datetime.UTC)
    found = []
    for name, inside in folders.items():
        own = keys.get(name, [name.split("/")[1]] if name.startswith("work/") else [])
        last = max([*(entry.written for entry in inside), *([used[name]] if name in used else [])])
        days = (now - last).total_seconds() / local.DAY_S
        if name in needed or days < max(keep_days, 1):
            continue
        if any(lease.held(store.bucket, f"leases/{key}.json") for key in own):
            continue
        found.append(BucketGarbage(name, sum(entry.size for entry in inside), days, own))
    return sorted(found, key=lambda one: one.bytes, reverse=True)


def remove(store: SharedStore, garbage: list[BucketGarbage]) -> int:
    """Remove it from the bucket; how many bytes that freed.

    The words of it go first, then the manifests, so that no run relies on what is being removed.
    """
    words = [name for one in garbage for key in one.keys for name in (f"work/{key}/{DONE}", f"results/{key}")]
    store.bucket.delete(words)
    store.bucket.delete([f"{one.name}/{MANIFEST}" for one in garbage])
    for one in garbage:
        store.bucket.delete(list(store.bucket.entries(f"{one.name}/")))
    return sum(one.bytes for one in garbage)


def _keys(bucket: Bucket, entries: dict[str, Entry]) -> dict[str, list[str]]:
    """Artifact -> the cache keys that lead to it."""
    found: dict[str, list[str]] = defaultdict(list)
    names = [name for name in entries if name.startswith("work/") and name.endswith(f"/{DONE}")]
    for name, content in bucket.read_all(names).items():
        done = _value(content)
        if done:
            found[done["artifact"]["path"]].append(name.split("/")[1])
    return dict(found)


def _uses(
    store: SharedStore, entries: dict[str, Entry], keep_runs: int
) -> tuple[dict[str, datetime.datetime], set[str]]:
    """When each artifact was last used by a run, and what the newest runs, and endpoints of this machine, need."""
    files = [name for name in entries if name.startswith("runs/") and name.endswith(f"/{local.USES}")]
    files.sort(key=lambda name: entries[name].written, reverse=True)
    read = store.bucket.read_all(files)
    used: dict[str, datetime.datetime] = {}
    needed = {store.relative(path) for path in local.of_endpoints(store)}
    for number, name in enumerate(files):
        for use in _value(read.get(name, b"{}")).values():
            artifact = use["artifact"]
            used[artifact] = max(used.get(artifact, entries[name].written), entries[name].written)
            if number < keep_runs:
                needed.add(artifact)
    return used, needed


def _value(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
