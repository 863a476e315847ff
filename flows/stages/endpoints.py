"""Endpoints as Prefect shows them: a Variable each, events of what happens to them, and one page of all."""

from __future__ import annotations

import datetime
from typing import Any

from prefect.artifacts import Artifact, create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.events import emit_event
from prefect.states import Failed, State
from prefect.variables import Variable

from flows.errors import FinetuneError
from flows.reporting.endpoints import Shown, count_line, endpoints_markdown
from flows.serving import history, revisions
from flows.serving.endpoint import Endpoint
from flows.serving.history import Change
from flows.store.layout import Store

PAGE = "endpoints"
EVENTS = ("healthy", "degraded", "unhealthy", "failed", "promoted", "rolled-back")


def variable_name(name: str) -> str:
    """The Prefect Variable that holds where an endpoint is."""
    return f"endpoint_{name.replace('-', '_')}"


def remember(endpoint: Endpoint) -> None:
    """Write name, address, model, revision and the run that served it into the endpoint's Variable."""
    record = endpoint.model_dump(include={"name", "url", "model", "revision", "run_url"})
    Variable.set(variable_name(endpoint.name), record, overwrite=True)


def forget(name: str) -> None:
    """Delete the endpoint's Variable, if it has one."""
    Variable.unset(variable_name(name))


def emit(change: Change, url: str) -> None:
    """Send the change as the event `endpoint.<what>`, unless it is only a step on the way (starting, stopped)."""
    if change.what in EVENTS:
        emit_event(
            f"endpoint.{change.what}",
            resource={
                "prefect.resource.id": f"prefect-finetune.endpoint.{change.name}",
                "prefect.resource.name": change.name,
            },
            occurred=change.at,
            payload={**change.model_dump(mode="json", exclude={"at"}), "url": url},
        )


def show_page(store: Store, endpoints: list[Endpoint], changed: bool) -> str:
    """Bring the artifact `endpoints` up to date; the line that counts them by state.

    Where nothing has changed the newest version is written over, so that a page a minute does not fill the database.
    """
    now = datetime.datetime.now(datetime.UTC)
    folder = store.endpoints
    shown = [
        Shown(one, one.state, one.why, history.load(folder, one.name), revisions.numbers(folder, one.name))
        for one in endpoints
    ]
    line, page = count_line(shown), endpoints_markdown(shown, now)
    newest: Any = None if changed else Artifact.get(PAGE)
    if newest is None:
        create_markdown_artifact(page, key=PAGE, description=line)
    else:
        with get_client(sync_client=True) as client:
            client.update_artifact(newest.id, ArtifactUpdate(data=page, description=line))
    return line


def failed(error: FinetuneError) -> State[Any]:
    """The state of a run that ends with an error for people: its words in message and artifact, without a traceback.

    Prefect logs the message.
    """
    first = str(error).splitlines()[0]
    create_markdown_artifact(f"# Failed\n\n```\n{error}\n```", key="failure", description=first[:200])
    return Failed(message=str(error))
