"""A Kubernetes cluster: the way to its API server, the few requests that are made of it, and its errors in words."""

from __future__ import annotations

import json
import os
import re
import ssl
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from flows.errors import ServingError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TIMEOUT_S = 30.0
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
# Every kind of object that is made or read: where the API has it.
PATHS = {
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "Service": ("api/v1", "services"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "InferenceService": ("apis/serving.kserve.io/v1beta1", "inferenceservices"),
    "NIMService": ("apis/apps.nvidia.com/v1alpha1", "nimservices"),
}
MAKERS = {"ScaledObject": "KEDA", "InferenceService": "KServe", "NIMService": "the NIM Operator"}
MERGE = "application/merge-patch+json"


class MissingError(ServingError):
    """The cluster has no object of that name, or no such kind of objects."""


class Where(NamedTuple):
    """A namespace of a cluster. Without kubeconfig and context: of the one this runs in, else of the user's current."""

    kubeconfig: str
    context: str
    namespace: str


class Cluster:
    """One namespace of a cluster, with this user's rights.

    Every method raises ServingError when nobody answers, the user may not, or the object is refused.
    """

    def __init__(self, where: Where) -> None:
        self.where = where
        self.namespace = where.namespace
        self._api = _client(where.kubeconfig, where.context, _changed(where.kubeconfig))

    @property
    def inside(self) -> bool:
        """Whether this program runs in that cluster, so that a Service's own name leads to it."""
        return not (self.where.kubeconfig or self.where.context) and _in_cluster()

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self._api.configuration.host).rstrip("/")

    def version(self) -> str:
        """Version of the API server, as v1.33.2."""
        return str(self._json("GET", "/version").get("gitVersion", "unknown"))

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make an object; as the cluster then has it."""
        return self._json("POST", self._path(manifest["kind"]), body=manifest, kind=manifest["kind"])

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object; MissingError if there is none."""
        return self._json("GET", self._path(kind, name), kind=kind)

    def find(self, kind: str, selector: str, fields: str = "") -> list[dict[str, Any]]:
        """Objects with those labels (`key=value`) and fields."""
        query = {key: value for key, value in (("labelSelector", selector), ("fieldSelector", fields)) if value}
        found: list[dict[str, Any]] = self._json("GET", self._path(kind), query=query, kind=kind)["items"]
        return found

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> dict[str, Any]:
        """Merge `change` into an object."""
        return self._json("PATCH", self._path(kind, name), body=change, kind=kind, content_type=MERGE)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object after what belongs to it; MissingError if there is none."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        self._request("DELETE", self._path(kind, name), body=body, kind=kind)

    def log(self, pod: str, lines: int, previous: bool = False) -> list[str]:
        """The last lines of a pod's first container, or of its run before this one."""
        query = {"tailLines": str(lines)} | ({"previous": "true"} if previous else {})
        text = self._request("GET", f"{self._path('Pod', pod)}/log", query=query, kind="Pod")
        return text.decode(errors="replace").splitlines()

    def proxy(self, service: str, port: int) -> str:
        """URL of a Service by way of the API server, which asks for this user's credentials."""
        return f"{self.host}/api/v1/namespaces/{quote(self.namespace)}/services/http:{service}:{port}/proxy"

    def headers(self) -> dict[str, str]:
        """This user's token as a header; empty where the user is known by a certificate."""
        headers: dict[str, str] = {}
        self._api.update_params_for_auth(headers, [], ["BearerToken"])
        return headers

    def tls(self) -> ssl.SSLContext | None:
        """How the API server's certificate is checked, and with which of ours it is asked."""
        return _tls(self._api) if self.host.startswith("https") else None

    def _path(self, kind: str, name: str = "") -> str:
        group, plural = PATHS[kind]
        path = f"/{group}/namespaces/{quote(self.namespace)}/{plural}"
        return f"{path}/{quote(name)}" if name else path

    def _json(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        text = self._request(method, path, **kwargs)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServingError(
                f"What answers at {self.host} is no Kubernetes API server: to {method} {path} it says "
                f"{text[:100].decode(errors='replace')!r}. Check the kubeconfig's server, and what stands before it."
            )
        return answer

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        kind: str = "",
        content_type: str = "application/json",
    ) -> bytes:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", "Content-Type": content_type} | self.headers()
        url = f"{self.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._api.request(method, url, headers=headers, body=body, _request_timeout=TIMEOUT_S)
        except ApiException as error:
            raise _refused(error, self, kind) from error
        except (HTTPError, OSError) as error:
            raise ServingError(
                f"No Kubernetes API server answers at {self.host}: {_reason(error)}. Check the network and the "
                "kubeconfig, with `kubectl version`."
            ) from error
        data: bytes = answer.data
        return data


