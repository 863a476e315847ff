"""Runtime `kubernetes`: a Deployment with its Service in a cluster, or an object of KServe or of the NIM Operator.

Every start makes objects of a name of its own beside those that serve. The cluster starts a server again by itself when
it ends; FAILED is what the cluster cannot mend.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import ssl
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import ServingError
from flows.serving.causes import last_lines
from flows.serving.endpoint import ClusterRecord
from flows.serving.runtimes import kubernetes_name
from flows.serving.runtimes import kubernetes_objects as objects
from flows.serving.runtimes.cluster import Cluster, MissingError, Where
from flows.serving.runtimes.kubernetes_options import OBJECT, KubernetesOptions
from flows.serving.runtimes.kubernetes_options import problems as option_problems
from flows.serving.runtimes.pod_diagnosis import Diagnosis, diagnose, restarts
from flows.serving.runtimes.pod_diagnosis import exit_code as ended_with
from flows.serving.runtimes.process import wait_until
from flows.serving.variants.launch import Launch, Order, Place
from flows.store.files import write_atomically

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

CONTAINER = True
PORT = 8000
LOG_TAIL = 1000
REMOVAL_S = 60.0  # beyond the pods' own grace
OWNER = "owner"  # files in the folder of records: whose objects are ours in a cluster, and in which clusters to look
CLUSTERS = "clusters.txt"

logger = logging.getLogger(__name__)


def problems(config: ServeConfig) -> list[str]:
    """Settings that contradict each other; no cluster."""
    found = option_problems(config)
    try:
        _cluster_of(config.kubernetes).version()
    except ServingError as error:
        found.append(f"serve.kubernetes: {error}")
    return found


def place(model_dir: Path, port: int, config: ServeConfig) -> Place:
    """In a pod, which has a network of its own."""
    path = objects.model_path(config, str(model_dir))
    return Place(model_dir, path, "0.0.0.0", port, container=True, own_network=True)


def choose_port(wanted: int) -> int:
    """The wanted port: every pod has all of them to itself."""
    return wanted or PORT


def start(launch: Launch, log: Path, order: Order) -> ClusterRecord:
    """Make the objects; nothing is left of them if one is refused. What the pods say is copied to `log` when asked for.

    Raises:
        ServingError: no cluster answers, this user may not, or an object is refused.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    options = order.config.kubernetes
    cluster, endpoint, owner = _cluster_of(options), order.config.name, _owner(order.endpoints_dir)
    kubernetes_name.check_free(cluster, endpoint, owner)
    name = _object_name(endpoint)
    made = objects.manifests(launch, order, name, owner, str(log))
    kind = made[0]["kind"]
    _remember(order.endpoints_dir, options, kind)
    try:
        first = cluster.create(made[0])
        reference = {"apiVersion": made[0]["apiVersion"], "kind": kind, "name": name, "uid": first["metadata"]["uid"]}
        for manifest in made[1:]:
            # Without blockOwnerDeletion, for which some clusters (OpenShift) ask for more rights.
            owned = manifest["metadata"] | {"ownerReferences": [reference]}
            cluster.create(manifest | {"metadata": owned})
    except BaseException:
        with contextlib.suppress(ServingError):
            cluster.delete(kind, name)
        raise
    address, via = _address(cluster, options, kind, name, launch.port)
    return ClusterRecord(
        kubeconfig=options.kubeconfig,
        context=options.context,
        namespace=options.namespace,
        kind=kind,
        name=name,
        url=address,
        via=via,
        log=str(log),
        endpoint=endpoint,
        owner=owner,
        port=launch.port,
        clients_url=_clients_url(options, kubernetes_name.service(endpoint), launch.port),
    )


def url(record: ClusterRecord, port: int) -> str:
    """The Service's own name inside the cluster, the API server's proxy outside, or the user's ingress."""
    return record.url


def headers(record: ClusterRecord) -> dict[str, str]:
    """The user's token where the API server is asked, nobody else's business."""
    return _cluster(record).headers() if record.via == "proxy" else {}


def tls(record: ClusterRecord) -> ssl.SSLContext | None:
    """The cluster's certificates where the API server is asked."""
    return _cluster(record).tls() if record.via == "proxy" else None


def alive(record: ClusterRecord) -> bool:
    """Whether it is there and nothing lasting is wrong; true while no API server answers, since nobody knows then."""
    try:
        found = diagnosis(record)
    except MissingError:
        return False
    except ServingError:
        return True
    return found is None or not found.lasting


def diagnosis(record: ClusterRecord) -> Diagnosis | None:
    """What is wrong with it now, if anything; MissingError if it is gone."""
    cluster = _cluster(record)
    return diagnose(cluster.get(record.kind, record.name), pods(record))


def pods(record: ClusterRecord) -> list[dict[str, Any]]:
    """Its pods, the newest first."""
    found = _cluster(record).find("Pod", objects.selector(record.kind, record.name))
    return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), reverse=True)


def exit_code(record: ClusterRecord) -> int | None:
    """How its last container ended; None if none has, or nobody knows."""
    try:
        return ended_with(pods(record))
    except ServingError:
        return None


def rebooted(record: ClusterRecord) -> bool:
    """Never known: the cluster moves pods to other machines by itself."""
    return False


def logs(record: ClusterRecord, count: int) -> list[str]:
    """The last lines of its newest pod and what the cluster says is wrong, copied to the log file; else the file's."""
    with contextlib.suppress(ServingError, OSError):
        lines = _pod_lines(record, max(count, LOG_TAIL))
        if lines:
            write_atomically(Path(record.log), "\n".join(lines) + "\n")
    return last_lines(Path(record.log), count)


