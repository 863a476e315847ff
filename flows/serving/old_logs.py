"""Every start has a log of its own; of those of a name the newest are kept, so that a folder does not fill for ever."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flows.errors import ServingError
from flows.serving import records
from flows.serving.runtimes.process import LOG_NAME

KEPT = 20


def forget_old_logs(endpoints_dir: Path, name: str) -> None:
    """Delete the logs of a name's former starts, so that with the one that is about to begin there are `KEPT`.

    Those that a record of the name or of a replica names stay too: their servers may still write. While one of these
    records is damaged nothing is deleted.
    """
    found = [log for log in (endpoints_dir / "logs").glob(f"{name}-*.log") if _is_of(log, name)]
    old = sorted(found)[: -(KEPT - 1)]
    if not old:
        return
    ours = [one for one in records.names(endpoints_dir) if one.partition(".")[0] == name]
    try:
        named = {endpoint.log for one in ours if (endpoint := records.load(endpoints_dir, one))}
    except ServingError:
        return
    for log in old:
        if str(log) not in named:
            with contextlib.suppress(OSError):
                log.unlink()


def _is_of(log: Path, name: str) -> bool:
    match = LOG_NAME.match(log.name)
    return match is not None and match[1] == name
