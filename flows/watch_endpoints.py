"""One look at all endpoints, for a schedule: restarts what failed, tells what changed, keeps the page up to date."""

from __future__ import annotations

import datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Completed

from flows.errors import ConfigError
from flows.serving.watch import watch
from flows.stages.endpoints import emit, failed, remember, seen, show_page, tell_watched
from flows.stages.external import load_keys
from flows.stages.opening import open_store


@flow(name="watch-endpoints")
def watch_endpoints(store: str = "") -> Any:
    """Ask every endpoint, start again what failed, send an event for what changed, bring the page up to date.

    Args:
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    try:
        place = open_store(store)
    except ConfigError as error:
        return failed(error)
    load_keys(place.endpoints)
    changes = watch(place.endpoints, datetime.datetime.now(datetime.UTC))
    endpoints = {endpoint.name: endpoint for endpoint in seen(place)}
    for change in changes:
        get_run_logger().info("%s: %s. %s", change.name, change.what, change.why)
        endpoint = endpoints.get(change.name)
        emit(change, endpoint.public_url if endpoint else "", place)
    for name in sorted({change.name for change in changes if change.what in ("healthy", "promoted", "rolled-back")}):
        if name in endpoints:
            remember(endpoints[name])  # a server that was started again may have got another port
    line = show_page(place, list(endpoints.values()), changed=bool(changes))
    tell_watched(place, line)
    return Completed(message=f"{line}. {len(changes)} change{'' if len(changes) == 1 else 's'}.")
