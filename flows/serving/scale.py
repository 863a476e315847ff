"""More or fewer replicas of an endpoint, where its runtime has any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from flows.errors import ServingError
from flows.progress import Progress, silent
from flows.serving import records, revisions, start
from flows.serving import replicas as replica_servers
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ClusterRecord, Endpoint
from flows.serving.front import lifecycle
from flows.serving.replicas import Replicas
from flows.serving.runtimes import kubernetes
from flows.serving.state import State

# What a runtime does to have so many replicas: given the endpoint, its settings and the number, the settings from now
# on. The servers of this machine are started and ended after that, one with a URL only has one replica.
Scaler = Callable[[Endpoint, ServeConfig, int], ServeConfig]


def scale(
    name: str, replicas: int, endpoints_dir: Path, progress: Progress = silent
) -> tuple[Endpoint, Replicas | None]:
    """Have that many replicas of an endpoint from now on, after a restart or a roll-back to this revision too.

    The endpoint serves meanwhile with what it has. Replicas on this machine are awaited, pods of a cluster are not.

    Returns:
        The endpoint as it is recorded now, and how many servers of this machine answer (None: pods).

    Raises:
        ServingError: no such endpoint, it does not run or is being promoted, its runtime has no replicas or not so
            many, or an autoscaler has them.
    """
    if replicas < 1:
        raise ServingError(f"{replicas} replicas serve nobody: give 1 or more, or stop the endpoint.")
    with records.promoting(endpoints_dir, name, wait_s=0) as nobody:
        if not nobody:
            raise ServingError(f"{name} is being moved to another model. Scale it when that is over.")
        with records.starting(endpoints_dir, name):
            new, config, folder = _order(name, replicas, endpoints_dir)
        if not new.front:
            return new, None
        budget_s = start.startup_budget_s(config, folder)
        return new, replica_servers.bring_up(new, endpoints_dir, budget_s, progress)


def _order(name: str, replicas: int, endpoints_dir: Path) -> tuple[Endpoint, ServeConfig, Path]:
    """Write down how many are wanted; the endpoint as recorded from now on, its settings and its model folder."""
    endpoint = records.load(endpoints_dir, name)
    if endpoint is None:
        raise records.unknown(endpoints_dir, name)
    if endpoint.state in (State.STOPPED, State.DRAINING):
        raise ServingError(f"{name} is {endpoint.state.value}. Serve it again with serve-variant.")
    scaler = SCALERS.get(endpoint.runtime)
    if scaler is None:
        raise ServingError(
            f"{name} is a {endpoint.process.words}, which somebody else runs: its replicas are theirs to scale."
        )
    former = revisions.load(endpoints_dir, name, endpoint.revision)
    config = scaler(endpoint, former.config, replicas)
    revisions.amend(endpoints_dir, name, former.number, config)
    settings = start.settings_digest(config, Path(former.model_dir))
    front = lifecycle.ensure(config, endpoints_dir) if endpoint.front else None
    new = endpoint.model_copy(update={"settings": settings, "front": front})
    records.save(endpoints_dir, new)
    return new, config, Path(former.model_dir)


def _in_cluster(endpoint: Endpoint, config: ServeConfig, replicas: int) -> ServeConfig:
    options = config.kubernetes
    if options.autoscaling != "none":
        raise ServingError(
            f"{endpoint.name} is scaled by {options.autoscaling} between {options.min_replicas} and "
            f"{options.max_replicas} replicas, which would undo it. Serve it with other serve.kubernetes.min_replicas "
            "and max_replicas."
        )
    assert isinstance(endpoint.process, ClusterRecord)
    wanted = _with_replicas(config, "kubernetes", replicas)
    kubernetes.scale(endpoint.process, replicas)
    return wanted


def _behind_front(endpoint: Endpoint, config: ServeConfig, replicas: int) -> ServeConfig:
    if endpoint.front is None:
        raise ServingError(
            f"{endpoint.name} runs as a {endpoint.process.words}: one server, one replica. Several replicas on one "
            "machine need the front, which shares the requests between them: serve it again with serve.front.enabled. "
            "A cluster has them by itself (serve.runtime kubernetes)."
        )
    config = _with_replicas(config, "front", replicas)
    if found := start.problems(config):
        raise ServingError("\n".join(found))
    return config


def _with_replicas(config: ServeConfig, section: str, replicas: int) -> ServeConfig:
    """The settings with that number in that section; a copy would take any, and could not be read again."""
    options = getattr(config, section)
    try:
        options = type(options).model_validate(options.model_dump() | {"replicas": replicas})
    except ValidationError as error:
        raise ServingError(f"serve.{section}.replicas: {replicas}. {error.errors()[0]['msg']}.") from error
    return config.model_copy(update={section: options})


SCALERS: dict[str, Scaler] = {"kubernetes": _in_cluster, "process": _behind_front, "docker": _behind_front}
