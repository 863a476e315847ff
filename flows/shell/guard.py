"""Runs a command of a stage and, when that is over or the stage itself is gone, kills all that it has started.

Daemons too: what leaves the command's group and session is adopted by us when its parent ends
(PR_SET_CHILD_SUBREAPER in prctl(2)). Called with the command; standard input is a pipe that the stage holds open as
long as the command may run. It ends as the command does, by the same exit code or signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from threading import Thread

import psutil

PR_SET_CHILD_SUBREAPER = 36
LONGEST_S = 5.0  # for the kernel to end what was killed


def main(command: str) -> None:
    """Run it and end as it did."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    # In a group of its own: one that kills its group does not kill us.
    shell = subprocess.Popen(
        ["/bin/bash", "-eu", "-o", "pipefail", "-c", command], stdin=subprocess.DEVNULL, process_group=0
    )
    Thread(target=_end_with_the_stage, daemon=True).start()
    code = shell.wait()
    _kill_all()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)  # the thread still reads


def _end_with_the_stage() -> None:
    sys.stdin.buffer.read()
    _kill_all()


def _kill_all() -> None:
    """All that descends from us; again while there is something, as it may have started more meanwhile."""
    deadline = time.monotonic() + LONGEST_S
    while (found := _living()) and time.monotonic() < deadline:
        for one in found:
            with contextlib.suppress(psutil.Error):
                one.kill()
        time.sleep(0.01)


def _living() -> list[psutil.Process]:
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
