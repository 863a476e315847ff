"""The Service of an endpoint's name in a cluster: an address that stays, however often its pods are replaced.

Every start has a Service of its own, by which it is checked. This one leads to the start that serves under the name:
its selector is moved when the name moves, at once and for all requests, and it goes with the endpoint.
"""

from __future__ import annotations

import logging
from typing import Any

from flows.errors import ServingError
from flows.serving.endpoint import ClusterRecord
from flows.serving.runtimes.cluster import Cluster, MissingError, Where
from flows.serving.runtimes.kubernetes_objects import LABEL, MANAGED, selector

logger = logging.getLogger(__name__)


def service(name: str) -> str:
    """The name of the Service: as the endpoint's, but it must begin with a letter and has 63 characters at most."""
    return (name if name[0].isalpha() else f"m-{name}")[:63].rstrip("-")


def check_free(cluster: Cluster, name: str, owner: str) -> None:
    """Look for a Service of that name that somebody else made, before anything starts.

    Raises:
        ServingError: there is one, or nobody knows.
    """
    try:
        _check_ours(cluster.get("Service", service(name)), cluster.namespace, name, owner)
    except MissingError:
        return


def point(record: ClusterRecord) -> None:
    """Lead all new requests to that start; those under way go on where they are.

    Raises:
        ServingError: no cluster answers, this user may not, or the Service is somebody else's.
    """
    if not record.endpoint:
        return
    cluster, name = _cluster(record), service(record.endpoint)
    try:
        found = cluster.get("Service", name)
    except MissingError:
        cluster.create(_manifest(record, name))
        return
    _check_ours(found, record.namespace, record.endpoint, record.owner)
    now, wanted = found["spec"], _manifest(record, name)["spec"]
    if now["selector"] != wanted["selector"] or now["ports"][0]["port"] != record.port:
        gone = dict.fromkeys(now["selector"])
        cluster.patch("Service", name, {"spec": {"selector": gone | wanted["selector"], "ports": wanted["ports"]}})


def let_go(record: ClusterRecord) -> None:
    """Delete the Service if it leads to that start, which is about to end; what goes wrong is logged."""
    if not record.endpoint:
        return
    cluster, name = _cluster(record), service(record.endpoint)
    try:
        found = cluster.get("Service", name)
        if found["spec"].get("selector") == _selector(record):
            cluster.delete("Service", name)
    except MissingError:
        return
    except ServingError as error:
        logger.error("The Service %s of namespace %s: %s", name, record.namespace, error)


def _manifest(record: ClusterRecord, name: str) -> dict[str, Any]:
    labels = MANAGED | {LABEL + "owner": record.owner, LABEL + "name": record.endpoint}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": record.namespace, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "selector": _selector(record),
            "ports": [{"name": "http", "port": record.port, "targetPort": record.port, "protocol": "TCP"}],
        },
    }


def _selector(record: ClusterRecord) -> dict[str, str]:
    return dict([selector(record.kind, record.name).split("=")])


def _check_ours(found: dict[str, Any], namespace: str, name: str, owner: str) -> None:
    labels = found["metadata"].get("labels") or {}
    if (labels.get(LABEL + "owner"), labels.get(LABEL + "name")) != (owner, name):
        raise ServingError(
            f"Namespace {namespace} has a Service {service(name)} already, which is not this endpoint's. Give the "
            "endpoint another name, or serve it in another namespace."
        )


def _cluster(record: ClusterRecord) -> Cluster:
    return Cluster(Where(record.kubeconfig, record.context, record.namespace))
