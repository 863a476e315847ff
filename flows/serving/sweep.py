"""End what runs without a record: what a start left behind that was killed before it could write one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from flows.errors import ServingError
from flows.serving import records
from flows.serving.front import folder as fronts
from flows.serving.registry import RUNTIMES, Runtime
from flows.serving.state import State

logger = logging.getLogger(__name__)


def end_orphans(endpoints_dir: Path) -> list[str]:
    """End processes and containers of this folder's endpoints that no record of what serves names; their words.

    A name that is being started is left alone, since its record is about to be written, and so is one whose record is
    damaged. What cannot be ended is logged, and tried again at the next call. Costs one look at /proc, and one request
    to every engine that ever held a container of this folder.
    """
    # Every start has a log of its own, so that tells whose record it is.
    found = [records.readable(endpoints_dir, name) for name in records.names(endpoints_dir)]
    known = {one.log for one in found if one and one.state is not State.STOPPED}
    known |= fronts.logs(endpoints_dir)
    ended = []
    for kind, runtime in RUNTIMES.items():
        try:
            owned = runtime.list_owned(endpoints_dir)
        except (ServingError, OSError) as error:
            logger.error("What runs on %s is not known: %s", kind, error)
            continue
        for name, server in owned:
            if server.log not in known and _end(endpoints_dir, runtime, name, server):
                ended.append(f"{server.words} of {name}")
    return ended


def _end(folder: Path, runtime: Runtime[Any], name: str, server: Any) -> bool:
    """Whether it was an orphan and has been ended."""
    if name.endswith(fronts.LOG_SUFFIX):
        return _end_front(folder, runtime, name.removesuffix(fronts.LOG_SUFFIX), server)
    try:
        with records.starting(folder, name, wait_s=0) as free:
            if not free or server.log in _logs(folder, name):
                return False
            runtime.stop(server, 0)
            return True
    except (ServingError, OSError) as error:
        logger.error("%s of %s: %s", server.words.capitalize(), name, error)
        return False


def _end_front(folder: Path, runtime: Runtime[Any], name: str, front: Any) -> bool:
    """The same for a front, which changes under a lock of its own."""
    try:
        with fronts.held(fronts.place(folder, name), wait=False) as free:
            if not free or front.log in fronts.logs(folder):
                return False
            runtime.stop(front, 0)
            return True
    except (ServingError, OSError) as error:
        logger.error("The front of %s, %s: %s", name, front.words, error)
        return False


def _logs(folder: Path, name: str) -> set[str]:
    """Logs of the servers that are recorded as not stopped under the name, beside it (`.next`, `.previous`) included.

    Raises:
        ServingError: one of the records is damaged, so nobody knows which server it means.
    """
    beside = [one for one in records.names(folder) if one.partition(".")[0] == name]
    found = [records.load(folder, one) for one in beside]
    return {one.log for one in found if one and one.state is not State.STOPPED}
