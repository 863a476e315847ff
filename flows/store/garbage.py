"""What of a store nobody needs any more, and removing it.

Kept are: what the kept runs have used, what an endpoint serves or can be rolled back to, what was used lately, and what
somebody is making at this moment. All else that stages have made can be made again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.store.artifacts import lock_of
from flows.store.files import own_word, read_json
from flows.store.layout import DONE, Store, result_path
from flows.store.locks import alone, unless_held

USES = "uses.json"  # of a run: what it has used
SPENT = "spent"  # of a run: a folder in which its stages write every few seconds while they work
DAY_S = 86_400


@dataclass(frozen=True)
class Garbage:
    """Something that nobody needs: its path, bytes, the days since it was last used, that time, and its key."""

    path: Path
    bytes: int
    days: float
    used: float
    key: str = ""


def find(store: Store, keep_runs: int, keep_days: float) -> list[Garbage]:
    """What can go, the biggest first.

    Args:
        store: the store; nothing in it is changed.
        keep_runs: so many of the newest runs that used anything keep all of it, whatever its age; so do runs at work.
        keep_days: what was used in so many days is kept, at least one.
    """
    needed = {*_used_by_runs(store, keep_runs), *of_endpoints(store)}
    found = []
    makers = _keys_of_artifacts(store)
    for path in [*store.artifacts.glob("*/*"), *_unfinished(store)]:
        keys = makers.get(path, [path.name] if path.parent.name == "work" else [])
        used = _last_use(store, path, keys)
        days = (time.time() - used) / DAY_S
        if path in needed or days < max(keep_days, 1) or any(_held(store, key) for key in keys):
            continue
        found.append(Garbage(path, _bytes(path), days, used, keys[0] if keys else ""))
    return sorted(found, key=lambda one: one.bytes, reverse=True)


def remove(store: Store, garbage: list[Garbage]) -> list[Garbage]:
    """Remove it, but for what came into use since it was found; what was removed.

    The word of it goes first, so that no run relies on what is being removed.
    """
    makers = _keys_of_artifacts(store)
    removed = []
    for one in garbage:
        keys = makers.get(one.path, [one.key] if one.key else [])
        trash = one.path.with_name(f".removed-{one.path.name}-{own_word()}")
        with _still_garbage(store, one, keys) as still:
            if not still:
                continue
            for key in keys:
                (store.work(key) / DONE).unlink(missing_ok=True)
                (store.results / key).unlink(missing_ok=True)
            store.memo(one.path).unlink(missing_ok=True)
            try:
                one.path.rename(trash)
            except FileNotFoundError:  # another one collects at the same time
                continue
        shutil.rmtree(trash, ignore_errors=True)
        removed.append(one)
    return removed


@contextmanager
def _still_garbage(store: Store, one: Garbage, keys: list[str]) -> Iterator[bool]:
    """Whether nobody has used it since it was found, nor makes it anew; while this lasts nobody begins to."""
    with ExitStack() as held:
        if one.path.is_relative_to(store.artifacts):
            held.enter_context(alone(lock_of(store, one.path)))
        free = all(held.enter_context(unless_held(store.locks / key)) for key in keys)
        yield free and _last_use(store, one.path, keys) == one.used and one.path not in {*of_endpoints(store)}


def _used_by_runs(store: Store, keep_runs: int) -> Iterator[Path]:
    """What the newest runs have used, and those that are at work. A run that used nothing is none of them."""
    files = sorted((store.root / "runs").glob(f"*/{USES}"), key=_time, reverse=True)
    for number, file in enumerate(files):
        if number < keep_runs or at_work(file.parent):
            yield from map(store.place, used(read_json(file)))


def used(uses: Any) -> list[str]:
    """The paths in what a run's `uses.json` holds; none in something else."""
    found = uses.values() if isinstance(uses, dict) else []
    return [use["artifact"] for use in found if isinstance(use, dict) and isinstance(use.get("artifact"), str)]


def at_work(run: Path) -> bool:
    """Whether a stage of a run, by its folder, has worked within a day, and so may still read what the run has used."""
    return time.time() - _time(run / SPENT) < DAY_S


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
                path = result_path(json.loads(stream.read()))
        except (OSError, ValueError):
            continue
        if path:
            found.setdefault(path, []).append(key)
    makers: dict[Path, list[str]] = {}
    for path, keys in found.items():
        makers.setdefault(store.place(path), []).extend(keys)
    return makers


def _unfinished(store: Store) -> Iterator[Path]:
    """Working folders that no run has finished: checkpoints of what failed."""
    for folder in store.works.glob("*"):
        if folder.is_dir() and not (folder / DONE).exists():
            yield folder


def _last_use(store: Store, path: Path, keys: list[str]) -> float:
    folders = [f"{store.works}/{key}" for key in keys]
    return max(_time(path), *map(_time, folders), *(_time(f"{folder}/{DONE}") for folder in folders), 0.0)


def _held(store: Store, key: str) -> bool:
    """Whether somebody is making what the key stands for."""
    file = store.locks / key
    if not file.exists():
        return False
    with unless_held(file) as free:
        return not free


def _bytes(path: Path | str) -> int:
    """Of all files below it; those that somebody removes meanwhile are none."""
    count = 0
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                folder = entry.is_dir(follow_symlinks=False)
                count += _bytes(entry.path) if folder else entry.stat(follow_symlinks=False).st_size
    return count


def _time(path: Path | str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
