"""Keep a name's stable address, its front or its Service in a cluster, at what serves under the name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from flows.errors import ServingError
from flows.serving import records
from flows.serving.endpoint import ClusterRecord, Endpoint
from flows.serving.front import folder as files
from flows.serving.front import lifecycle, traffic
from flows.serving.front.record import FrontRecord
from flows.serving.runtimes import kubernetes_name
from flows.serving.state import State

ANSWERING = (State.HEALTHY, State.UNVERIFIED, State.DEGRADED)

logger = logging.getLogger(__name__)


def address(endpoint: Endpoint) -> str:
    """Where a front finds its server, as 127.0.0.1:8001."""
    return urlsplit(endpoint.url).netloc


def servers(endpoint: Endpoint, replicas: Sequence[Endpoint] = ()) -> list[str]:
    """Addresses that should get its requests: of all that answer, the endpoint's own alone if none does.

    Replicas of another revision are somebody else's, though they bear the name: they are about to be ended.
    """
    own = [one for one in replicas if (one.revision, one.settings) == (endpoint.revision, endpoint.settings)]
    good = [one for one in (endpoint, *own) if one.state in ANSWERING]
    return [address(one) for one in good or [endpoint]]


def share(endpoint: Endpoint, replicas: Sequence[Endpoint]) -> None:
    """Have its front, if it has one, share new requests among the endpoint and those of its replicas that answer.

    While a promotion gives its candidate a share, who gets what is left to it.

    Raises:
        ServingError: the front does not run.
    """
    if endpoint.front and not _candidate_has_a_share(endpoint.front):
        _share(endpoint.front, endpoint, replicas)


def _share(front: FrontRecord, endpoint: Endpoint, replicas: Sequence[Endpoint]) -> None:
    shares = dict.fromkeys(servers(endpoint, replicas), 100)
    if traffic.current(front) != shares:  # what it really does: an order may have been lost
        traffic.route(front, shares)


def _candidate_has_a_share(front: FrontRecord) -> bool:
    endpoints_dir = front.path.parents[1]
    candidate = records.readable(endpoints_dir, front.name + records.NEXT)
    shared = candidate is not None and address(candidate) in files.shares(front.path)
    return shared and records.being_promoted(endpoints_dir, front.name)


def send_all_to(endpoint: Endpoint, record: FrontRecord | None = None) -> None:
    """Have its front (or that one), or the Service of its name, give every new request to this endpoint's server.

    Raises:
        ServingError: the front does not run; the cluster does not answer or refuses.
    """
    if front := record or endpoint.front:
        traffic.route(front, {address(endpoint): 100})
    if isinstance(endpoint.process, ClusterRecord):
        kubernetes_name.point(endpoint.process)


def settle(
    name: str, endpoints_dir: Path, serving: Endpoint | None, *, past_candidate: bool = False
) -> FrontRecord | None:
    """Have the name's front as the records of what serves say: all to that and its replicas, or no front at all.

    A failure is logged, so that it does not keep anybody from ending servers. `past_candidate` takes back what a
    promotion gave to its candidate: it is over.

    Returns:
        The front that runs.
    """
    try:
        running = serving if serving and serving.state not in (State.STOPPED, State.DRAINING) else None
        if running and isinstance(running.process, ClusterRecord):
            kubernetes_name.point(running.process)
        if running and running.front:
            lifecycle.revive(running.front)
            if past_candidate or not _candidate_has_a_share(running.front):
                _share(running.front, running, records.beside(endpoints_dir, name))
            return running.front
        if started := files.load(endpoints_dir, name):
            lifecycle.stop(started)
    except (ServingError, OSError) as error:
        logger.error("%s: %s", name, error)
    return None


def heal(endpoint: Endpoint, settled: bool) -> str:
    """Start a front that died, with the shares it had; lead the Service of a cluster to what serves.

    Args:
        endpoint: as recorded.
        settled: nobody is moving the name, so the records say who gets requests; else whoever does knows where they go.

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
        if settled:
            share(endpoint, records.beside(front.path.parents[1], endpoint.name))
    except ServingError as error:
        return f"Its front does not work: {error}"
    return ""


def _heal_service(endpoint: Endpoint) -> None:
    """A cluster that does not answer is no fault of the endpoint's: that is only logged."""
    try:
        send_all_to(endpoint)
    except ServingError as error:
        logger.error("%s: %s", endpoint.name, error)
