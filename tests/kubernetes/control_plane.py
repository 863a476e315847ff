"""A real Kubernetes control plane of the tests' own: etcd, API server and controller manager, as build.sh made them.

Two users: `admin` may everything, `serving` what a Role of the namespace `models` lets it. No scheduler and no kubelet:
see `kubelet.py`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.kubernetes import network
from tests.kubernetes.api import Api

PROGRAMS = Path(__file__).parents[2] / "build" / "kubernetes" / "bin"
CONTROLLERS = "deployment,replicaset,endpoint,garbagecollector,namespace,serviceaccount,resourcequota"
NAMESPACE = "models"
TOKENS = {"admin": "admin-token", "serving": "serving-token", "nobody": "nobody-token"}


@dataclass
class ControlPlane:
    """The API server's address and a kubeconfig of each user."""

    folder: Path
    url: str

    @property
    def ca(self) -> Path:
        """The certificate that the API server made for itself."""
        return self.folder / "certs" / "apiserver.crt"

    def api(self, user: str = "admin") -> Api:
        return Api(self.url, TOKENS[user], self.ca)

    def kubeconfig(self, user: str) -> Path:
        file = self.folder / f"{user}.kubeconfig"
        cluster = {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}
        context = {"name": "test", "context": {"cluster": "test", "user": user}}
        config = {"clusters": [cluster], "contexts": [context], "current-context": "test"}
        users = [{"name": user, "user": {"token": TOKENS[user]}}]
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "users": users} | config))
        return file


def missing() -> str:
    """Why none can be started here; empty if one can."""
    if absent := [
        name for name in ("etcd", "kube-apiserver", "kube-controller-manager") if not (PROGRAMS / name).exists()
    ]:
        return f"{', '.join(absent)} not built: `make test-kubernetes` builds them"
    if os.geteuid() != 0:
        return "pods get networks of their own, which takes root"
    if absent := [name for name in ("ip", "nsenter", "openssl") if not shutil.which(name)]:
        return f"{', '.join(absent)} not installed"
    return ""


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """One that answers and has the namespace; ended at the end."""
    etcd, peer, port = free_ports(3)
    plane = ControlPlane(folder, f"https://127.0.0.1:{port}")
    processes = []
    try:
        processes.append(run(folder, "etcd", *etcd_flags(folder, etcd, peer)))
        processes.append(run(folder, "kube-apiserver", *api_server_flags(folder, etcd, port)))
        wait_for(lambda: plane.ca.exists() and plane.api().says_ok("/readyz"), processes)
        kubeconfig = plane.kubeconfig("admin")
        flags = [f"--kubeconfig={kubeconfig}", f"--controllers={CONTROLLERS}", "--leader-elect=false"]
        processes.append(run(folder, "kube-controller-manager", *flags, "--port=0", "--secure-port=0"))
        create_namespace(plane.api())
        wait_for(lambda: plane.api().get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"), processes)
        yield plane
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


def create_namespace(api: Api) -> None:
    api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    role = yaml.safe_load((Path(__file__).parents[2] / "docs" / "kubernetes-role.yaml").read_text())
    api.post(f"{rbac}/roles", role | {"metadata": role["metadata"] | {"namespace": NAMESPACE}})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "serving"}
    api.post(f"{rbac}/rolebindings", {"metadata": {"name": "serving"}, "roleRef": reference, "subjects": [subject]})


def etcd_flags(folder: Path, port: int, peer: int) -> list[str]:
    client, own = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={own}",
        f"--initial-advertise-peer-urls={own}",
        f"--initial-cluster=default={own}",
    ]


def api_server_flags(folder: Path, etcd: int, port: int) -> list[str]:
    tokens = folder / "tokens.csv"
    groups = {"admin": '"system:masters"'}
    tokens.write_text("".join(f"{token},{user},{user},{groups.get(user, '')}\n" for user, token in TOKENS.items()))
    key = folder / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--advertise-address={network.HOST}",  # a loopback address is refused
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certs'}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--endpoint-reconciler-type=none",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
    ]


def run(folder: Path, program: str, *flags: str) -> subprocess.Popen[bytes]:
    with (folder / f"{program}.log").open("wb") as log:
        return subprocess.Popen([str(PROGRAMS / program), *flags], stdout=log, stderr=log, cwd=folder)


def wait_for(question, processes, seconds: float = 60) -> None:
    """Until it has an answer; an error if one of the processes ends before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for process in processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args[0]} ended with {process.returncode}; see its log beside it")
        if question():
            return
        time.sleep(0.2)
    raise TimeoutError(f"no answer within {seconds} s")


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
