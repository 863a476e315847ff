"""Manifests as a real API server takes them: it drops, without a word, every field that it does not know."""

import json
from functools import partial

import pytest

from tests.kubernetes.control_plane import NAMESPACE, wait_for
from tests.serving.test_kubernetes_objects import CRDS, launched

CUSTOM = {
    "InferenceService": ("serving.kserve.io", "v1beta1", "inferenceservices"),
    "NIMService": ("apps.nvidia.com", "v1alpha1", "nimservices"),
    "ScaledObject": ("keda.sh", "v1alpha1", "scaledobjects"),
}
FULL = {  # amounts that are written as they are sent: 8192Mi would become 8Gi
    "cpus": 0.5,
    "memory_gib": 1.5,
    "gpus": 1,
    "shm_gib": 1.5,
    "tolerations": ["gpu=a:NoSchedule", "spot"],
    "node_selector": ["zone=a"],
    "service_account": "server",
    "image_pull_secrets": ["registry"],
    "secret_env": ["HF_TOKEN=hugging-face:token"],
}


@pytest.fixture(scope="session")
def custom(plane):
    """The custom resources, by the schemas of KServe, the NIM Operator and KEDA."""
    for kind, (group, version, plural) in CUSTOM.items():
        spec = structural(json.loads((CRDS / f"{kind}.json").read_text())["spec"])
        schema = {"type": "object", "properties": {"spec": spec}}
        versions = [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
        names = {"kind": kind, "plural": plural, "singular": kind.lower()}
        spec = {"group": group, "names": names, "scope": "Namespaced", "versions": versions}
        plane.api().post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            {"metadata": {"name": f"{plural}.{group}"}, "spec": spec},
        )
        wait_for(partial(plane.api().get, path(kind)), [])


def structural(schema):
    """A schema as an API server takes it: that no other fields are allowed goes without saying there."""
    if isinstance(schema, list):
        return [structural(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: structural(value) for key, value in schema.items() if (key, value) != ("additionalProperties", False)}


def path(kind):
    known = {"Deployment": "apis/apps/v1", "Service": "api/v1"}
    group, version, plural = CUSTOM.get(kind, ("", "", f"{kind.lower()}s"))
    return f"/{known.get(kind) or f'apis/{group}/{version}'}/namespaces/{NAMESPACE}/{plural}"


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("vllm", FULL),
        ("transformers", {"volume": "host-path", "replicas": 3, "shm_gib": 1.5}),
        ("vllm", {"autoscaling": "keda", "prometheus_url": "http://prometheus:9090", "shm_gib": 1.5}),
        ("vllm", {"kind": "kserve", **FULL}),
        ("vllm", {"kind": "kserve", "autoscaling": "hpa", "metric": "cpu", "cpus": 2}),
        ("nim", {"kind": "nim-service", "nim_auth_secret": "ngc", **FULL}),
        ("nim", {"kind": "nim-service", "autoscaling": "hpa", "image": "nvcr.io/nim/a:2"}),
    ],
)
def test_the_api_server_keeps_every_field_that_it_is_sent(plane, custom, variant, options):
    for kind, manifest in launched(variant, **{"namespace": NAMESPACE} | options).items():
        stored = plane.api().post(f"{path(kind)}?dryRun=All", manifest)
        assert missing(manifest, stored) == []


def missing(sent, stored, path=""):
    """Fields of `sent` that are not in `stored` as they were."""
    if isinstance(sent, dict):
        return [
            found for key, value in sent.items() for found in missing(value, (stored or {}).get(key), f"{path}.{key}")
        ]
    if isinstance(sent, list) and isinstance(stored, list) and len(sent) == len(stored):
        return [
            found
            for number, pair in enumerate(zip(sent, stored, strict=True))
            for found in missing(*pair, f"{path}[{number}]")
        ]
    return [] if sent == stored or not sent else [f"{path}: {sent!r} became {stored!r}"]
