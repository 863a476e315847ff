"""What keeps a server in a cluster from serving, in one line: what the cluster says in, a diagnosis out; no requests.

Deployment or InferenceService or NIMService
+- pods: scheduled? image? started? ended, with which exit code?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun")
OUT_OF_MEMORY = 137


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong. `lasting`: it does not pass by itself, so that there is nothing to wait for."""

    reason: str
    words: str
    lasting: bool

    @property
    def line(self) -> str:
        """As a line of the log, by which its cause is told."""
        return f"kubernetes: {self.reason}: {self.words}"


def diagnose(owner: dict[str, Any], pods: list[dict[str, Any]]) -> Diagnosis | None:
    """What is wrong with what `owner` runs; None if nothing is, a pod serves, or it is only not ready yet."""
    if any(is_ready(pod) for pod in pods):
        return None
    rolled_out = _condition(owner, "Progressing").get("reason") == "NewReplicaSetAvailable"
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        if found := _of_pod(pod, rolled_out):
            return found
    return _of_owner(owner)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the pod serves."""
    return _condition(pod, "Ready").get("status") == "True"


def exit_code(pods: list[dict[str, Any]]) -> int | None:
    """The exit code of the container that ended last; 137 if it ran out of memory; None if none ended."""
    ends = [end for pod in pods for container in _containers(pod) if (end := _end(container))]
    if not ends:
        return None
    last = max(ends, key=lambda end: str(end.get("finishedAt") or ""))
    return OUT_OF_MEMORY if last.get("reason") == "OOMKilled" else int(last.get("exitCode", 0))


def restarts(pod: dict[str, Any]) -> int:
    """How often its containers were started again."""
    return sum(container.get("restartCount", 0) for container in _containers(pod))


def _of_pod(pod: dict[str, Any], rolled_out: bool) -> Diagnosis | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        reason = scheduled.get("reason") or "Unschedulable"
        return Diagnosis(reason, scheduled.get("message") or "no node has room for it", lasting=False)
    for container in _containers(pod):
        if found := _of_container(container, rolled_out):
            return found
    status = pod.get("status", {})
    if status.get("phase") == "Failed":  # evicted, or its node is gone: it is replaced by another
        return Diagnosis(status.get("reason") or "Failed", status.get("message") or "the pod failed", lasting=False)
    return None


def _of_container(container: dict[str, Any], rolled_out: bool) -> Diagnosis | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE:
        lasting = reason != "ErrImagePull"  # the first try may fail for a moment's reason
        return Diagnosis(reason, message or f"the image {container.get('image')} cannot be pulled", lasting)
    if reason in CONFIG:
        return Diagnosis(reason, message or "the container cannot be made", lasting=True)
    end, count = _end(container), container.get("restartCount", 0)
    if not end:
        return None
    # Once it has served, the cluster starts it again by itself, and only a loop of that is a failure.
    lasting = reason == "CrashLoopBackOff" or (count > 0 and not rolled_out)
    if end.get("reason") == "OOMKilled":
        return Diagnosis("OOMKilled", "it used more memory than serve.kubernetes.memory_gib allows", lasting)
    times = f"{max(count, 1)} time{'s' if count > 1 else ''}"
    words = f"it ended {times}, the last time with exit code {end.get('exitCode')}"
    if end.get("message"):
        words += f" ({' '.join(end['message'].split())[:200]})"
    return Diagnosis(reason if reason == "CrashLoopBackOff" else "Error", words, lasting)


def _of_owner(owner: dict[str, Any]) -> Diagnosis | None:
    failure = _condition(owner, "ReplicaFailure")
    if failure.get("status") == "True":
        return Diagnosis(failure.get("reason") or "FailedCreate", failure.get("message") or "no pod", lasting=True)
    progress = _condition(owner, "Progressing")
    if progress.get("status") == "False":
        return Diagnosis(progress.get("reason") or "Stuck", progress.get("message") or "no progress", lasting=True)
    failed = _condition(owner, "Failed")
    if failed.get("status") == "True" or owner.get("status", {}).get("state") == "Failed":
        return Diagnosis("Failed", failed.get("message") or "its operator gave it up", lasting=True)
    ready = _condition(owner, "Ready")
    if ready.get("status") == "False" and ready.get("message"):
        return Diagnosis(ready.get("reason") or "NotReady", ready["message"], lasting=False)
    return None


def _containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _end(container: dict[str, Any]) -> dict[str, Any]:
    """How its latest run that is over ended; empty if none is over."""
    now, before = container.get("state", {}), container.get("lastState", {})
    end: dict[str, Any] = now.get("terminated") or before.get("terminated") or {}
    return end


def _condition(thing: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = thing.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), {})
