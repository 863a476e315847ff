"""One pod: its network, its one container's runs as processes of this machine, its probes, and its status.

It does as the kubelet does, with shorter pauses: a failed pull and a missing Secret are tried again and again, a
container that ended is started again, at once the first time, then later and later (CrashLoopBackOff).
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.kubernetes import network
from tests.kubernetes.api import Api

BACKOFF_S, RETRY_S = 1.0, 0.5  # the kubelet's: 10 s and more
Status = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Pod:
    """A pod of the API server, from its binding to a node to its end; `images` holds what each image name brings."""

    def __init__(self, api: Api, manifest: dict[str, Any], number: int, folder: Path, images: dict[str, dict]) -> None:
        self.api, self.manifest, self.images = api, manifest, images
        head = manifest["metadata"]
        self.name = head["name"]
        self.path = f"/api/v1/namespaces/{head['namespace']}/pods/{head['name']}"
        self.spec = manifest["spec"]
        self.container = self.spec["containers"][0]
        self.number = number
        self.log = folder / f"{head['name']}.log"
        self.ending = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts, self.last, self.address = 0, {}, ""
        self.started_at = now()
        self.thread = threading.Thread(target=self._run, daemon=True, name=self.name)

    def _run(self) -> None:
        name, self.address = network.join(self.number)
        self.network = name
        try:
            while not self.ending.is_set():
                if waiting := self._hindrance():
                    self._report({"waiting": waiting})
                    self.ending.wait(RETRY_S)
                else:
                    self._run_once()
        finally:
            self._end()
            network.leave(name)
            self.api.delete(self.path, gracePeriodSeconds=0, preconditions={"uid": self.manifest["metadata"]["uid"]})

    def _hindrance(self) -> Status | None:
        """Why the container cannot be made now."""
        image = self.container["image"]
        if image not in self.images:
            pulled = self.last.setdefault("pull", 0)
            self.last["pull"] = pulled + 1
            if pulled:
                return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            return {"reason": "ErrImagePull", "message": f'failed to resolve reference "{image}": not found'}
        self.last.pop("pull", None)
        try:
            self.environment = self._environment()
        except LookupError as error:
            return {"reason": "CreateContainerConfigError", "message": str(error.args[0])}
        return None

    def _environment(self) -> dict[str, str]:
        """What the container sees: its image's variables and its own, those from Secrets too."""
        found = dict(self.images[self.container["image"]]["env"])
        for one in self.container.get("env", []):
            reference = one.get("valueFrom", {}).get("secretKeyRef")
            if not reference:
                found[one["name"]] = one.get("value", "")
                continue
            secret = self.api.get(self.path.partition("/pods/")[0] + f"/secrets/{reference['name']}")
            if secret is None:
                raise LookupError(f'secret "{reference["name"]}" not found')
            found[one["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return found

    def _run_once(self) -> None:
        """One run of the container, to its end."""
        if self.log.exists():
            self.log.replace(self.previous_log)
        command = self.container.get("command") or self.images[self.container["image"]]["command"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                network.inside(self.network, command),
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd="/",
                start_new_session=True,
            )
        begun = now()
        self._watch_over(begun)
        if self.ending.is_set():
            return
        code = self.process.wait()
        self._kill_group()
        self.last = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Error" if code else "Completed",
            "startedAt": begun,
            "finishedAt": now(),
        }
        self._report({"terminated": self.last})
        if self.restarts:
            waiting = {"reason": "CrashLoopBackOff", "message": f"back-off restarting failed container {self.name}"}
            self._report({"waiting": waiting})
            self.ending.wait(BACKOFF_S * 2**self.restarts)
        self.restarts += 1

    @property
    def previous_log(self) -> Path:
        return self.log.with_suffix(".previous")

    def _watch_over(self, begun: str) -> None:
        """Probe the container until it ends or fails its startup or liveness probe."""
        running = {"running": {"startedAt": begun}}
        startup, ready, live = (Probe(self, f"{one}Probe") for one in ("startup", "readiness", "liveness"))
        self._report(running)
        is_ready = False
        while self.process.poll() is None and not self.ending.is_set():
            if not startup.good:
                if startup.due() and not startup.ask() and startup.exhausted:
                    break
            else:
                if ready.due() and (now_ready := ready.ask() or (is_ready and not ready.exhausted)) != is_ready:
                    is_ready = now_ready
                    self._report(running, ready=is_ready)
                if live.due() and not live.ask() and live.exhausted:
                    break
            self.ending.wait(0.1)
        else:
            return
        self._stop(self.spec["terminationGracePeriodSeconds"])

    def _end(self) -> None:
        """As a deleted pod ends: not ready any more, its preStop hook, TERM, its grace, KILL."""
        if self.process is None or self.process.poll() is not None:
            return self._kill_group()
        grace = self.spec["terminationGracePeriodSeconds"]
        began = time.monotonic()
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook:
            subprocess.run(network.inside(self.network, hook), timeout=grace, check=False, env=self.environment)
        self._stop(grace - (time.monotonic() - began))
        return None

    def _stop(self, grace_s: float) -> None:
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(grace_s, 0.1))
        self._kill_group()

    def _kill_group(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _report(self, state: Status, ready: bool = False) -> None:
        """Tell the API server, as the kubelet would."""
        container: Status = {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "",
            "ready": ready,
            "restartCount": self.restarts,
            "state": {kind: state.get(kind) for kind in ("waiting", "running", "terminated")},
        }
        if "exitCode" in self.last and "terminated" not in state:
            container["lastState"] = {"terminated": self.last}
        told = "True" if ready else "False"
        conditions = [{"type": kind, "status": told} for kind in ("Ready", "ContainersReady")]
        conditions += [{"type": kind, "status": "True"} for kind in ("Initialized", "PodScheduled")]
        status = {
            "phase": "Running" if "waiting" not in state or self.restarts else "Pending",
            "conditions": conditions,
            "hostIP": network.HOST,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self.started_at,
            "containerStatuses": [container],
        }
        self.api.patch(f"{self.path}/status", {"status": status})


class Probe:
    """One probe of a container; good as long as it has not failed `failureThreshold` times in a row."""

    def __init__(self, pod: Pod, name: str) -> None:
        self.pod, self.what = pod, pod.container.get(name)
        self.good = self.what is None
        self.failures, self.next = 0, 0.0

    @property
    def exhausted(self) -> bool:
        return self.failures >= self.what["failureThreshold"]

    def due(self) -> bool:
        return self.what is not None and time.monotonic() >= self.next

    def ask(self) -> bool:
        self.next = time.monotonic() + self.what["periodSeconds"]
        good = self._answers()
        self.failures = 0 if good else self.failures + 1
        self.good = self.good or good
        return good

    def _answers(self) -> bool:
        timeout = self.what["timeoutSeconds"]
        try:
            if asked := self.what.get("httpGet"):
                url = f"http://{self.pod.address}:{asked['port']}{asked['path']}"
                return 200 <= httpx.get(url, timeout=timeout, trust_env=False).status_code < 400
            socket.create_connection((self.pod.address, self.what["tcpSocket"]["port"]), timeout).close()
        except (httpx.HTTPError, OSError):
            return False
        return True
