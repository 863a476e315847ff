"""More or fewer replicas of an endpoint, where its runtime has any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.errors import ServingError
from flows.serving import records, revisions, start
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ClusterRecord, Endpoint
from flows.serving.runtimes import kubernetes
from flows.serving.state import State

# What a runtime does to have so many replicas: given the endpoint, its settings and the number, the settings from now
# on. A runtime without an entry has one replica.
Scaler = Callable[[Endpoint, ServeConfig, int], ServeConfig]


def scale(name: str, replicas: int, endpoints_dir: Path) -> Endpoint:
    """Have that many replicas of an endpoint from now on, after a restart or a roll-back to this revision too.

    It does not wait for them: the endpoint serves meanwhile with what it has.

    Returns:
        The endpoint as it is recorded now.

    Raises:
        ServingError: no such endpoint, it does not run, its runtime has no replicas, or an autoscaler has them.
    """
    if replicas < 1:
        raise ServingError(f"{replicas} replicas serve nobody: give 1 or more, or stop the endpoint.")
    with records.starting(endpoints_dir, name):
        endpoint = records.load(endpoints_dir, name)
        if endpoint is None:
            raise records.unknown(endpoints_dir, name)
        if endpoint.state in (State.STOPPED, State.DRAINING):
            raise ServingError(f"{name} is {endpoint.state.value}. Serve it again with serve-variant.")
        scaler = SCALERS.get(endpoint.runtime)
        if scaler is None:
            raise ServingError(
                f"{name} runs as a {endpoint.process.words}: one server, one replica. Several replicas on one machine "
                "need the front, which shares the requests between them; a cluster has them by itself (serve.runtime "
                "kubernetes)."
            )
        former = revisions.load(endpoints_dir, name, endpoint.revision)
        config = scaler(endpoint, former.config, replicas)
        revisions.amend(endpoints_dir, name, former.number, config)
        settings = start.settings_digest(config, Path(former.model_dir))
        new = endpoint.model_copy(update={"settings": settings})
        records.save(endpoints_dir, new)
        return new


def _in_cluster(endpoint: Endpoint, config: ServeConfig, replicas: int) -> ServeConfig:
    options = config.kubernetes
    if options.autoscaling != "none":
        raise ServingError(
            f"{endpoint.name} is scaled by {options.autoscaling} between {options.min_replicas} and "
            f"{options.max_replicas} replicas, which would undo it. Serve it with other serve.kubernetes.min_replicas "
            "and max_replicas."
        )
    assert isinstance(endpoint.process, ClusterRecord)
    kubernetes.scale(endpoint.process, replicas)
    return config.model_copy(update={"kubernetes": options.model_copy(update={"replicas": replicas})})


SCALERS: dict[str, Scaler] = {"kubernetes": _in_cluster}