def stop(record: ClusterRecord, port: int, grace_s: float = 0) -> list[str]:
    """Delete it with all that belongs to it, and wait until its last pod is gone; pods drain as their settings say.

    Returns:
        What was deleted; empty if it was not there any more.

    Raises:
        ServingError: it is still there, or nobody knows.
    """
    cluster = _cluster(record)
    logs(record, LOG_TAIL)
    kubernetes_name.let_go(record)
    left = pods(record)
    graces = [pod.get("spec", {}).get("terminationGracePeriodSeconds") or 0 for pod in left]
    try:
        cluster.delete(record.kind, record.name)
    except MissingError:
        if not left:
            return []
    if not wait_until(lambda: _gone(cluster, record), max(graces, default=0) + REMOVAL_S, poll_s=0.5):
        raise ServingError(
            f"{record.words} is still there. Look at it with `kubectl -n {record.namespace} get pods -l "
            f"{objects.selector(record.kind, record.name)}`."
        )
    return [record.words]


def list_owned(endpoints_dir: Path) -> list[tuple[str, ClusterRecord]]:
    """What was made for that folder in every cluster that ever got something of it, if that answers."""
    file = endpoints_dir / CLUSTERS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    found = []
    for line in dict.fromkeys(lines):
        kubeconfig, context, namespace, kind = line.split("\t")
        try:
            cluster = Cluster(Where(kubeconfig, context, namespace))
            made = cluster.find(kind, f"{objects.LABEL}owner={_owner(endpoints_dir)}")
        except ServingError as error:
            logger.warning("What runs in namespace %s is not known: %s", namespace, error)
            continue
        for one in made:
            head = one["metadata"]
            record = ClusterRecord(
                kubeconfig=kubeconfig,
                context=context,
                namespace=namespace,
                kind=kind,
                name=head["name"],
                log=head.get("annotations", {}).get(objects.LABEL + "log", ""),
                endpoint=head["labels"][objects.LABEL + "name"],
            )
            found.append((record.endpoint, record))
    return found


def scale(record: ClusterRecord, replicas: int) -> None:
    """Have that many pods from now on; they come and go while this returns.

    Raises:
        ServingError: no cluster answers, this user may not, or it is gone.
    """
    if record.kind == "InferenceService":
        change: dict[str, Any] = {"predictor": {"minReplicas": replicas, "maxReplicas": replicas}}
    else:
        change = {"replicas": replicas}
    _cluster(record).patch(record.kind, record.name, {"spec": change})


def _cluster(record: ClusterRecord) -> Cluster:
    return Cluster(Where(record.kubeconfig, record.context, record.namespace))


def _cluster_of(options: KubernetesOptions) -> Cluster:
    return Cluster(Where(options.kubeconfig, options.context, options.namespace))


def _object_name(name: str) -> str:
    """A name that a Service may have: 63 letters, digits and dashes, a letter first; KServe adds `-predictor`."""
    stem = name[:44].rstrip("-")
    return f"{stem if stem[0].isalpha() else f'm-{stem}'}-{secrets.token_hex(3)}"


def _address(cluster: Cluster, options: KubernetesOptions, kind: str, name: str, port: int) -> tuple[str, str]:
    """Where it is asked from here, and by which way."""
    service, port = (f"{name}-predictor", 80) if kind == "InferenceService" else (name, port)
    if options.url:
        return options.url.rstrip("/").replace(OBJECT, service), "address"
    if cluster.inside:
        return f"http://{service}.{options.namespace}.svc:{port}/v1", "service"
    return f"{cluster.proxy(service, port)}/v1", "proxy"


def _clients_url(options: KubernetesOptions, service: str, port: int) -> str:
    """Where clients ask, from now on and after the next promotion too: the ingress, or a name of the cluster."""
    if options.url:
        return options.url.rstrip("/").replace(OBJECT, service)
    return f"http://{service}.{options.namespace}.svc:{port}/v1"


def _pod_lines(record: ClusterRecord, count: int) -> list[str]:
    """What the newest pod said, in its former run too if it was started again, and what the cluster says of it."""
    cluster, found = _cluster(record), pods(record)
    lines: list[str] = []
    if found:
        name = found[0]["metadata"]["name"]
        for previous in (True, False) if restarts(found[0]) else (False,):
            with contextlib.suppress(ServingError):  # no container yet, or none before it
                lines += cluster.log(name, count, previous)
    with contextlib.suppress(MissingError):
        wrong = diagnose(cluster.get(record.kind, record.name), found)
        lines += [wrong.line] if wrong else []
    return lines


def _gone(cluster: Cluster, record: ClusterRecord) -> bool:
    try:
        cluster.get(record.kind, record.name)
    except MissingError:
        return not pods(record)
    return False


def _owner(endpoints_dir: Path) -> str:
    """The name of this folder of records in clusters, which other machines and stores use too; made once."""
    file = endpoints_dir / OWNER
    if not file.exists():
        endpoints_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), file.open("x", encoding="utf-8") as stream:
            stream.write(uuid.uuid4().hex)
    return file.read_text("utf-8").strip()


def _remember(endpoints_dir: Path, options: KubernetesOptions, kind: str) -> None:
    """Write down that this namespace is about to hold something: who sweeps up has to know where to look."""
    file = endpoints_dir / CLUSTERS
    line = "\t".join((options.kubeconfig, options.context, options.namespace, kind))
    if not file.exists() or line not in file.read_text("utf-8").splitlines():
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
