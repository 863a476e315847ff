"""End what runs without a record: what a start left behind that was killed before it could write one."""

from __future__ import annotations

from pathlib import Path

from flows.serving import records
from flows.serving.registry import RUNTIMES


def end_orphans(endpoints_dir: Path) -> list[str]:
    """End processes and containers of this folder's endpoints that no record names; what was ended, in words.

    A name that is being started is left alone: its record is about to be written.

    Raises:
        ServingError: one could not be ended.
    """
    ended = []
    for runtime in RUNTIMES.values():
        for name, server in runtime.list_owned(endpoints_dir):
            with records.starting(endpoints_dir, name, wait_s=0) as free:
                # Every start has a log of its own, so that tells whose record it is.
                known = {
                    endpoint.log
                    for left in records.names(endpoints_dir)
                    if (endpoint := records.load(endpoints_dir, left))
                }
                if free and server.log not in known:
                    runtime.stop(server, 0)
                    ended.append(f"{server.words} of {name}")
    return ended
