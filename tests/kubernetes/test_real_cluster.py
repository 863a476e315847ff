"""The runtime `kubernetes` against a real API server and controller manager; pods are processes (kubelet.py).

Run by `make test-kubernetes`, as root, about three minutes; docs/serving.md says what it showed.
"""

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flows.base_models.resolve import BaseModelConfig, resolve
from flows.errors import ServingError
from flows.progress import silent
from flows.serving import access, history, records
from flows.serving.ask import ask
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import kubernetes
from flows.serving.scale import scale
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.sweep import end_orphans
from flows.serving.watch import watch
from tests.kubernetes.control_plane import NAMESPACE, wait_for
from tests.kubernetes.ready import ready_pods

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE = Path(__file__).parent


def left(plane):
    """What is in the namespace, by kind."""
    api, kinds = plane.api(), {"deployments": "apis/apps/v1", "pods": "api/v1", "services": "api/v1"}
    return {kind: len(api.items(f"/{group}/namespaces/{NAMESPACE}/{kind}")) for kind, group in kinds.items()}


def test_a_real_model_serves_from_a_deployment_is_asked_and_stopped(plane, kubelet, small, endpoints, tmp_path):
    model = Path(resolve(BaseModelConfig(name="tiny:llama-3"), tmp_path / "models").path)
    base = small(kubernetes={"image": "transformers:1", "volume": "host-path"})
    config = ServeConfig(name="llama", variant="transformers", runtime="kubernetes", kubernetes=base.kubernetes)
    notes = []
    endpoint = start_endpoint(config, model, endpoints, lambda done, total, note="", /, **_: notes.append(note))
    assert (endpoint.state, endpoint.model, endpoint.revision) == (State.HEALTHY, str(model), 1)
    assert endpoint.url.startswith(f"{plane.url}/api/v1/namespaces/{NAMESPACE}/services/http:llama-")
    assert ask(endpoint, "What is a bill of lading?")
    assert any("Uvicorn running" in line for line in kubernetes.logs(endpoint.process, 50))
    assert left(plane) == {"deployments": 1, "pods": 1, "services": 2}
    assert start_endpoint(config, model, endpoints, silent) == endpoint

    (pod,) = kubelet.of(endpoint.process.name)
    assert stop_endpoint("llama", endpoints).why == f"Ended Deployment {NAMESPACE}/{endpoint.process.name}."
    assert pod.process.poll() is not None
    assert left(plane) == {"deployments": 0, "pods": 0, "services": 0}


def test_replicas_share_the_requests_and_come_and_go(plane, kubelet, small, endpoints):
    endpoint = start_endpoint(small(), Path(), endpoints, silent)
    scaled, _ = scale("small", 3, endpoints)
    wait_for(lambda: ready_pods(scaled.process) == 3, [])
    wait_for(lambda: len(answers(endpoint, 30)) == 3, [])
    scale("small", 1, endpoints)
    wait_for(lambda: left(plane)["pods"] == 1, [])
    assert ask(endpoint, "Who?").startswith("10.244.97.")


def answers(endpoint, count):
    """Which pods answered that many questions."""
    return {ask(endpoint, "Who?") for _ in range(count)}


def test_a_name_moves_under_load_and_its_address_stays_and_drops_nothing(plane, kubelet, small, endpoints):
    first = start_endpoint(small(), Path(), endpoints, silent)
    done, answered, failed = threading.Event(), set(), []
    by_name = first.model_copy(update={"url": first.url.replace(first.process.name, "small")})

    def ask_on():
        while not done.is_set():
            try:
                answered.add(ask(by_name, "Who?"))
            except ServingError as error:
                failed.append(str(error))

    asking = [threading.Thread(target=ask_on) for _ in range(4)]
    for one in asking:
        one.start()
    second = start_endpoint(small(kubernetes={"image": "small:2"}), Path(), endpoints, silent)
    only = ask(second, "Who?")
    wait_for(lambda: only in answered, [])
    done.set()
    for one in asking:
        one.join()
    assert (len(answered), failed) == (2, [])
    assert second.public_url == first.public_url == f"http://small.{NAMESPACE}.svc:8000/v1"
    assert ask(by_name, "Who?") == only


def test_a_name_rolls_to_new_pods_and_back_and_an_answer_under_way_is_finished(plane, kubelet, small, endpoints):
    first = start_endpoint(small("--answer-s 4", kubernetes={"drain_s": 2}), Path(), endpoints, silent)
    got = []
    asking = threading.Thread(target=lambda: got.append(ask(first, "Who?")))
    asking.start()
    time.sleep(0.5)
    second = start_endpoint(small(kubernetes={"image": "small:2"}), Path(), endpoints, silent)
    asking.join()
    assert got[0].startswith("10.244.97.")
    assert (second.revision, second.process.name != first.process.name) == (2, True)
    assert left(plane) == {"deployments": 1, "pods": 1, "services": 2}
    assert ask(second, "Who?") != got[0]
    assert roll_back("small", endpoints).revision == 3
    assert left(plane) == {"deployments": 1, "pods": 1, "services": 2}


