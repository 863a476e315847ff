"""Manifests against the official schemas of Kubernetes, and of KServe, the NIM Operator and KEDA (in crds/)."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.progress import silent
from flows.serving.config import ServeConfig
from flows.serving.registry import VARIANTS
from flows.serving.runtimes import kubernetes_objects as objects
from flows.serving.runtimes.kubernetes_options import KubernetesOptions, problems
from flows.serving.start import with_image
from flows.serving.variants.launch import Launch, Mount, Order, Place

CRDS = Path(__file__).parent / "crds"
VERSIONS = ["1.33", "1.37"]  # Kubernetes versions whose schemas are checked


def launched(variant="vllm", launch=None, **options):
    """All objects for those options, by kind."""
    own = {"image": "registry.example.org/server:1", "claim": "weights", "claim_folder": "/claim"}
    config = ServeConfig(
        name="terms", variant=variant, runtime="kubernetes", kubernetes=own | options, nim={"image": "nvcr.io/nim/a:2"}
    )
    config = with_image(config)
    path = objects.model_path(config, "/claim/a")
    place = Place(Path("/claim/a"), path, "0.0.0.0", 8000, container=True, own_network=True)
    if launch is None:
        launch = VARIANTS[variant].launch(config, place)
    order = Order(config, place, Path("/store/endpoints"), "f" * 64, silent)
    made = objects.manifests(launch, order, "terms-0a1b2c", "owner", "/store/log")
    return {manifest["kind"]: manifest for manifest in made}


def container(made):
    return made["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def check(made):
    """Each manifest against its schema, unknown fields included."""
    for kind, manifest in made.items():
        if (file := CRDS / f"{kind}.json").exists():
            jsonschema.validate(manifest["spec"], json.loads(file.read_text())["spec"])
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)


def test_a_deployment_and_its_service_hold_what_an_engine_needs():
    made = launched(gpus=2, cpus=3.5, memory_gib=24, secret_env=["HF_TOKEN=hugging-face:token"], grace_s=30)
    assert list(made) == ["Deployment", "Service"]
    spec = made["Deployment"]["spec"]
    pod, server = spec["template"]["spec"], container(made)
    assert spec["progressDeadlineSeconds"] == 1860
    assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
    assert pod["terminationGracePeriodSeconds"] == 40
    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/sh", "-c", "sleep 10"]
    amounts = {"cpu": "3500m", "memory": "24576Mi", "nvidia.com/gpu": "2"}
    assert server["resources"] == {"requests": amounts, "limits": amounts}
    assert server["startupProbe"]["failureThreshold"] * server["startupProbe"]["periodSeconds"] == 1800
    assert server["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8000}
    live = server["livenessProbe"]
    assert live["timeoutSeconds"] >= 30
    assert live["failureThreshold"] * live["periodSeconds"] >= 120
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8192Mi"}} in pod["volumes"]
    reference = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hugging-face", "key": "token"}}}
    assert reference in server["env"]
    assert made["Service"]["spec"]["selector"] == spec["selector"]["matchLabels"]
    check(made)


def test_no_secret_value_gets_into_a_manifest(monkeypatch):
    monkeypatch.setenv("NGC_API_KEY", "nvapi-secret")
    for made in (launched("nim"), launched("nim", kind="nim-service"), launched("nim", kind="kserve")):
        assert "nvapi-secret" not in json.dumps(made)


def test_nim_lives_by_its_live_path_and_is_ready_by_its_ready_path():
    server = container(launched("nim"))
    assert server["livenessProbe"]["httpGet"]["path"] == "/v1/health/live"
    assert server["startupProbe"]["httpGet"]["path"] == "/v1/health/ready"
    assert "command" not in server


def test_a_server_without_a_readable_path_is_known_by_its_port():
    for path, status in (("", 200), ("/up", 418)):
        launch = Launch(["serve"], {}, "m", path, image="a:1", port=9000, ready_status=status)
        made = launched("command", launch)
        probes = [container(made)[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert [probe["tcpSocket"] for probe in probes] == [{"port": 9000}] * 3
        check(made)


def test_taints_and_labels_read_as_kubectl_writes_them():
    made = launched(tolerations=["gpu=a100:NoSchedule", "spot:NoExecute", "any"], node_selector=["zone=a", "empty="])
    pod = made["Deployment"]["spec"]["template"]["spec"]
    assert pod["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "a100", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
        {"key": "any", "operator": "Exists"},
    ]
    assert pod["nodeSelector"] == {"zone": "a", "empty": ""}


def test_a_folder_of_a_node_is_mounted_at_its_own_path_and_a_cache_may_be_written():
    launch = Launch(None, {}, "m", "/health", image="a:1", port=8000, mounts=(Mount("/data/c", "/c", writable=True),))
    made = launched("command", launch, volume="host-path")
    assert container(made)["volumeMounts"][1:] == [
        {"name": "folder-0", "mountPath": "/claim/a", "readOnly": True},
        {"name": "folder-1", "mountPath": "/c", "readOnly": False},
    ]
    check(made)


def test_scaling_objects_aim_at_the_deployment():
    hpa = launched(autoscaling="hpa", max_replicas=4)["HorizontalPodAutoscaler"]["spec"]
    assert hpa["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "terms-0a1b2c"}
    target = {"type": "AverageValue", "averageValue": "8"}
    assert hpa["metrics"] == [
        {"type": "Pods", "pods": {"metric": {"name": "vllm:num_requests_running"}, "target": target}}
    ]
    keda = launched(autoscaling="keda", prometheus_url="http://prometheus:9090", metric_target=4)["ScaledObject"]
    [trigger] = keda["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        'sum(vllm:num_requests_running{namespace="default",pod=~"terms-0a1b2c-.*"})'
    )
    assert trigger["metadata"]["threshold"] == "4"


def test_a_nim_service_says_what_its_operator_asks():
    made = launched("nim", kind="nim-service", nim_auth_secret="ngc", image="nvcr.io/nim/meta/llama:2.0.11", gpus=1)
    spec = made["NIMService"]["spec"]
    assert spec["image"] == {"repository": "nvcr.io/nim/meta/llama", "tag": "2.0.11", "pullPolicy": "IfNotPresent"}
    assert spec["storage"]["pvc"] == {"name": "weights", "subPath": "a"}
    assert {"name": "NIM_MODEL_PATH", "value": "/model-store"} in spec["env"]
    check(made)


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
OPTIONS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["deployment", "kserve", "nim-service"]),
        "replicas": st.integers(1, 9),
        "cpus": st.sampled_from([0, 0.5, 8]),
        "memory_gib": st.sampled_from([0, 0.5, 64]),
        "gpus": st.integers(0, 8),
        "gpu_resource": st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"]),
        "shm_gib": st.sampled_from([0, 0.25, 8]),
        "volume": st.sampled_from(["claim", "host-path", "none"]),
        "sub_path": st.sampled_from(["", "models/a"]),
        "node_selector": st.lists(st.sampled_from(["zone=a", "example.org/gpu=a100"]), unique=True),
        "tolerations": st.lists(st.sampled_from(["gpu=a:NoSchedule", "spot", "x:NoExecute"]), unique=True),
        "service_account": st.one_of(st.just(""), NAMES),
        "image_pull_secrets": st.lists(NAMES, max_size=2, unique=True),
        "secret_env": st.sampled_from([[], ["HF_TOKEN=hugging-face:token"]]),
        "nim_auth_secret": st.one_of(st.just(""), NAMES),
        "autoscaling": st.sampled_from(["none", "hpa", "keda"]),
        "metric": st.sampled_from(["vllm:num_requests_running", "cpu"]),
        "metric_target": st.sampled_from([0, 3.5, 50]),
        "prometheus_url": st.just("http://prometheus:9090"),
        "disruption_budget": st.booleans(),
        "drain_s": st.integers(0, 60),
        "grace_s": st.integers(1, 600),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=OPTIONS, variant=st.sampled_from(["vllm", "transformers", "sglang", "nim"]))
def test_whatever_the_form_lets_through_is_what_the_schemas_ask(options, variant):
    own = {"image": "registry.example.org/server:1", "claim": "weights"}
    config = ServeConfig(variant=variant, runtime="kubernetes", kubernetes=KubernetesOptions(**options | own))
    if not problems(config):
        check(launched(variant, **options))


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": "Not/A/Name"},
        {"claim": "../x"},
        {"tolerations": ["a=b:Sometimes"]},
        {"secret_env": ["HF_TOKEN=hf_plain-value"]},
        {"gpu_resource": "gpu"},
        {"url": "https://models.example.org"},
        {"sub_path": "/absolute"},
        {"kind": "pod"},
        {"replicas": 0},
    ],
)
def test_a_value_of_another_shape_is_refused_by_the_form(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KubernetesOptions(**wrong)
