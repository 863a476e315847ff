"""Every start has a log of its own; of those of a name the newest are kept, so that a folder does not fill for ever."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flows.serving import records
from flows.serving.runtimes.process import LOG_NAME

KEPT = 20


def forget_old_logs(endpoints_dir: Path, name: str) -> None:
    """Delete the logs of a name's former starts, so that with the one that is about to begin there are `KEPT`.

    Those that a record of the name names stay too: their servers may still write.
    """
    found = [log for log in (endpoints_dir / "logs").glob(f"{name}-*.log") if _is_of(log, name)]
    old = sorted(found)[: -(KEPT - 1)]
    if not old:
        return
    beside = (name, name + records.NEXT, name + records.PREVIOUS)
    named = {endpoint.log for one in beside if (endpoint := records.readable(endpoints_dir, one))}
    for log in old:
        if str(log) not in named:
            with contextlib.suppress(OSError):
                log.unlink()


def _is_of(log: Path, name: str) -> bool:
    match = LOG_NAME.match(log.name)
    return match is not None and match[1] == name