@pytest.mark.parametrize(
    ("words", "options", "cause", "said"),
    [
        (["--wrong"], {}, Cause.BAD_OPTION, "error: unrecognized arguments: --wrong\n(.|\n)*kubernetes: .*exit code 2"),
        ([], {"image": "absent:1"}, Cause.IMAGE, 'kubernetes: ImagePullBackOff: Back-off pulling image "absent:1"'),
        (
            [],
            {"secret_env": ["HF_TOKEN=hugging-face:token"]},
            Cause.SECRET,
            'kubernetes: CreateContainerConfigError: secret "hugging-face" not found',
        ),
    ],
)
def test_a_start_that_cannot_work_says_why_at_once_and_the_old_one_serves_on(
    plane, kubelet, small, endpoints, words, options, cause, said
):
    old = start_endpoint(small(), Path(), endpoints, silent)
    began = time.monotonic()
    with pytest.raises(StartError, match=said) as error:
        start_endpoint(small(*words, kubernetes=options), Path(), endpoints, silent)
    assert time.monotonic() - began < 30  # of a budget of 60 s
    assert error.value.cause is cause
    assert ask(old, "Who?").startswith("10.244.97.")
    assert left(plane) == {"deployments": 1, "pods": 1, "services": 2}


def test_a_secret_of_the_cluster_reaches_the_server_and_nothing_else(plane, kubelet, small, endpoints):
    base = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    plane.api().post(base, {"metadata": {"name": "named"}, "stringData": {"name": "from-a-secret"}})
    endpoint = start_endpoint(small(kubernetes={"secret_env": ["MODEL=named:name"]}), Path(), endpoints, silent)
    assert endpoint.model == "from-a-secret"


def test_a_pod_without_a_node_is_waited_for_and_shown(plane, kubelet, small, endpoints):
    notes = []
    config = small(kubernetes={"gpus": 1}, startup_budget_s=3)
    with pytest.raises(StartError, match="within startup_budget_s=3 s") as error:
        start_endpoint(config, Path(), endpoints, lambda done, total, note="", /, **_: notes.append(note))
    assert error.value.cause is Cause.NO_ROOM
    assert "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu." in notes[-1]
    assert left(plane) == {"deployments": 0, "pods": 0, "services": 0}


def test_a_quota_is_told_in_the_clusters_words(plane, kubelet, small, endpoints):
    base = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    plane.api().post(base, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    try:
        wait_for(lambda: (plane.api().get(f"{base}/none") or {}).get("status", {}).get("hard"), [])
        with pytest.raises(StartError, match="exceeded quota: none") as error:
            start_endpoint(small(), Path(), endpoints, silent)
    finally:
        plane.api().delete(f"{base}/none")
    assert error.value.cause is Cause.QUOTA
    assert left(plane) == {"deployments": 0, "pods": 0, "services": 0}


def test_a_kind_of_objects_that_this_old_cluster_does_not_know_is_told(plane, kubelet, small, endpoints):
    with pytest.raises(ServingError, match="does not know a PodDisruptionBudget of policy/v1: it is too old for that"):
        start_endpoint(small(kubernetes={"disruption_budget": True}), Path(), endpoints, silent)
    wait_for(lambda: left(plane) == {"deployments": 0, "pods": 0, "services": 0}, [])


def test_a_user_without_the_role_is_told_and_nothing_is_left(plane, kubelet, small, endpoints):
    with pytest.raises(
        ServingError, match='Kubernetes does not allow it: services "small" is forbidden: User "nobody"'
    ):
        start_endpoint(small(user="nobody"), Path(), endpoints, silent)
    assert records.names(endpoints) == []


def test_the_cluster_mends_a_crash_and_a_lost_pod_and_the_watcher_only_what_it_cannot(plane, kubelet, small, endpoints):
    endpoint = start_endpoint(small(), Path(), endpoints, silent)
    (pod,) = kubelet.of(endpoint.process.name)

    def state(minute):
        watch(endpoints, NOON + timedelta(minutes=minute))
        return history.load(endpoints, "small").state

    assert state(0) is State.HEALTHY
    os.kill(pod.process.pid, signal.SIGKILL)
    wait_for(lambda: pod.restarts == 1 and ready_pods(endpoint.process) == 1, [])
    assert state(1) is State.HEALTHY

    plane.api().delete(pod.path)
    wait_for(lambda: kubelet.of(endpoint.process.name) != [pod] and ready_pods(endpoint.process) == 1, [])
    wait_for(lambda: state(2) is State.HEALTHY, [])
    assert records.load(endpoints, "small") == endpoint

    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{endpoint.process.name}"
    plane.api().delete(path, propagationPolicy="Foreground")
    wait_for(lambda: left(plane) == {"deployments": 0, "pods": 0, "services": 1}, [])  # that of the name
    assert [state(3), state(4)] == [State.FAILED, State.STARTING]
    wait_for(lambda: state(4.5) is State.HEALTHY, [])
    assert records.load(endpoints, "small").process.name != endpoint.process.name


def test_a_server_that_is_slow_to_load_is_left_to_load(plane, kubelet, small, endpoints):
    endpoint = start_endpoint(small("--load-s 8"), Path(), endpoints, silent)
    (pod,) = kubelet.of(endpoint.process.name)
    assert (endpoint.state, pod.restarts) == (State.HEALTHY, 0)


def test_what_a_killed_start_left_is_found_by_its_label_and_ended(plane, kubelet, small, endpoints):
    endpoint = start_endpoint(small(), Path(), endpoints, silent)
    records.delete(endpoints, "small")
    assert end_orphans(endpoints) == [f"Deployment {NAMESPACE}/{endpoint.process.name} of small"]
    assert left(plane) == {"deployments": 0, "pods": 0, "services": 0}


def test_a_request_by_the_api_server_needs_the_users_credentials(plane, kubelet, small, endpoints):
    endpoint = start_endpoint(small(), Path(), endpoints, silent)
    url = f"{endpoint.url}/models"
    assert access.request(endpoint, "GET", url, 5).status_code == 200
    assert httpx.get(url, verify=False, trust_env=False).status_code in (401, 403)
