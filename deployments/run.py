"""Run a deployment and say how it ended: `python -m deployments.run FLOW/DEPLOYMENT [-p key=value ...]`.

As `prefect deployment run --watch`, whose options it takes, but what it prints is the message that the run ended with,
which `--watch` leaves out, and no events.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

POLL_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """0 if the run completed, else 1."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", *arguments]
    started = subprocess.run(command, capture_output=True, text=True)
    print(started.stdout + started.stderr, end="")
    found = re.search(r"UUID: ([0-9a-f-]{36})", started.stdout)
    if started.returncode != 0 or found is None:
        return 1
    run = _wait(UUID(found[1]))
    state = run.state
    assert state is not None
    print(f"{state.name} after {run.total_run_time.total_seconds():.0f} s. {state.message or ''}")
    return 0 if state.is_completed() else 1


def _wait(run_id: UUID) -> FlowRun:
    """The run once it has ended; what it does meanwhile is told when it changes."""
    told = ""
    with get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(run_id)
            if run.state is not None and run.state.is_final():
                return run
            if run.state is not None and run.state.name != told:
                told = run.state.name or ""
                print(f"{told} …", flush=True)
            time.sleep(POLL_S)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Not waited for any longer; the run goes on.")
