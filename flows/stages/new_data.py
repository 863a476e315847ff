"""New data as Prefect hears of it: the event `data.changed`, and a run of the deployment that uses the data."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound

from flows.errors import ConfigError
from flows.new_data.change import MOST_NAMED, Change, Watched, watch_name

LIMIT = "concurrency limit"  # in Prefect's message where a deployment's `concurrency_limit` cancels what is new


def parameters_of(deployment: str) -> dict[str, Any]:
    """The parameters that `flow/deployment` has.

    Raises:
        ConfigError: there is no such deployment, or it is a watcher itself.
    """
    if deployment.startswith("watch-data/"):
        raise ConfigError(f"deployment: {deployment} only watches. Name what is to be started when the data changes.")
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(deployment).parameters
        except (ObjectNotFound, ValueError):
            raise ConfigError(
                f"deployment: there is no deployment '{deployment}'. It is FLOW/NAME, as `prefect deployment ls` "
                "shows it."
            ) from None


def turned_away(watched: Watched) -> bool:
    """Whether the run of the last state was never begun, since another run of the deployment was under way."""
    if not watched.run_id:
        return False
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(watched.run_id))
        except ObjectNotFound:
            return False
    state = run.state
    return bool(state and state.is_cancelled() and not run.run_count and LIMIT in (state.message or ""))


def start(watched: Watched, change: Change) -> Watched:
    """Start a run of the deployment for this state of the data, once: asked again for the same it is the same run."""
    name, number = watch_name(watched.deployment, watched.places), watched.number + 1
    key = f"data-{name}-{number}-{change.digest[:32]}"
    run: Any = run_deployment(watched.deployment, timeout=0, idempotency_key=key, as_subflow=False)
    return Watched(
        deployment=watched.deployment,
        places=watched.places,
        number=number,
        digest=change.digest,
        files=change.files,
        run_id=str(run.id),
        run_name=run.name,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def emit(watched: Watched, change: Change) -> None:
    """Send the event `data.changed`, to which automations of your own can be attached."""
    emit_event(
        "data.changed",
        resource={
            "prefect.resource.id": f"prefect-finetune.data.{watch_name(watched.deployment, watched.places)}",
            "prefect.resource.name": watched.deployment,
        },
        related=[
            {"prefect.resource.id": f"prefect.flow-run.{watched.run_id}", "prefect.resource.role": "flow-run"},
        ],
        payload={
            "places": watched.places,
            "deployment": watched.deployment,
            "run_id": watched.run_id,
            "digest": change.digest,
            "files": len(change.files),
            "words": change.words,
            **{what: getattr(change, what)[:MOST_NAMED] for what in ("added", "changed", "removed")},
        },
    )
