"""What of a store nobody needs any more, and removing it.

Kept are: what the kept runs have used, what an endpoint serves or can be rolled back to, what was used lately, and what
somebody is making at this moment. All else that stages have made can be made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.store.files import read_json
from flows.store.layout import DONE, Store

USES = "uses.json"
DAY_S = 86_400


@dataclass(frozen=True)
class Garbage:
    """Something that nobody needs: its path, bytes, the days since it was last used, and the key it belongs to."""

    path: Path
    bytes: int
    days: float
    key: str = ""


def find(store: Store, keep_runs: int, keep_days: float) -> list[Garbage]:
    """What can go, the biggest first.

    Args:
        store: the store; nothing in it is changed.
        keep_runs: so many of the newest runs keep all that they used, whatever its age.
        keep_days: what was used in so many days is kept, at least one.
    """
    now = time.time()
    needed = {*_used_by_runs(store, keep_runs), *of_endpoints(store)}
    found = []
    makers = _keys_of_artifacts(store)
    for path in [*store.artifacts.glob("*/*"), *_unfinished(store)]:
        keys = makers.get(path, [path.name] if path.parent.name == "work" else [])
        used = max([_time(path), *(_last_use(store, key) for key in keys)])
        days = (now - used) / DAY_S
        if path in needed or days < max(keep_days, 1) or any(_held(store, key) for key in keys):
            continue
        found.append(Garbage(path, _bytes(path), days, keys[0] if keys else ""))
    return sorted(found, key=lambda one: one.bytes, reverse=True)


def remove(store: Store, garbage: list[Garbage]) -> int:
    """Remove it; how many bytes that freed.

    The word of it goes first, so that no run relies on what is being removed.
    """
    makers = _keys_of_artifacts(store)
    freed = 0
    for one in garbage:
        for key in makers.get(one.path, [one.key] if one.key else []):
            (store.work(key) / DONE).unlink(missing_ok=True)
            (store.results / key).unlink(missing_ok=True)
        store.memo(one.path).unlink(missing_ok=True)
        trash = one.path.with_name(f".removed-{one.path.name}-{os.getpid()}")
        one.path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
        freed += one.bytes
    return freed


def _used_by_runs(store: Store, keep_runs: int) -> Iterator[Path]:
    runs = sorted((store.root / "runs").glob("*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in runs[:keep_runs]:
        uses: dict[str, Any] = read_json(folder / USES) or {}
        for use in uses.values():
            yield store.place(use["artifact"])


def of_endpoints(store: Store) -> Iterator[Path]:
    """Artifacts that the files of any endpoint or of its kept revisions name: models, adapters."""
    artifact = re.compile(re.escape(str(store.artifacts)) + '/[^/"]+/[0-9a-f]{24}')
    for file in [*store.endpoints.glob("*.json"), *store.endpoints.glob("*/revisions/*.json")]:
        for path in artifact.findall(file.read_text("utf-8", "replace")):
            yield Path(path)


def _keys_of_artifacts(store: Store) -> dict[Path, list[str]]:
    """Artifact -> the cache keys that lead to it."""
    found: dict[str, list[str]] = {}
    work = str(store.works)
    for key in os.listdir(work) if os.path.isdir(work) else []:
        try:
            with open(f"{work}/{key}/{DONE}", "rb") as stream:  # thousands of them: a Path for each takes too long
                found.setdefault(json.loads(stream.read())["artifact"]["path"], []).append(key)
        except (OSError, ValueError):
            continue
    makers: dict[Path, list[str]] = {}
    for path, keys in found.items():
        makers.setdefault(store.place(path), []).extend(keys)
    return makers


def _unfinished(store: Store) -> Iterator[Path]:
    """Working folders that no run has finished: checkpoints of what failed."""
    for folder in store.works.glob("*"):
        if folder.is_dir() and not (folder / DONE).exists():
            yield folder


def _last_use(store: Store, key: str) -> float:
    folder = f"{store.works}/{key}"
    return max(_time(f"{folder}/{DONE}"), _time(folder))


def _held(store: Store, key: str) -> bool:
    """Whether somebody is making what the key stands for."""
    file = f"{store.locks}/{key}"
    if not os.path.exists(file):
        return False
    with open(file, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _bytes(path: Path | str) -> int:
    with os.scandir(path) as entries:
        return sum(
            _bytes(entry.path) if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
            for entry in entries
        )


def _time(path: Path | str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
