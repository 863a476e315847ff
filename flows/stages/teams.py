"""The process that leads a team on this machine: starts its members by torchrun, ends with them, tells their error."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from flows.stages.child import die_with_parent
from flows.stages.team_child import LEADER, tell_result

MEMBER = "flows.stages.team_child"


def main(request_file: Path) -> int:
    """0 when all members have done their part; else the result file has the error, unless one was killed."""
    request = json.loads(request_file.read_text("utf-8"))
    die_with_parent(request["parent"])
    os.environ[LEADER] = str(os.getpid())
    count = request["team"]["processes"]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    done, killed = _torchrun(
        [f"--nproc-per-node={count}", "--standalone", "--max-restarts=0", "-m", MEMBER, str(request_file)]
    )
    return tell_result(Path(request["result"]), done, killed)


def _torchrun(arguments: list[str]) -> tuple[bool, bool]:
    """Whether all members ended well, and whether one was killed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    run: Any = torchrun
    try:
        run(arguments)
    except ChildFailedError as error:
        return False, any(one.exitcode == -signal.SIGKILL for one in error.failures.values())
    except SignalException:  # the run is ending us
        return False, True
    return True, False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
