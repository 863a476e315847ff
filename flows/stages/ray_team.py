"""The process that leads a team of several machines: starts its members by Ray Train, in a cluster that is there."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.errors import ConfigError, FinetuneError
from flows.stages.child import die_with_parent
from flows.stages.team_child import member, tell_result
from flows.store.files import write_json

ADDRESS = "RAY_ADDRESS"
JOINING_S = 60.0
ROOT = Path(__file__).parents[2]


def main(request_file: Path) -> int:
    """0 when all members have done their part; else the result file has the error, unless one was killed."""
    request = json.loads(request_file.read_text("utf-8"))
    die_with_parent(request["parent"])
    result = Path(request["result"])
    try:
        done = _train(request)
    except FinetuneError as error:
        write_json(result, {"error": {"message": str(error), "retryable": error.retryable}})
        return 1
    return tell_result(result, done)


def _train(request: dict[str, Any]) -> bool:
    """Whether all members ended well.

    Raises:
        ConfigError: no Ray, no cluster, or too small a one.
    """
    if not os.environ.get(ADDRESS):
        raise ConfigError(
            f"nodes: several machines need a Ray cluster, and {ADDRESS} is not set. Put {ADDRESS}=host:6379 into the "
            "env of the stage's resources, or take one machine."
        )
    try:
        import ray
        import ray.train.torch
    except ImportError as error:
        raise ConfigError(
            "nodes: Ray is not installed here. pip install 'prefect-finetune[ray]', or take one machine."
        ) from error
    try:
        # PYTHONPATH: the members import this very code, in the same place on each machine.
        ray.init(address=os.environ[ADDRESS], runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    except ConnectionError as error:
        raise ConfigError(f"nodes: no Ray cluster answers at {ADDRESS}={os.environ[ADDRESS]}.") from error
    _wait_for_nodes(ray.nodes, request["team"]["nodes"])
    trainer = _trainer(request)
    with contextlib.suppress(Exception):  # what went wrong is in the members' files, or one was killed
        trainer.fit()
        return True
    return False


def _trainer(request: dict[str, Any]) -> Any:
    """What starts the members, as many as the request says, each with a GPU or a core of its own."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    nodes, processes = request["team"]["nodes"], request["team"]["processes"]
    gpus = (request.get("measured") or {}).get("gpus", 0)
    per_member: dict[str, float] = {"GPU": 1.0} if gpus else {"CPU": 1.0}
    return TorchTrainer(
        _part(request, {name: os.environ[name] for name in request["variables"]}),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=nodes * processes,
            use_gpu=bool(gpus),
            resources_per_worker=per_member,
            placement_strategy="STRICT_SPREAD" if processes == 1 else "SPREAD",
        ),
        run_config=RunConfig(
            storage_path=str(Path(request["workdir"]) / "ray"), failure_config=FailureConfig(max_failures=0)
        ),
    )


def _wait_for_nodes(known: Callable[[], list[dict[str, Any]]], wanted: int, seconds: float = JOINING_S) -> None:
    """Machines of a cluster that has just been started join one after another."""
    deadline = time.monotonic() + seconds
    while (alive := sum(bool(node["Alive"]) for node in known())) < wanted:
        if time.monotonic() > deadline:
            where = f"the Ray cluster at {os.environ[ADDRESS]}"
            raise ConfigError(f"nodes: {wanted} machines asked for, {where} has {alive}.")
        time.sleep(1)


def _part(request: dict[str, Any], environment: dict[str, str]) -> Callable[[], None]:
    """What each member does, in a process that Ray has started and given its place in the team.

    The environment, whose values may be secrets, travels in the function itself, from process to process: a
    `train_loop_config` is kept and shown by Ray where RAY_TRAIN_ENABLE_STATE_TRACKING is set.
    """

    def part() -> None:
        os.environ.update(environment)
        if not member(request):
            raise RuntimeError("This member's part failed; its error is told in its file.")

    return part


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
