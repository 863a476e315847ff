"""A Prefect of the kill tests' own, with short windows and a pretended card, and the ways in which its parts die."""

import contextlib
import os
import signal
import subprocess
import sys

import psutil

from deployments.local import CHECKOUT, Local
from tests.end_to_end.conftest import Prefect
from tests.end_to_end.test_runs import wait_for

QUIET_S = 20  # a worker reports a death a second time after some 11 s
PENDING_AFTER_S = 60
DEAD_AFTER_S = 150  # longer than any outage of the server here
SOON_DEAD_AFTER_S = 40  # where the server is not away for long: one heartbeat, 30 s, and some


class Machine(Local):
    """What one machine would run: server, worker, runs. Everything of it has its store in the environment."""

    def own_environment(self, port):
        card = {"FINETUNE_GPUS": "1", "FINETUNE_LEASES": str(self.folder / "leases")}
        return super().own_environment(port) | card

    def processes(self):
        """All of it that runs."""
        return [one for one in psutil.process_iter() if self._is_ours(one)]

    def _is_ours(self, one):
        with contextlib.suppress(psutil.Error):
            ours = one.environ().get("FINETUNE_STORE") == str(self.store)
            return ours and one.pid != os.getpid() and one.status() != psutil.STATUS_ZOMBIE
        return False

    def session(self, part):
        """The processes of server or worker; a run has a session of its own."""
        return [one for one in self.processes() if _session(one) == part.pid]

    def work(self):
        """What runs for runs: flow-run processes and their children."""
        found = self.record()
        services = {part.pid for part in (found.server, found.worker) if part} | {0}
        return [one for one in self.processes() if _session(one) not in services]


def _session(one):
    try:
        return os.getsid(one.pid)
    except ProcessLookupError:
        return 0


class Killing(Prefect):
    """The Prefect of a `Machine`, and who of it can be killed: `child`, `flow`, `worker`, `server`, `power`."""

    def targets(self, what):
        """The processes to kill; none if it is not there at this moment."""
        if what == "child":
            return [one for one in self.local.work() if self._says(one, str(self.local.store / "work" / "finetune-"))]
        if what == "flow":
            return [one for one in self.local.work() if self._says(one, "flows.engine")]
        if what == "power":
            return self.local.processes()
        return self.local.session(getattr(self.local.record(), what))

    @staticmethod
    def _says(one, words):
        with contextlib.suppress(psutil.Error):
            return words in " ".join(one.cmdline())
        return False

    def kill(self, what):
        """Kill -9 of all of it in one moment, so that nobody sees another die; whether there was anything."""
        found = self.targets(what)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for one in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, number)
        wait_for(lambda: not any(map(_runs, found)), 30)
        return bool(found)

    def cancel(self, run_id):
        """As the button in the UI does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.ask("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True})
        return True

    def windows(self, dead_after_s=DEAD_AFTER_S):
        """Apply the automations with windows that a test can wait for."""
        seconds = {"dead-after-s": dead_after_s, "quiet-s": QUIET_S, "pending-after-s": PENDING_AFTER_S}
        words = [word for name, value in seconds.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "deployments.automations", *words]
        subprocess.run(command, cwd=CHECKOUT, env=self.local.environment(self.port), check=True, capture_output=True)

    def drop(self):
        """Cancel all that is under way or may be started again."""
        unsure = ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING", "CRASHED"]
        body = {"flow_runs": {"state": {"type": {"any_": unsure}}}}
        for run in self.ask("POST", "/flow_runs/filter", json=body):
            state = {"type": "CANCELLED", "name": "Cancelled"}
            self.ask("POST", f"/flow_runs/{run['id']}/set_state", json={"state": state, "force": True})

    def run_again(self, run_id):
        """The one documented re-run."""
        self.local.prefect(self.port, "flow-run", "retry", run_id)


def _runs(one):
    with contextlib.suppress(psutil.NoSuchProcess):
        return one.status() != psutil.STATUS_ZOMBIE
    return False
