"""Endpoints on disk: a JSON file each, and the right to change it.

Beside `NAME` there may be `NAME.next` (being started, not yet checked) and `NAME.previous` (replaced, being stopped).
Both are gone after a start that ended in any way but being killed; the next start or stop of that name clears them.
`NAME.2`, `NAME.3` ... are its replicas behind its front.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from flows.errors import ServingError
from flows.serving.endpoint import Endpoint
from flows.store.files import replaced

NEXT = ".next"
PREVIOUS = ".previous"
LOCK = ".lock"
PROMOTION_LOCK = ".promotion.lock"
LOCK_POLL_S = 0.05


def load(folder: Path, name: str) -> Endpoint | None:
    """The record of that name as it was written, or None.

    Raises:
        ServingError: the file cannot be read, is no record, or that of another name.
    """
    path = _path(folder, name)
    try:
        found = Endpoint.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServingError(f"{path} cannot be read ({error.strerror}): look at what is there.") from error
    except ValidationError as error:
        problem = error.errors()[0]
        raise _no_record(path, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")) from error
    if found.name != name:
        raise _no_record(path, f"name: {found.name} is not that of the file")
    return found


def _no_record(path: Path, why: str) -> ServingError:
    remedy = "Look for its process with `ps`, end it, and delete the file."
    return ServingError(f"{path} is no endpoint record ({why}). {remedy}")


def save(folder: Path, endpoint: Endpoint) -> None:
    """Write the record whole or not at all; nothing is left beside it when that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(_path(folder, endpoint.name)) as written, written.open("w", encoding="utf-8") as stream:
        stream.write(endpoint.model_dump_json(indent=2))
        stream.flush()
        os.fsync(stream.fileno())


def delete(folder: Path, name: str) -> None:
    """Forget a record; nothing happens if there is none."""
    _path(folder, name).unlink(missing_ok=True)


def readable(folder: Path, name: str) -> Endpoint | None:
    """The record of that name, or None if there is none or it is damaged."""
    try:
        return load(folder, name)
    except ServingError:
        return None


def unknown(folder: Path, name: str) -> ServingError:
    """The error for a name that nobody has, with the names there are."""
    return ServingError(f"There is no endpoint '{name}' in {folder}. There are: {', '.join(names(folder)) or 'none'}.")


def names(folder: Path) -> list[str]:
    """Names of all records, sorted."""
    return sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith("."))


def beside(folder: Path, name: str) -> list[Endpoint]:
    """The recorded replicas of a name: `NAME.2`, `NAME.3` and so on.

    Raises:
        ServingError: a file is no record.
    """
    rests = [one.removeprefix(f"{name}.") for one in names(folder) if one.startswith(f"{name}.")]
    found = [f"{name}.{rest}" for rest in rests if rest.isascii() and rest.isdecimal()]
    return [endpoint for one in found if (endpoint := load(folder, one))]


@contextmanager
def starting(folder: Path, name: str, wait_s: float = math.inf) -> Iterator[bool]:
    """Hold the right to start and end servers of `name` and to write its records; held for seconds.

    Waits up to `wait_s` seconds for who holds it. Yields whether it is ours. The kernel frees it when the holder dies.
    """
    with _held(folder, name, LOCK, wait_s) as ours:
        yield ours


@contextmanager
def promoting(folder: Path, name: str, wait_s: float = math.inf) -> Iterator[bool]:
    """Hold the right to move `name` to another model, for as long as its checks and a person take; as `starting`.

    Meanwhile what serves is watched and started again as ever. Who needs both takes this one first.
    """
    with _held(folder, name, PROMOTION_LOCK, wait_s) as ours:
        yield ours


def mark_stopped(folder: Path, name: str) -> None:
    """Leave word that a person stopped the name, for who starts it or waits to: the lock's file is new in time."""
    _lock_path(folder, name, PROMOTION_LOCK).touch()


def stopped_at(folder: Path, name: str) -> int:
    """When the name was stopped last, or else first asked about here, in ns since 1970."""
    path = _lock_path(folder, name, PROMOTION_LOCK)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.open("a").close()  # not `touch`: somebody else may make it just now
    return path.stat().st_mtime_ns


def being_promoted(folder: Path, name: str) -> bool:
    """Whether somebody who lives is moving the name, so that `NAME.next` is no leftover."""
    with _lock_path(folder, name, PROMOTION_LOCK).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _held(folder: Path, name: str, kind: str, wait_s: float) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    with _lock_path(folder, name, kind).open("a") as stream:
        until = time.monotonic() + wait_s
        while not (ours := _lock(stream)) and time.monotonic() < until:
            time.sleep(LOCK_POLL_S)
        yield ours


def _lock(stream: TextIO) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _lock_path(folder: Path, name: str, kind: str) -> Path:
    return folder / f".{name.partition('.')[0]}{kind}"
