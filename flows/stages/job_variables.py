"""From a stage's resources to the job variables of a work pool, by the pool's type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.stages.resources import StageResources, size_bytes


def job_variables(pool_type: str, wanted: StageResources) -> dict[str, Any]:
    """What the worker is asked for, by its variables; only what the stage says, so that the pool's defaults hold.

    A process has no limits that a worker could set: there the stage itself looks whether the machine has enough, and
    leases its GPUs.
    """
    return OF_POOL.get(pool_type, _nothing)(wanted)


def _nothing(wanted: StageResources) -> dict[str, Any]:
    return {}


def _docker(wanted: StageResources) -> dict[str, Any]:
    """As the base job template in deployments/work-pools/docker.json names them."""
    variables = {
        "image": wanted.image,
        "mem_limit": f"{size_bytes(wanted.memory)}b" if wanted.memory else "",
        "nano_cpus": int(wanted.cpu * 1e9),
        "shm_size": size_bytes(wanted.shm),
        "device_requests": _nvidia(_whole(wanted.gpus)),
    }
    return {name: value for name, value in variables.items() if value}


def _nvidia(gpus: int) -> list[dict[str, Any]]:
    """As `docker run --gpus`; none at all without a GPU, since an engine without NVIDIA's tools refuses even 0."""
    return [{"Driver": "nvidia", "Count": gpus, "Capabilities": [["gpu"]]}] if gpus else []


def _kubernetes(wanted: StageResources) -> dict[str, Any]:
    """As the base job template in deployments/work-pools/kubernetes.json names them; quantities in bytes."""
    variables = {
        "image": wanted.image,
        "cpu": f"{wanted.cpu:g}" if wanted.cpu else "",
        "memory": str(size_bytes(wanted.memory) or ""),
        "shm": str(size_bytes(wanted.shm) or ""),
        "gpus": _whole(wanted.gpus),
    }
    return {name: value for name, value in variables.items() if value}


def _whole(gpus: float) -> int:
    """Engines give whole cards; a share is a whole one of theirs (their own sharing makes one look like many)."""
    return -int(-gpus // 1)


OF_POOL: dict[str, Callable[[StageResources], dict[str, Any]]] = {"docker": _docker, "kubernetes": _kubernetes}
