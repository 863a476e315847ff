"""Endpoints in a cluster, through the real client and a small API server; a real one: tests/kubernetes."""

import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.endpoint_client.target import check
from flows.errors import ServingError
from flows.progress import silent
from flows.serving import access, history, listing, records, revisions
from flows.serving.ask import ask
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import kubernetes
from flows.serving.scale import scale
from flows.serving.start import problems
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.sweep import end_orphans
from flows.serving.watch import watch
from tests.kubernetes.ready import ready_pods
from tests.serving import folders
from tests.serving.kubernetes_stub import Cluster, Handler

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def model(tmp_path, cluster):
    folder = folders.model(tmp_path / "claim" / "runs" / "7")
    cluster.model = str(folder)
    return folder


def config(cluster, image="vllm:1", **settings):
    folder = str(cluster.kubeconfig.parent / "claim")
    own = {"kubeconfig": str(cluster.kubeconfig), "namespace": "models", "claim": "weights", "claim_folder": folder}
    options = own | {"image": image} | settings.pop("kubernetes", {})
    return ServeConfig(**{"name": "pod", "variant": "vllm", "runtime": "kubernetes", "kubernetes": options} | settings)


def served(cluster, model, folder, **settings):
    settings = {"served_model_name": str(model)} | settings
    return start_endpoint(config(cluster, **settings), model, folder, silent)


def kinds(cluster):
    return sorted(plural for plural, _ in cluster.objects)


def test_a_model_serves_from_pods_is_used_again_and_nothing_is_left_of_it(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    endpoint = served(cluster, model, folder, kubernetes={"replicas": 2, "disruption_budget": True})
    assert (endpoint.state, endpoint.model, endpoint.runtime) == (State.HEALTHY, str(model), "kubernetes")
    assert kinds(cluster) == ["deployments", "poddisruptionbudgets", "pods", "pods", "services", "services"]
    name = endpoint.process.name
    assert endpoint.url == f"{cluster.url}/api/v1/namespaces/models/services/http:{name}:8000/proxy/v1"
    assert endpoint.metrics_path == ""  # another pod may tell them each time
    assert endpoint.public_url == "http://pod.models.svc:8000/v1"
    assert ask(endpoint, "Hi?") == "yes"
    assert listing.list_records(folder) == [endpoint]
    assert served(cluster, model, folder, kubernetes={"replicas": 2, "disruption_budget": True}) == endpoint
    assert Path(endpoint.log).read_text() == "Uvicorn running\n"
    assert cluster.token not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())

    stopped = stop_endpoint("pod", folder)
    assert stopped.why == f"Ended Deployment models/{name}."
    assert kinds(cluster) == []
    assert stop_endpoint("pod", folder).why == stopped.why


