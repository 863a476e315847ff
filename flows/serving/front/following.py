"""Keep a name's stable address, its front or its Service in a cluster, at what serves under the name."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from flows.errors import ServingError
from flows.serving.endpoint import ClusterRecord, Endpoint
from flows.serving.front import folder as files
from flows.serving.front import lifecycle, traffic
from flows.serving.front.record import FrontRecord
from flows.serving.runtimes import kubernetes_name
from flows.serving.state import State

logger = logging.getLogger(__name__)


def address(endpoint: Endpoint) -> str:
    """Where a front finds its server, as 127.0.0.1:8001."""
    return urlsplit(endpoint.url).netloc


def send_all_to(endpoint: Endpoint, record: FrontRecord | None = None) -> None:
    """Have its front (or that one), or the Service of its name, give every new request to this endpoint's server.

    Raises:
        ServingError: the front does not run; the cluster does not answer or refuses.
    """
    if front := record or endpoint.front:
        traffic.route(front, {address(endpoint): 100})
    if isinstance(endpoint.process, ClusterRecord):
        kubernetes_name.point(endpoint.process)


def settle(name: str, endpoints_dir: Path, serving: Endpoint | None) -> FrontRecord | None:
    """Have the name's front as the record of what serves says: all to that one, or no front at all.

    For what a promotion left behind. A failure is logged, so that it does not keep anybody from ending servers.

    Returns:
        The front that runs.
    """
    try:
        running = serving is not None and serving.state not in (State.STOPPED, State.DRAINING)
        front = serving.front if serving and running else None
        if front:
            lifecycle.revive(front)
        if serving and running:
            send_all_to(serving)
        if front:
            return front
        if started := files.load(endpoints_dir, name):
            lifecycle.stop(started)
    except ServingError as error:
        logger.error("%s: %s", name, error)
    return None


def heal(endpoint: Endpoint, settled: bool) -> str:
    """Start a front that died, with the shares it had; lead the Service of a cluster to what serves.

    Args:
        endpoint: as recorded.
        settled: nobody is moving the name, so all requests are this server's; else whoever does knows where they go.

    Returns:
        What is wrong with it; empty if it works, or if the endpoint has none.
    """
    if endpoint.front is None:
        if settled:
            _heal_service(endpoint)
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


def _heal_service(endpoint: Endpoint) -> None:
    """A cluster that does not answer is no fault of the endpoint's: that is only logged."""
    try:
        send_all_to(endpoint)
    except ServingError as error:
        logger.error("%s: %s", endpoint.name, error)
