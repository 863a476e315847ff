"""One worker at a time for one key, on one machine; the kernel frees the lock when the holder dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(
    path: Path, waiting: Callable[[], None], poll_s: float = 1.0, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock file at `path`; calls `waiting` once if another process has it.

    Between its looks it calls `pause` with `poll_s` seconds; what that raises ends the waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                pause(poll_s)
        yield


@contextmanager
def unless_held(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` if nobody else has it; whether that is so. It waits for nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` for a moment; who else wants it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
