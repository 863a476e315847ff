"""Endpoints as Prefect shows them: a Variable each, events of what happens to them, and one page of all."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import Artifact, create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.events import emit_event
from prefect.settings import PREFECT_UI_URL
from prefect.states import Failed, State
from prefect.variables import Variable

from flows.errors import FinetuneError, ServingError, system_words
from flows.reporting.endpoints import Shown, count_line, endpoints_markdown
from flows.serving import history, listing, restarts, revisions
from flows.serving.endpoint import Endpoint
from flows.serving.history import Change
from flows.serving.state import State as Known
from flows.store.layout import Store

PAGE = "endpoints"
MOST_PLOTS = 20  # each is a picture of 10 KiB in the artifact
PLOT_AGE = datetime.timedelta(minutes=10)
LONGEST_MESSAGE = 20_000  # characters of an error: a state of Prefect is no file
EVENTS = ("healthy", "degraded", "unhealthy", "failed", "promoted", "rolled-back")


def variable_name(name: str) -> str:
    """The Prefect Variable that holds where an endpoint is."""
    return f"endpoint_{name.replace('-', '_')}"


def remember(endpoint: Endpoint) -> None:
    """Write name, address, model, revision and the run that served it into the endpoint's Variable.

    What serves does so even if Prefect cannot be told: that is only logged, as in `forget`.
    """
    record = endpoint.model_dump(include={"name", "model", "revision", "run_url"}) | {"url": endpoint.public_url}
    with _logged(f"The Variable of {endpoint.name} could not be written"):
        Variable.set(variable_name(endpoint.name), record, overwrite=True)


def forget(name: str) -> None:
    """Delete the endpoint's Variable, if it has one."""
    with _logged(f"The Variable of {name} could not be deleted"):
        Variable.unset(variable_name(name))


def emit(change: Change, url: str, store: Store) -> None:
    """Send the change as the event `endpoint.<what>`, unless it is only a step on the way (starting, stopped).

    Labels are what automations can match: whether it was given up, and whether the revision before is to take over.
    """
    if change.what in EVENTS:
        emit_event(
            f"endpoint.{change.what}",
            resource={
                "prefect.resource.id": f"prefect-finetune.endpoint.{change.name}",
                "prefect.resource.name": change.name,
                "prefect-finetune.gave-up": str(change.gave_up).lower(),
                "prefect-finetune.roll-back": str(change.roll_back).lower(),
            },
            occurred=change.at,
            payload={
                **change.model_dump(mode="json", exclude={"at"}),
                "url": url,
                "store": str(store.root),
                "page": page_url(),
            },
        )


def tell_watched(store: Store, line: str) -> None:
    """Send the watcher's sign of life, `endpoint.watched`, once a pass: an automation misses it when it stops."""
    place = hashlib.sha256(str(store.root).encode()).hexdigest()[:12]
    emit_event(
        "endpoint.watched",
        resource={
            "prefect.resource.id": f"prefect-finetune.watcher.{place}",
            "prefect.resource.name": str(store.root),
        },
        payload={"endpoints": line},
    )


def page_url() -> str:
    """Where the artifact `endpoints` is in the Prefect UI; empty without one."""
    ui = PREFECT_UI_URL.value()
    return f"{str(ui).rstrip('/')}/artifacts/key/{PAGE}" if ui else ""


def seen(store: Store) -> list[Endpoint]:
    """The endpoints as they were found last: by the watcher, or by whoever has promoted them since; nobody is asked."""
    found = []
    for name in listing.endpoint_names(store.endpoints):
        endpoint = listing.recorded(store.endpoints, name)
        if endpoint is None:
            continue
        past = history.load(store.endpoints, name)
        asked = endpoint.state not in (Known.STOPPED, Known.DRAINING)
        if asked and past.state is not None and past.launch == restarts.launch(endpoint):
            endpoint = endpoint.model_copy(update={"state": past.state, "why": past.why})
        found.append(endpoint)
    return found


def show_page(store: Store, endpoints: list[Endpoint], changed: bool) -> str:
    """Bring the artifact `endpoints` up to date; the line that counts them by state.

    Where nothing has changed the newest version is written over, so that a page a minute does not fill the database.
    """
    now = datetime.datetime.now(datetime.UTC)
    shown = _with_plots(store, [_shown(store, one) for one in endpoints], now)
    line, page = count_line(shown), endpoints_markdown(shown, now)
    newest: Any = None if changed else Artifact.get(PAGE)
    if newest is None:
        create_markdown_artifact(page, key=PAGE, description=line)
    else:
        with get_client(sync_client=True) as client:
            client.update_artifact(newest.id, ArtifactUpdate(data=page, description=line))
    return line


def refresh_page(store: Store) -> None:
    """Bring the artifact up to date after an endpoint was changed by hand; what is done is done if that fails."""
    with _logged("The page of endpoints could not be brought up to date"):
        show_page(store, seen(store), changed=True)


def _shown(store: Store, endpoint: Endpoint) -> Shown:
    folder, name = store.endpoints, endpoint.name
    kept = []
    for number in revisions.numbers(folder, name):
        with contextlib.suppress(ServingError):  # a damaged file is missing on the page, and nothing else
            kept.append(revisions.load(folder, name, number))
    return Shown(endpoint, endpoint.state, endpoint.why, history.load(folder, name), kept)


def _with_plots(store: Store, shown: list[Shown], now: datetime.datetime) -> list[Shown]:
    """With a plot each, of the last ten minutes unless something has changed; of many only those that changed last."""
    watched = [one for one in shown if one.history.samples and one.history.since]
    newest = sorted(watched, key=lambda one: one.history.since or now, reverse=True)[:MOST_PLOTS]
    return [replace(one, plot=_plot(store, one, now)) if one in newest else one for one in shown]


def _plot(store: Store, one: Shown, now: datetime.datetime) -> Path | None:
    """Path of its plot; None if there is no room for one."""
    path = store.endpoints / one.endpoint.name / "history.png"
    newest = one.history.changes[-1].at if one.history.changes else now - PLOT_AGE
    made = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC) if path.exists() else None
    if made is None or made <= newest or now - made >= PLOT_AGE:
        from flows.reporting.endpoint_plot import history_plot  # here: matplotlib takes a second, most passes draw none

        try:
            history_plot(one.history, now, path)
        except OSError as error:
            get_run_logger().warning("The plot of %s could not be written: %s", one.endpoint.name, error)
            return None
    return path


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of whatever client
        get_run_logger().warning("%s: %s", what, error)


def failed(error: FinetuneError | OSError) -> State[Any]:
    """The state of a run that ends with an error for people: its words in message and artifact, without a traceback.

    Also where the machine refused a file or a folder, or has no room left. Prefect logs the message.
    """
    words = _cut(system_words(error) if isinstance(error, OSError) else str(error)) or type(error).__name__
    first = words.splitlines()[0]
    create_markdown_artifact(f"# Failed\n\n```\n{words}\n```", key="failure", description=first[:200])
    return Failed(message=words)


def _cut(words: str) -> str:
    """The beginning, which says what is wrong, and the end, which is a log's."""
    left_out = len(words) - LONGEST_MESSAGE
    if left_out <= 0:
        return words
    half = LONGEST_MESSAGE // 2
    return f"{words[:half]}\n({left_out} characters are left out here)\n{words[-half:]}"
