import os
import sys
from pathlib import Path

import pytest

from flows.serving.config import ServeConfig
from tests.kubernetes import control_plane, network
from tests.kubernetes.kubelet import Kubelet

SMALL = Path(__file__).with_name("small_server.py")
# What an image of this name brings: here, this machine's Python and its packages.
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/tmp", "PYTHONPATH": ""}
IMAGES = {
    "transformers:1": {"env": ENVIRONMENT, "command": []},
    "small:1": {"env": ENVIRONMENT, "command": []},
    "small:2": {"env": ENVIRONMENT, "command": []},
}


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    if why := control_plane.missing():
        pytest.fail(why)
    network.open_bridge()
    try:
        with control_plane.control_plane(tmp_path_factory.mktemp("plane")) as made:
            yield made
    finally:
        network.close_bridge()


@pytest.fixture(scope="session")
def kubelet(plane, tmp_path_factory):
    made = Kubelet(plane.api(), control_plane.NAMESPACE, tmp_path_factory.mktemp("pods"), IMAGES)
    yield made
    made.close()


@pytest.fixture
def small(plane, kubelet, tmp_path):
    """Settings of a small server in a pod; further words for its command line, other settings by name."""

    def settings(*words, user="serving", **more):
        kubernetes = {"kubeconfig": str(plane.kubeconfig(user)), "namespace": control_plane.NAMESPACE}
        kubernetes |= {"volume": "none", "image": "small:1", "drain_s": 1, "grace_s": 10, "shm_gib": 0}
        kubernetes |= more.pop("kubernetes", {})
        line = f"python3 {SMALL} {{port}} {' '.join(map(str, words))}"
        command = {"image": "small:1", "command_line": line, "health_path": "/health"}
        own = {"name": "small", "variant": "command", "runtime": "kubernetes", "startup_budget_s": 60}
        return ServeConfig(**own | {"command": command, "kubernetes": kubernetes} | more)

    return settings


@pytest.fixture
def endpoints(plane, tmp_path):
    """A folder of records; whatever is left in the namespace at the end is deleted."""
    yield tmp_path / "endpoints"
    api, place = plane.api(), f"namespaces/{control_plane.NAMESPACE}"
    for kind in (f"/apis/apps/v1/{place}/deployments", f"/api/v1/{place}/services"):
        for one in api.items(kind):
            api.delete(f"{kind}/{one['metadata']['name']}", propagationPolicy="Foreground")
    for kind in ("pods", "services"):
        control_plane.wait_for(lambda kind=kind: not api.items(f"/api/v1/{place}/{kind}"), [])


os.environ.setdefault("HF_HUB_OFFLINE", "1")
