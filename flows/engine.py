"""The process of a flow run: Prefect's engine in a session of its own, which goes on when its worker has died.

    python -m flows.engine

A worker reads what its runs print, and ends those that are cancelled. Of a run that has outlived its worker no other
one knows: such a run prints into nowhere, and looks itself whether it is cancelled.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, TextIO
from uuid import UUID

if TYPE_CHECKING:
    from typing_extensions import Buffer

LOOK_S = 5.0
GRACE_S = 30.0  # as a worker gives
PATIENCE_S = 60.0


def main() -> None:
    """Run the flow run that the environment names, and end as Prefect's engine does."""
    with contextlib.suppress(PermissionError):  # it leads one already
        os.setsid()
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)
    logging.getLogger("prefect.flow_runs").addFilter(_tells_more)
    orphan = Orphan(os.environ.get("PREFECT__FLOW_RUN_ID", ""), os.getppid())
    signal.signal(signal.SIGTERM, orphan.leave)
    threading.Thread(target=orphan.watch, daemon=True).start()
    try:
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
    finally:
        if orphan.cancelled:
            orphan.tell()


class Orphan:
    """A run whose worker may die.

    Attributes:
        cancelled: it was cancelled when there was no worker any more, and is being ended.
    """

    def __init__(self, run_id: str, worker: int) -> None:
        self.run_id = run_id
        self.worker = worker
        self.cancelled = False

    def watch(self) -> None:
        """Wait for the worker's death, then for a cancel; end this process then as a worker does."""
        while os.getppid() == self.worker or not self._is_cancelling():
            time.sleep(LOOK_S)
        from prefect._internal import control_listener

        self.cancelled = True
        # As a worker does, which says so through a socket: else Prefect takes the signal for a crash.
        control_listener._set_intent("cancel")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        try:
            self.tell()
        finally:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def leave(self, number: int, frame: FrameType | None) -> None:
        """For SIGTERM where Prefect does not hear it: end as if this were not here, unless there is an end to tell."""
        if self.cancelled:
            sys.exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def tell(self) -> None:
        """Tell the server that the run has ended: Cancelled. It may be away for a while."""
        import tenacity

        tenacity.Retrying(wait=tenacity.wait_fixed(LOOK_S), stop=tenacity.stop_after_delay(PATIENCE_S))(self._tell)

    def _tell(self) -> None:
        from prefect.client.orchestration import get_client
        from prefect.states import Cancelled

        words = "Flow run was cancelled. Its worker was gone, so it has ended itself."
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(self.run_id), Cancelled(message=words), force=True)

    def _is_cancelling(self) -> bool:
        from prefect.client.orchestration import get_client

        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(UUID(self.run_id)).state
        except Exception:  # of whatever client: the server may be away
            return False
        return state is not None and (state.is_cancelling() or state.is_cancelled())


def _tells_more(record: logging.LogRecord) -> bool:
    """Not of a run that ended as Failed in our words: Prefect has told that, and a traceback of itself adds nothing."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        type(error).__name__ == "FailedRun" and record.msg == "Engine execution exited with unexpected exception"
    )


class _Outliving(io.FileIO):
    """An output whose reader may die: what is written then goes nowhere."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def _outliving(stream: TextIO) -> io.TextIOWrapper:
    raw = _Outliving(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


if __name__ == "__main__":
    main()
