"""What of a store in a bucket nobody needs any more, and removing it; by the same rules as on a machine."""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from flows.store import garbage as local
from flows.store.bucket import lease
from flows.store.bucket.client import Bucket, Entry
from flows.store.bucket.shared import SharedStore
from flows.store.layout import DONE, MANIFEST, result_path

Entries = dict[str, Entry]
AT_ONCE = 50  # removed under leases that are held together, each of which is renewed by a thread


@dataclass
class BucketGarbage:
    """Something that nobody needs: its name in the bucket, bytes, days since its last use, that time, and its keys."""

    name: str
    bytes: int
    days: float
    used: datetime.datetime
    keys: list[str]


def find(store: SharedStore, keep_runs: int, keep_days: float) -> list[BucketGarbage]:
    """What can go, the biggest first: artifacts, what is left of torn uploads, and checkpoints of what was given up.

    Args:
        store: the store; nothing in it is changed.
        keep_runs: so many of the newest runs that used anything keep all of it, whatever its age; so do runs of this
            machine that are at work.
        keep_days: what was used in so many days is kept, at least one.
    """
    entries = store.bucket.entries("")
    folders: dict[str, Entries] = defaultdict(dict)
    for name, entry in entries.items():
        parts = name.split("/")
        given_up = parts[0] == "work" and parts[2] == "checkpoints" and f"work/{parts[1]}/{DONE}" not in entries
        if len(parts) > 3 and (parts[0] == "artifacts" or given_up):
            folders["/".join(parts[:3])][name] = entry
    uses = _Uses(store)
    uses.read(entries)
    needed = uses.needed(keep_runs)
    now = datetime.datetime.now(datetime.UTC)
    found = []
    for name, inside in folders.items():
        keys, used = uses.keys_of(name), uses.last(name, inside)
        days = (now - used).total_seconds() / local.DAY_S
        if name in needed or days < max(keep_days, 1):
            continue
        if any(lease.held(store.bucket, f"leases/{key}.json") for key in keys):
            continue
        found.append(BucketGarbage(name, sum(entry.size for entry in inside.values()), days, used, keys))
    return sorted(found, key=lambda one: one.bytes, reverse=True)


def remove(store: SharedStore, garbage: list[BucketGarbage]) -> list[BucketGarbage]:
    """Remove it from the bucket, but for what came into use since it was found; what was removed.

    The words of it go first, then the manifests, so that no run relies on what is being removed.
    """
    uses = _Uses(store)
    removed = []
    for start in range(0, len(garbage), AT_ONCE):
        with _still_garbage(store, uses, garbage[start : start + AT_ONCE]) as still:
            keys = [key for one, _ in still for key in one.keys]
            store.bucket.delete([name for key in keys for name in (f"work/{key}/{DONE}", f"results/{key}")])
            store.bucket.delete([f"{one.name}/{MANIFEST}" for one, _ in still])
            store.bucket.delete([name for _, inside in still for name in inside])
        removed += [one for one, _ in still]
    return removed


@contextmanager
def _still_garbage(
    store: SharedStore, uses: _Uses, garbage: list[BucketGarbage]
) -> Iterator[list[tuple[BucketGarbage, Entries]]]:
    """What of it nobody has used since it was found, nor makes anew, and its objects; while this lasts nobody does.

    Everything that says who uses what is listed after nobody can begin to make any of it: once for all of it.
    """
    with ExitStack() as held:
        free = []
        for one in garbage:
            leases = (lease.unless_held(store.bucket, f"leases/{key}.json", store.lease_s) for key in one.keys)
            if all(held.enter_context(each) for each in leases):
                free.append((one, store.bucket.entries(f"{one.name}/")))
        uses.read(store.bucket.entries("runs/") | store.bucket.entries("work/"))
        served = uses.of_endpoints()
        yield [
            (one, inside)
            for one, inside in free
            if inside and uses.last(one.name, inside) == one.used and one.name not in served
        ]


class _Uses:
    """Which keys lead to an artifact, and who has used it when. Each small object is read once while it is the same."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._read: dict[tuple[str, str], dict[str, Any]] = {}  # by name and ETag
        self._keys: dict[str, list[str]] = {}
        self._used: dict[str, datetime.datetime] = {}
        self._runs: list[tuple[str, list[str]]] = []

    def read(self, entries: Entries) -> None:
        """Take what the bucket holds now, as listed."""
        done = [name for name in entries if name.startswith("work/") and name.endswith(f"/{DONE}")]
        files = [name for name in entries if name.startswith("runs/") and name.endswith(f"/{local.USES}")]
        files.sort(key=lambda name: entries[name].written, reverse=True)
        contents = self._contents(entries, [*done, *files])
        self._keys, self._used, self._runs = defaultdict(list), {}, []
        for name in done:
            if path := result_path(contents[name]):
                self._keys[path].append(name.split("/")[1])
                self._note(path, entries[name])
        for name in files:
            artifacts = local.used(contents[name])
            self._runs.append((name.split("/")[1], artifacts))
            for artifact in artifacts:
                self._note(artifact, entries[name])

    def keys_of(self, name: str) -> list[str]:
        """The cache keys that lead to an artifact, or whose checkpoints these are."""
        return self._keys.get(name, [name.split("/")[1]] if name.startswith("work/") else [])

    def last(self, name: str, inside: Entries) -> datetime.datetime:
        """When it was last used, or written to."""
        written = [entry.written for entry in inside.values()]
        return max([*written, *([self._used[name]] if name in self._used else [])])

    def needed(self, keep_runs: int) -> set[str]:
        """What the newest runs need, runs of this machine that are at work, and endpoints of this machine."""
        needed = self.of_endpoints()
        for number, (run_id, artifacts) in enumerate(self._runs):
            if number < keep_runs or local.at_work(self._store.run(run_id)):
                needed.update(artifacts)
        return needed

    def of_endpoints(self) -> set[str]:
        """What endpoints of this machine need."""
        return {self._store.relative(path) for path in local.of_endpoints(self._store)}

    def _note(self, artifact: str, entry: Entry) -> None:
        self._used[artifact] = max(self._used.get(artifact, entry.written), entry.written)

    def _contents(self, entries: Entries, names: list[str]) -> dict[str, dict[str, Any]]:
        read = _read_all(self._store.bucket, [n for n in names if (n, entries[n].etag) not in self._read])
        self._read.update({(name, entries[name].etag): content for name, content in read.items()})
        return {name: self._read.get((name, entries[name].etag), {}) for name in names}


def _read_all(bucket: Bucket, names: list[str]) -> dict[str, dict[str, Any]]:
    return {name: _value(content) for name, content in bucket.read_all(names).items()}


def _value(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
