"""Keep a name's front at what serves under the name."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from flows.errors import ServingError
from flows.serving.endpoint import Endpoint
from flows.serving.front import folder as files
from flows.serving.front import lifecycle, traffic
from flows.serving.front.record import FrontRecord
from flows.serving.state import State

logger = logging.getLogger(__name__)


def address(endpoint: Endpoint) -> str:
    """Where a front finds its server, as 127.0.0.1:8001."""
    return urlsplit(endpoint.url).netloc


def send_all_to(endpoint: Endpoint, record: FrontRecord | None = None) -> None:
    """Have its front (or that one) give every new request to this endpoint's server.

    Raises:
        ServingError: the front does not run.
    """
    if front := record or endpoint.front:
        traffic.route(front, {address(endpoint): 100})


def settle(name: str, endpoints_dir: Path, serving: Endpoint | None) -> FrontRecord | None:
    """Have the name's front as the record of what serves says: all to that one, or no front at all.

    For what a promotion left behind. A failure is logged, so that it does not keep anybody from ending servers.

    Returns:
        The front that runs.
    """
    try:
        front = serving.front if serving and serving.state not in (State.STOPPED, State.DRAINING) else None
        if serving and front:
            lifecycle.revive(front)
            send_all_to(serving)
            return front
        if started := files.load(endpoints_dir, name):
            lifecycle.stop(started)
    except ServingError as error:
        logger.error("%s: %s", name, error)
    return None


def heal(endpoint: Endpoint, settled: bool) -> str:
    """Start a front that died, with the shares it had.

    Args:
        endpoint: as recorded.
        settled: nobody is moving the name, so all requests are this server's; else whoever does knows where they go.

    Returns:
        What is wrong with it; empty if it works, or if the endpoint has none.
    """
    if endpoint.front is None:
        return ""
    front = endpoint.front if settled else files.load(endpoint.front.path.parents[1], endpoint.name)
    if front is None or not (settled or files.running(front.path)):  # whoever is moving the name has stopped it
        return ""
    try:
        if lifecycle.revive(front):
            logger.warning("The front of %s had died and was started again.", endpoint.name)
        if settled and files.shares(front.path) != {address(endpoint): 100}:
            send_all_to(endpoint)
    except ServingError as error:
        return f"Its front does not work: {error}"
    return ""
