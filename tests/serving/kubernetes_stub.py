"""A small Kubernetes API server: real HTTP, stores what it is given, merges patches, lets Deployments have pods.

What becomes of a pod is told by its image: `WAITING` and `ENDED` name faults; any other image serves. The proxy to a
Service answers as a model server would, as long as a pod of it is ready.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.serving.fake_server import ANSWER

OBJECT = re.compile(r"^/(api/v1|apis/[^/]+/[^/]+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?(?:/(log))?$")
PROXY = re.compile(r"^/api/v1/namespaces/([^/]+)/services/http:([^/:]+):(\d+)/proxy(/.*)$")
WAITING = {
    "missing:1": ("ImagePullBackOff", 'Back-off pulling image "missing:1": not found'),
    "config:1": ("CreateContainerConfigError", 'secret "hugging-face" not found'),
}
ENDED = {"crash:1": ("Error", 1), "oom:1": ("OOMKilled", 137)}
LOGS = {"crash:1": "ValueError: No such option: --wrong", "oom:1": "loading weights"}


def container(image):
    """A container's status."""
    if image in WAITING:
        reason, message = WAITING[image]
        return {"image": image, "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}
    if image in ENDED:
        reason, code = ENDED[image]
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}}
        end = {"terminated": {"reason": reason, "exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}
        return {"image": image, "restartCount": 2, "state": waiting, "lastState": end}
    return {"image": image, "restartCount": 0, "state": {"running": {}}, "ready": True}


def pod_status(image):
    """A pod's status, as a kubelet and a scheduler would write it."""
    if image == "huge:1":
        message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return {"phase": "Pending", "conditions": [unscheduled]}
    status = container(image)
    ready = {"type": "Ready", "status": "True" if status.get("ready") else "False"}
    return {"phase": "Running", "conditions": [ready], "containerStatuses": [status]}


class Cluster:
    """The server, its objects by (plural, name), and what it was asked.

    `forbidden` is a set of (method, plural) that the user may not, `unknown` of kinds it has not; `model` what its pods
    serve; `quota` is a message.
    """

    def __init__(self, folder: Path, namespace="models", token="kube-token"):
        self.namespace, self.token = namespace, token
        self.objects, self.requests = {}, []
        self.forbidden, self.unknown, self.quota, self.model, self.status = set(), set(), "", "/models/a", 200
        self.numbers = itertools.count(1)
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        named = [{"name": "stub", "cluster": {"server": self.url}}], [{"name": "me", "user": {"token": token}}]
        context = {"name": "stub", "context": {"cluster": "stub", "user": "me"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "stub", "contexts": [context]}
        self.kubeconfig.write_text(yaml.safe_dump(config | {"clusters": named[0], "users": named[1]}))

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def of(self, plural):
        with self.lock:
            return [one for (kind, _), one in self.objects.items() if kind == plural]

    def create(self, plural, manifest):
        head = manifest["metadata"]
        if (plural, head["name"]) in self.objects:
            raise Refused(409, f'{plural} "{head["name"]}" already exists')
        head |= {"uid": str(uuid.uuid4()), "creationTimestamp": f"2026-01-01T00:00:{next(self.numbers):02d}Z"}
        self.objects[plural, head["name"]] = manifest
        self.control(plural, manifest)
        return manifest

    def control(self, plural, owner):
        """What controllers do: a Deployment and its like have as many pods as they are to have."""
        if plural == "deployments":
            count, template = owner["spec"]["replicas"], owner["spec"]["template"]
        elif plural == "inferenceservices":
            predictor = owner["spec"]["predictor"]
            labels = {"serving.kserve.io/inferenceservice": owner["metadata"]["name"]}
            count, template = predictor["minReplicas"], {"metadata": {"labels": labels}, "spec": predictor}
        else:
            return
        if self.quota:
            failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": self.quota}
            owner["status"] = {"conditions": [failure]}
            return
        mine = [pod for pod in self.of("pods") if owned(pod, owner)]
        for pod in mine[count:]:
            self.objects.pop(("pods", pod["metadata"]["name"]))
        image = template["spec"]["containers"][0]["image"]
        for _ in range(count - len(mine)):
            name = f"{owner['metadata']['name']}-{uuid.uuid4().hex[:5]}"
            head = {"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [reference(owner)]}
            spec = template["spec"] | {"terminationGracePeriodSeconds": 1}
            self.create("pods", {"kind": "Pod", "metadata": head, "spec": spec, "status": pod_status(image)})

    def delete(self, plural, name):
        gone = self.objects.pop((plural, name))
        for (kind, other), one in list(self.objects.items()):
            if owned(one, gone):
                self.objects.pop((kind, other))

    def ready(self, service):
        labels = [f"{service}", service.removesuffix("-predictor")]
        pods = [pod for pod in self.of("pods") if set(labels) & set(pod["metadata"]["labels"].values())]
        return any(pod["status"]["conditions"][-1] == {"type": "Ready", "status": "True"} for pod in pods)


class Refused(Exception):  # noqa: N818
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def handle_it(self):
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        with self.cluster.lock:
            self.cluster.requests.append((self.command, parts.path, body))
            try:
                self.answer(200 if self.command != "POST" else 201, self.result(parts, body))
            except Refused as error:
                self.answer(error.status, {"kind": "Status", "message": str(error), "code": error.status})

    do_GET = do_POST = do_PATCH = do_DELETE = handle_it  # noqa: N815

    def result(self, parts, body):
        cluster = self.cluster
        if self.headers["Authorization"] != f"Bearer {cluster.token}":
            raise Refused(401, "Unauthorized")
        if parts.path == "/version":
            return {"gitVersion": "v1.33.0"}
        if proxied := PROXY.match(parts.path):
            return self.model_server(proxied[2], proxied[4])
        found = OBJECT.match(parts.path)
        if not found:
            raise Refused(404, "the server could not find the requested resource")
        _, namespace, plural, name, log = found.groups()
        if plural in cluster.unknown:
            raise Refused(404, "the server could not find the requested resource")
        if (self.command, plural) in cluster.forbidden:
            raise Refused(403, f'{plural} is forbidden: User "me" cannot {self.command} resource "{plural}"')
        if namespace != cluster.namespace:
            raise Refused(404, f'namespaces "{namespace}" not found')
        return self.on_object(plural, name, log, body, parse_qs(parts.query))

    def on_object(self, plural, name, log, body, query):
        cluster = self.cluster
        if self.command == "POST":
            return cluster.create(plural, copy.deepcopy(body))
        if not name:
            wanted = dict(pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair)
            found = [one for one in cluster.of(plural) if wanted.items() <= one["metadata"].get("labels", {}).items()]
            return {"kind": "List", "items": found}
        if (plural, name) not in cluster.objects:
            raise Refused(404, f'{plural} "{name}" not found')
        one = cluster.objects[plural, name]
        if log:
            return LOGS.get(one["spec"]["containers"][0]["image"], "Uvicorn running") + "\n"
        if self.command == "PATCH":
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            merge(one, body)
            cluster.control(plural, one)
        if self.command == "DELETE":
            assert body["propagationPolicy"] == "Foreground"
            cluster.delete(plural, name)
        return one

    def model_server(self, service, path):
        if not self.cluster.ready(service):
            raise Refused(503, f'no endpoints available for service "{service}"')
        if self.cluster.status != 200:
            raise Refused(self.cluster.status, "the model server says so")
        if path == "/v1/models":
            return {"data": [{"id": self.cluster.model, "root": self.cluster.model}]}
        return ANSWER if self.command == "POST" else {}

    def answer(self, status, body):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(200 if PROXY.match(self.path) and status == 201 else status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")  # nobody is served after `close`
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def reference(owner):
    return {"uid": owner["metadata"]["uid"]}


def owned(one, owner):
    return owner["metadata"]["uid"] in [ref["uid"] for ref in one["metadata"].get("ownerReferences", [])]


def merge(into, change):
    """RFC 7386."""
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
