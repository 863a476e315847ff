"""All endpoints with their true state, asked for now."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Completed

from flows.errors import ConfigError
from flows.serving import listing
from flows.stages.endpoints import failed, show_page
from flows.stages.external import load_keys
from flows.stages.opening import open_store


@flow(name="list-endpoints")
def list_endpoints(store: str = "") -> Any:
    """Ask every endpoint a question and show them all on the page `endpoints`.

    Args:
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    try:
        place = open_store(store)
    except ConfigError as error:
        return failed(error)
    load_keys(place.endpoints)
    endpoints = listing.list_endpoints(place.endpoints)
    for endpoint in endpoints:
        get_run_logger().info("%s %s %s %s", endpoint.name, endpoint.state.value, endpoint.public_url, endpoint.why)
    return Completed(message=f"{show_page(place, endpoints, changed=True)}.")
