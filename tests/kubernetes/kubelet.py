"""A small kubelet and scheduler: a pod's command runs as a process of this machine, in a network of its own.

Real: the node, bindings, states, probes, restarts, logs through the API server, draining and killing. Not real: images
(a name stands for a command and environment), cgroups, volumes (a folder of the node is there anyway), GPUs (none).
"""

from __future__ import annotations

import itertools
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.kubernetes import network
from tests.kubernetes.api import Api
from tests.kubernetes.pod import Pod

NODE = "local"
LOOK_S = 0.2


class Kubelet:
    """Runs every pod of a namespace; `close` ends them all."""

    def __init__(self, api: Api, namespace: str, folder: Path, images: dict[str, dict[str, Any]]) -> None:
        self.api, self.folder, self.images = api, folder, images
        self.list = f"/api/v1/namespaces/{namespace}/pods"
        self.pods: dict[str, Pod] = {}
        self.numbers = itertools.count(2)
        self.closed = threading.Event()
        self.logs = LogServer(self)
        self._register()
        self.thread = threading.Thread(target=self._work, daemon=True, name="kubelet")
        self.thread.start()

    def close(self) -> None:
        self.closed.set()
        self.thread.join()
        for pod in self.pods.values():
            pod.ending.set()
            pod.spec = pod.spec | {"terminationGracePeriodSeconds": 1}
            pod.container.pop("lifecycle", None)
        for pod in self.pods.values():
            pod.thread.join()
        self.logs.server.shutdown()
        self.logs.server.server_close()

    def _register(self) -> None:
        self.api.post("/api/v1/nodes", {"metadata": {"name": NODE}})
        status = {
            "addresses": [{"type": "InternalIP", "address": network.HOST}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.logs.port}},
            "capacity": {"cpu": "2", "memory": "8Gi", "pods": "100"},
        }
        self.api.patch(f"/api/v1/nodes/{NODE}/status", {"status": status})

    def _work(self) -> None:
        while not self.closed.wait(LOOK_S):
            for manifest in self.api.items(self.list):
                self._see(manifest)
            self.pods = {uid: pod for uid, pod in self.pods.items() if pod.thread.is_alive()}

    def _see(self, manifest: dict[str, Any]) -> None:
        head, spec = manifest["metadata"], manifest["spec"]
        pod = self.pods.get(head["uid"])
        if head.get("deletionTimestamp"):
            if pod:
                pod.ending.set()
            elif not spec.get("nodeName"):
                self.api.delete(f"{self.list}/{head['name']}", gracePeriodSeconds=0)
        elif not spec.get("nodeName"):
            self._schedule(head["name"], spec)
        elif pod is None:
            self.pods[head["uid"]] = pod = Pod(self.api, manifest, next(self.numbers), self.folder, self.images)
            pod.thread.start()

    def _schedule(self, name: str, spec: dict[str, Any]) -> None:
        wanted = spec["containers"][0].get("resources", {}).get("limits", {})
        if lacking := [resource for resource in wanted if "/" in resource]:
            message = f"0/1 nodes are available: 1 Insufficient {lacking[0]}."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            self.api.patch(f"{self.list}/{name}/status", {"status": {"conditions": [condition]}})
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        self.api.post(f"{self.list}/{name}/binding", {"metadata": {"name": name}, "target": target})

    def of(self, start: str) -> list[Pod]:
        """Pods of the objects of that name."""
        return [pod for pod in self.pods.values() if pod.name.startswith(start)]


class LogServer:
    """Where the API server asks for a container's output."""

    def __init__(self, kubelet: Kubelet) -> None:
        folder = kubelet.folder
        files = ["-keyout", str(folder / "kubelet.key"), "-out", str(folder / "kubelet.crt")]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NODE}"]
        subprocess.run([*command, *files], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "kubelet.crt", folder / "kubelet.key")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                name, query = parts.path.split("/")[3], parse_qs(parts.query)
                pods = [pod for pod in kubelet.pods.values() if pod.name == name]
                file = (pods[0].previous_log if "previous" in query else pods[0].log) if pods else None
                if file is None or not file.exists():
                    self.send_error(400, "container is waiting to start")
                    return
                lines = file.read_bytes().splitlines(keepends=True)[-int(query.get("tailLines", ["1000"])[0]) :]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"".join(lines))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((network.HOST, 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