def _refused(error: Any, cluster: Cluster, kind: str) -> ServingError:
    """What an API server's answer means for people."""
    message = _message(error)
    if error.status == 0:
        return ServingError(f"The Kubernetes API server at {cluster.host} cannot be trusted or read: {message}")
    if error.status == 401:
        return ServingError(
            f"The Kubernetes API server at {cluster.host} does not know this user: {message}. Renew the credentials of "
            "the kubeconfig."
        )
    if error.status == 403 and "exceeded quota" in message:
        return ServingError(
            f"The quota of namespace {cluster.namespace} is used up: {message}. Free some, or ask for more."
        )
    if error.status == 403:
        return ServingError(
            f"Kubernetes does not allow it: {message}. Ask for a Role with the rights that docs/serving.md lists."
        )
    if error.status == 404 and re.search(r"namespaces? .* not found", message):
        return ServingError(f"There is no namespace {cluster.namespace} at {cluster.host}: create it, or name another.")
    if error.status == 404 and "could not find the requested resource" in message:
        group = PATHS[kind][0].removeprefix("apis/")
        why = f"is {MAKERS[kind]} installed there?" if kind in MAKERS else "it is too old for that."
        return MissingError(f"The cluster at {cluster.host} does not know a {kind} of {group}: {why}")
    if error.status == 404:
        return MissingError(f"{message}.")
    return ServingError(f"Kubernetes refuses ({error.status}): {message}")


def _message(error: Any) -> str:
    try:
        text = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or error.reason
    return " ".join(str(text).split())[:500].rstrip(". ")


def _reason(error: BaseException) -> str:
    """The innermost words: urllib3 wraps them twice."""
    text = str(getattr(error, "reason", "") or error or type(error).__name__)
    return text.rpartition(": ")[2].rstrip(". ")


@lru_cache(maxsize=32)
def _client(kubeconfig: str, context: str, changed: float) -> ApiClient:
    """A client, one for all threads; made anew when the kubeconfig has `changed`."""
    from kubernetes import client, config
    from urllib3 import Retry
    from yaml import YAMLError

    settings = client.Configuration()
    settings.retries = Retry(connect=0, read=1, redirect=0, status=0, other=0)  # for a connection gone stale
    try:
        if not kubeconfig and not context and _in_cluster():
            config.load_incluster_config(client_configuration=settings)
        else:
            file = os.path.expanduser(kubeconfig) or None
            config.load_kube_config(config_file=file, context=context or None, client_configuration=settings)
    except (config.ConfigException, YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        where = kubeconfig or os.environ.get("KUBECONFIG", "") or "~/.kube/config"
        raise ServingError(
            f"The kubeconfig {where} cannot be used: {str(error).splitlines()[0]} Name a file and a context in "
            "serve.kubernetes.kubeconfig and serve.kubernetes.context, or set KUBECONFIG."
        ) from error
    return client.ApiClient(settings)


@lru_cache(maxsize=32)
def _tls(api: ApiClient) -> ssl.SSLContext:
    settings = api.configuration
    tls = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
    if not settings.verify_ssl:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if settings.cert_file:
        tls.load_cert_chain(settings.cert_file, settings.key_file)
    return tls


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and os.path.exists(SERVICE_ACCOUNT)


def _changed(kubeconfig: str) -> float:
    """When the kubeconfig was written: it may be moved to another cluster under the watcher's hands."""
    path = Path(kubeconfig or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or "~/.kube/config").expanduser()
    return path.stat().st_mtime if path.is_file() else 0.0