def test_the_model_is_found_in_the_claim_by_its_folder_here(cluster, model, tmp_path):
    served(cluster, model, tmp_path / "endpoints")
    pod = cluster.of("deployments")[0]["spec"]["template"]["spec"]
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "models"]
    assert mount == {"name": "models", "mountPath": str(model), "subPath": "runs/7", "readOnly": True}
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "models"]
    assert volume["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}


def test_a_folder_outside_the_claim_is_refused_before_anything_is_made(cluster, tmp_path):
    outside = folders.model(tmp_path / "elsewhere")
    with pytest.raises(ServingError, match="elsewhere is not in the claim weights"):
        served(cluster, outside, tmp_path / "endpoints")
    assert cluster.objects == {}


def test_a_name_moves_to_new_pods_and_back(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    first = served(cluster, model, folder)
    second = served(cluster, model, folder, kubernetes={"image": "vllm:2"})
    assert (second.revision, second.url != first.url) == (2, True)
    assert [one["metadata"]["name"] for one in cluster.of("deployments")] == [second.process.name]
    assert (led_to(cluster), second.public_url) == (second.process.name, first.public_url)
    back = roll_back("pod", folder)
    assert (back.revision, revisions.load(folder, "pod", 3).again) == (3, 1)
    assert led_to(cluster) == back.process.name
    assert kinds(cluster) == ["deployments", "pods", "services", "services"]


def led_to(cluster):
    """The start to which the Service of the name leads."""
    return cluster.objects["services", "pod"]["spec"]["selector"]["prefect-finetune/start"]


def test_a_move_that_breaks_off_leads_the_service_back(cluster, model, tmp_path, monkeypatch):
    folder = tmp_path / "endpoints"
    first = served(cluster, model, folder)
    moved = []

    def full(*_):
        moved.append(led_to(cluster))
        raise ServingError("disk full")

    monkeypatch.setattr(revisions, "keep", full)
    with pytest.raises(ServingError, match="disk full"):
        served(cluster, model, folder, kubernetes={"image": "vllm:2"})
    assert moved != [first.process.name]
    assert led_to(cluster) == first.process.name
    assert kinds(cluster) == ["deployments", "pods", "services", "services"]


def test_a_service_of_that_name_that_is_somebody_elses_is_left_alone(cluster, model, tmp_path):
    cluster.create("services", {"metadata": {"name": "pod", "labels": {"app": "theirs"}}, "spec": {}})
    with pytest.raises(ServingError, match="Namespace models has a Service pod already, which is not this endpoint's"):
        served(cluster, model, tmp_path / "endpoints")
    assert kinds(cluster) == ["services"]


def test_the_watcher_leads_the_service_of_the_name_to_what_serves(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    endpoint = served(cluster, model, folder)
    cluster.objects["services", "pod"]["spec"]["selector"] = {"app": "by-hand"}
    watch(folder, NOON)
    assert cluster.objects["services", "pod"]["spec"]["selector"] == {"prefect-finetune/start": endpoint.process.name}


@pytest.mark.parametrize(
    ("image", "cause", "words"),
    [
        ("missing:1", Cause.IMAGE, 'ImagePullBackOff: Back-off pulling image "missing:1": not found'),
        ("config:1", Cause.SECRET, 'CreateContainerConfigError: secret "hugging-face" not found'),
        ("crash:1", Cause.BAD_OPTION, "CrashLoopBackOff: it ended 2 times, the last time with exit code 1"),
        ("oom:1", Cause.OUT_OF_MEMORY, "OOMKilled: it used more memory than serve.kubernetes.memory_gib allows"),
    ],
)
def test_what_no_waiting_mends_fails_at_once_says_why_and_leaves_the_old_one(
    cluster, model, tmp_path, image, cause, words
):
    folder = tmp_path / "endpoints"
    old = served(cluster, model, folder)
    with pytest.raises(StartError) as error:
        served(cluster, model, folder, kubernetes={"image": image})
    assert error.value.cause is cause
    assert f"kubernetes: {words}" in error.value.log_lines
    assert str(error.value).startswith(f"The vllm server of {model} on Deployment models/pod-")
    assert listing.list_records(folder) == [old]
    assert len(cluster.of("deployments")) == len(cluster.of("pods")) == 1


def test_a_pod_that_finds_no_node_is_waited_for_and_shown(cluster, model, tmp_path):
    notes = []
    with pytest.raises(StartError, match="was not healthy within startup_budget_s=1 s") as error:
        start_endpoint(
            config(cluster, image="huge:1", startup_budget_s=1),
            model,
            tmp_path / "endpoints",
            lambda done, total, note="", /, **_: notes.append(note),
        )
    assert error.value.cause is Cause.NO_ROOM
    assert notes[-1] == "pod.next: Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    assert cluster.objects == {}


def test_a_quota_is_told(cluster, model, tmp_path):
    cluster.quota = 'pods "pod-1" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'
    with pytest.raises(StartError) as error:
        served(cluster, model, tmp_path / "endpoints")
    assert error.value.cause is Cause.QUOTA
    assert "exceeded quota: gpus" in str(error.value)


def test_what_the_user_may_not_is_told_and_nothing_is_left(cluster, model, tmp_path):
    cluster.forbidden = {("POST", "services")}
    with pytest.raises(ServingError, match="Kubernetes does not allow it: services is forbidden.* Ask for a Role"):
        served(cluster, model, tmp_path / "endpoints")
    assert cluster.objects == {}
    assert records.names(tmp_path / "endpoints") == []


def test_what_the_cluster_does_not_know_is_told_and_nothing_is_left(cluster, model, tmp_path):
    cluster.unknown = {"inferenceservices"}
    with pytest.raises(
        ServingError, match="know a InferenceService of serving.kserve.io/v1beta1: is KServe installed there?"
    ):
        served(cluster, model, tmp_path / "endpoints", kubernetes={"kind": "kserve"})
    assert cluster.objects == {}


def test_a_namespace_that_is_not_there_is_told(cluster, model, tmp_path):
    with pytest.raises(ServingError, match="There is no namespace other at http"):
        served(cluster, model, tmp_path / "endpoints", kubernetes={"namespace": "other"})


def test_wrong_credentials_and_no_cluster_are_told_before_anything_starts(cluster, tmp_path):
    cluster.token = "another"
    assert "does not know this user: Unauthorized. Renew the credentials" in problems(config(cluster))[0]
    cluster.close()
    assert "No Kubernetes API server answers at http" in problems(config(cluster))[0]
    assert "Connection refused" in problems(config(cluster))[0]
    missing = config(cluster, kubernetes={"kubeconfig": str(tmp_path / "none")})
    assert f"The kubeconfig {tmp_path / 'none'} cannot be used" in problems(missing)[0]
    other = config(cluster, kubernetes={"context": "other"})
    assert "Expected object with name other" in problems(other)[0]


@pytest.mark.parametrize("said", ["<html>Log in</html>", "[]"])
def test_what_is_no_api_server_is_told(cluster, monkeypatch, said):
    monkeypatch.setattr(Handler, "result", lambda handler, parts, body: said)
    words = f"What answers at {cluster.url} is no Kubernetes API server: to GET /version it says '{said}'"
    assert words in problems(config(cluster))[0]


def test_an_api_server_that_is_gone_is_no_death_of_the_pods(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    endpoint = served(cluster, model, folder)
    cluster.close()
    assert kubernetes.alive(endpoint.process)
    (seen,) = listing.list_records(folder)
    assert seen.state is State.UNHEALTHY
    with pytest.raises(ServingError, match="No Kubernetes API server answers"):
        stop_endpoint("pod", folder)
    assert records.load(folder, "pod").state is State.DRAINING
    assert kubernetes.logs(endpoint.process, 5) == ["Uvicorn running"]
    assert kubernetes.list_owned(folder) == []


def test_the_watcher_follows_pods_and_makes_anew_what_was_deleted(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    endpoint = served(cluster, model, folder)

    def states(minutes):
        return [change.what for change in watch(folder, NOON + timedelta(minutes=minutes))]

    assert states(0) == ["promoted", "healthy"]
    cluster.status = 503
    assert states(1) == ["unhealthy"]
    cluster.status = 200
    assert [states(2), states(3)] == [[], ["healthy"]]
    cluster.delete("deployments", endpoint.process.name)
    assert states(4) == ["failed"]
    assert states(5) == ["starting"]
    assert states(6) == ["healthy"]
    again = records.load(folder, "pod")
    assert again.process.name != endpoint.process.name
    assert history.load(folder, "pod").state is State.HEALTHY


def test_orphans_of_this_store_are_found_in_the_cluster_and_others_are_left(cluster, model, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    served(cluster, model, one)
    kept = served(cluster, model, other, name="other")
    orphan = records.load(one, "pod").process
    records.delete(one, "pod")
    assert [name for name, _ in kubernetes.list_owned(one)] == ["pod"]
    assert end_orphans(one) == [f"Deployment models/{orphan.name} of pod"]
    assert end_orphans(other) == []
    assert [deployment["metadata"]["name"] for deployment in cluster.of("deployments")] == [kept.process.name]


def test_a_start_that_was_killed_is_cleared_by_the_next(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    code = (
        "import os; from pathlib import Path; from flows.progress import silent\n"
        "from flows.serving.config import ServeConfig; from flows.serving.promotion import Promotion\n"
        f"config = ServeConfig.model_validate_json({config(cluster).model_dump_json()!r})\n"
        f"with Promotion(config, Path({str(model)!r}), Path({str(folder)!r})) as promotion:\n"
        "    promotion.start(lambda *_, **__: os._exit(9))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert records.names(folder) == ["pod.next"]
    endpoint = served(cluster, model, folder)
    assert [one["metadata"]["name"] for one in cluster.of("deployments")] == [endpoint.process.name]


def test_replicas_are_changed_and_kept_in_the_revision(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    served(cluster, model, folder)
    endpoint, _ = scale("pod", 3, folder)
    assert len(cluster.of("pods")) == ready_pods(endpoint.process) == 3
    assert revisions.load(folder, "pod", 1).config.kubernetes.replicas == 3
    assert served(cluster, model, folder, kubernetes={"replicas": 3}) == endpoint
    with pytest.raises(ServingError, match=r"serve\.kubernetes\.replicas: 1001\. Input should be less than"):
        scale("pod", 1001, folder)
    assert len(cluster.of("pods")) == 3
    scale("pod", 1, folder)
    assert len(cluster.of("pods")) == 1


def test_replicas_that_cannot_be_changed_are_told(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    with pytest.raises(ServingError, match="There is no endpoint 'pod'"):
        scale("pod", 2, folder)
    served(cluster, model, folder, kubernetes={"autoscaling": "hpa"})
    with pytest.raises(ServingError, match="0 replicas serve nobody"):
        scale("pod", 0, folder)
    with pytest.raises(ServingError, match="scaled by hpa between 1 and 2 replicas"):
        scale("pod", 3, folder)
    stop_endpoint("pod", folder)
    with pytest.raises(ServingError, match="pod is STOPPED"):
        scale("pod", 3, folder)


def test_an_inference_service_is_waited_for_asked_scaled_and_deleted(cluster, model, tmp_path):
    folder = tmp_path / "endpoints"
    endpoint = served(cluster, model, folder, kubernetes={"kind": "kserve"})
    assert endpoint.url.endswith(f"/services/http:{endpoint.process.name}-predictor:80/proxy/v1")
    assert kinds(cluster) == ["inferenceservices", "pods", "services"]
    [service] = cluster.of("services")
    assert service["spec"]["selector"] == {"serving.kserve.io/inferenceservice": endpoint.process.name}
    scale("pod", 2, folder)
    assert kinds(cluster) == ["inferenceservices", "pods", "pods", "services"]
    stop_endpoint("pod", folder)
    assert kinds(cluster) == []


def test_many_requests_go_the_same_way(cluster, model, tmp_path):
    check(access.target(served(cluster, model, tmp_path / "endpoints")))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": 0.5}, "0.5 GPUs cannot be given: Kubernetes gives whole ones"),
        ({"nodes": 2}, "takes a LeaderWorkerSet, which is not made here"),
        ({"claim": ""}, "name the persistent volume claim"),
        ({"sub_path": "a/../../b"}, "leaves the claim"),
        ({"url": "https://models.example.org/v1"}, "write {object} where the Service's name belongs"),
        ({"kind": "nim-service"}, "a NIMService serves the variant nim, not vllm"),
        ({"kind": "kserve", "autoscaling": "keda"}, "keda scales a deployment"),
        ({"kind": "kserve", "disruption_budget": True}, "kserve keeps its own"),
        ({"autoscaling": "hpa", "metric": "cpu"}, "scaling by CPU needs to know"),
        ({"autoscaling": "hpa", "min_replicas": 3}, "more than serve.kubernetes.max_replicas"),
        ({"autoscaling": "keda"}, "say where KEDA finds Prometheus"),
    ],
)
def test_what_cannot_work_is_refused_in_words(cluster, options, words):
    assert words in problems(config(cluster, kubernetes=options))[0]


def test_secret_values_and_more_gpus_than_asked_for_are_refused(cluster, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = problems(config(cluster, secret_variables=["HF_TOKEN"], vllm={"tensor_parallel_size": 2}))
    assert "needs 2 GPUs in one pod, not 0" in found[0]
    assert "Put it into a Secret of the cluster" in found[1]
    assert "hf_secret" not in "".join(found)


def test_the_token_is_in_no_log(cluster, model, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    served(cluster, model, tmp_path / "endpoints")
    assert cluster.token not in caplog.text
