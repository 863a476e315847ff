"""What is made in a cluster for one start of a server, as manifests: settings in, objects out; no requests.

    deployment:   Deployment + Service [+ PodDisruptionBudget] [+ HorizontalPodAutoscaler | ScaledObject]
    kserve:       InferenceService
    nim-service:  NIMService

The first is the owner: what follows it belongs to it and goes with it.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from flows.errors import ServingError
from flows.serving.runtimes.kubernetes_options import RUNNING_REQUESTS, KubernetesOptions
from flows.serving.secret_names import SECRET
from flows.serving.variants.launch import Launch, Mount, Order

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

LABEL = "prefect-finetune/"
MANAGED = {"app.kubernetes.io/managed-by": "prefect-finetune"}
KINDS = {"deployment": "Deployment", "kserve": "InferenceService", "nim-service": "NIMService"}
NIM_MODELS = "/model-store"  # where the NIM Operator mounts its storage
# While a model loads only this probe asks, so it may ask often: what it sees is when the pod is READY.
STARTUP_PERIOD_S = 2
READY = {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3}
# An engine at its limit answers late. Only one that says nothing for two minutes is started again.
LIVE = {"periodSeconds": 15, "timeoutSeconds": 30, "failureThreshold": 8}
LIVE_PATHS = {"nim": "/v1/health/live"}
TARGETS = {"cpu": 70.0, RUNNING_REQUESTS: 8.0}

Manifest = dict[str, Any]


def manifests(launch: Launch, order: Order, name: str, owner: str, log: str) -> list[Manifest]:
    """All objects of one start, the owner first. `name` is theirs, `owner` tells our store from others' in the cluster.

    Raises:
        ServingError: the model folder, or another one that is needed, cannot be reached in the cluster.
    """
    options = order.config.kubernetes
    labels = MANAGED | {
        LABEL + "owner": owner,
        LABEL + "name": order.config.name,
        LABEL + "start": name,
        LABEL + "revision": order.revision[:40],
        LABEL + "version": importlib.metadata.version("prefect-finetune"),
    }
    head = {"name": name, "namespace": options.namespace, "labels": labels, "annotations": {LABEL + "log": log}}
    if options.kind == "kserve":
        return [_inference_service(launch, order, head)]
    if options.kind == "nim-service":
        return [_nim_service(launch, order, head)]
    made = [_deployment(launch, order, head), _service(launch, head)]
    if options.disruption_budget:
        made.append(_disruption_budget(head))
    if options.autoscaling == "hpa":
        made.append(_autoscaler(options, head))
    elif options.autoscaling == "keda":
        made.append(_scaled_object(options, head))
    return made


def model_path(config: ServeConfig, model_dir: str) -> str:
    """Where the server sees the model folder: at its own path, but where the NIM Operator mounts things."""
    if config.kubernetes.kind == "nim-service" and config.kubernetes.volume == "claim":
        return NIM_MODELS
    return model_dir


def budget_s(launch: Launch, order: Order) -> float:
    """Seconds from the start to the first answer."""
    return order.config.startup_budget_s or launch.startup_budget_s


def selector(kind: str, name: str) -> str:
    """The label by which the pods of a start are found, whoever made them."""
    labels = {"InferenceService": "serving.kserve.io/inferenceservice", "NIMService": "app"}
    return f"{labels.get(kind, LABEL + 'start')}={name}"


def _deployment(launch: Launch, order: Order, head: Manifest) -> Manifest:
    options, start = order.config.kubernetes, {LABEL + "start": head["name"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": head,
        "spec": {
            "replicas": replicas(options),
            "selector": {"matchLabels": start},
            "progressDeadlineSeconds": math.ceil(budget_s(launch, order)) + 60,  # who waits here gives up first
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": head["labels"]}, "spec": _pod(launch, order, "server")},
        },
    }


def _service(launch: Launch, head: Manifest) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": head,
        "spec": {
            "type": "ClusterIP",
            "selector": {LABEL + "start": head["name"]},
            "ports": [{"name": "http", "port": launch.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _disruption_budget(head: Manifest) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": head,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {LABEL + "start": head["name"]}}},
    }


def _autoscaler(options: KubernetesOptions, head: Manifest) -> Manifest:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": head,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": head["name"]},
            "minReplicas": options.min_replicas,
            "maxReplicas": options.max_replicas,
            "metrics": _metrics(options),
        },
    }


def _metrics(options: KubernetesOptions) -> list[Manifest]:
    if options.metric == "cpu":
        target = {"type": "Utilization", "averageUtilization": round(_target(options))}
        return [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    target = {"type": "AverageValue", "averageValue": f"{_target(options):g}"}
    return [{"type": "Pods", "pods": {"metric": {"name": options.metric}, "target": target}}]


def _scaled_object(options: KubernetesOptions, head: Manifest) -> Manifest:
    name, target = head["name"], f"{_target(options):g}"
    if options.metric == "cpu":
        trigger: Manifest = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": target}}
    else:
        query = f'sum({options.metric}{{namespace="{options.namespace}",pod=~"{name}-.*"}})'
        metadata = {"serverAddress": options.prometheus_url, "query": query, "threshold": target}
        trigger = {"type": "prometheus", "metadata": metadata}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": head,
        "spec": {
            "scaleTargetRef": {"name": name},
            "minReplicaCount": options.min_replicas,
            "maxReplicaCount": options.max_replicas,
            "triggers": [trigger],
        },
    }


def _inference_service(launch: Launch, order: Order, head: Manifest) -> Manifest:
    options = order.config.kubernetes
    head = head | {"annotations": head["annotations"] | {"serving.kserve.io/deploymentMode": "RawDeployment"}}
    scaled = options.autoscaling != "none"
    predictor: Manifest = {
        "minReplicas": replicas(options),
        "maxReplicas": options.max_replicas if scaled else options.replicas,
        "labels": head["labels"],
        **_pod(launch, order, "kserve-container"),
    }
    if scaled:
        predictor |= {"scaleMetric": "cpu", "scaleTarget": round(_target(options))}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": head,
        "spec": {"predictor": predictor},
    }


def _nim_service(launch: Launch, order: Order, head: Manifest) -> Manifest:
    options = order.config.kubernetes
    repository, _, tag = launch.image.rpartition(":")
    image: Manifest = {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}
    if options.image_pull_secrets:
        image["pullSecrets"] = options.image_pull_secrets
    spec: Manifest = {
        "image": image,
        # The operator sets the cache's place and the port itself.
        "env": [one for one in _env(launch, options) if one["name"] not in ("NIM_CACHE_PATH", "NIM_SERVER_PORT")],
        "expose": {"service": {"type": "ClusterIP", "port": launch.port}},
        "labels": head["labels"],
        "resources": _resources(options),
        "storage": _nim_storage(order),
        "startupProbe": {"enabled": True, "probe": _startup(launch, order) | _get(launch.ready_path, launch.port)},
    }
    if options.autoscaling == "none":
        spec["replicas"] = options.replicas
    else:
        hpa = {"minReplicas": options.min_replicas, "maxReplicas": options.max_replicas, "metrics": _metrics(options)}
        spec["scale"] = {"enabled": True, "hpa": hpa}
    if options.nim_auth_secret:
        spec["authSecret"] = options.nim_auth_secret
    spec |= _placement(options)
    return {"apiVersion": "apps.nvidia.com/v1alpha1", "kind": "NIMService", "metadata": head, "spec": spec}


def _nim_storage(order: Order) -> Manifest:
    options = order.config.kubernetes
    storage: Manifest = {"emptyDir": {}}
    if options.volume == "claim":
        path = _in_claim(options, str(order.place.model_dir))
        storage = {"pvc": {"name": options.claim, **({"subPath": path} if path else {})}, "readOnly": True}
    return storage | ({"sharedMemorySizeLimit": f"{_mib(options.shm_gib)}Mi"} if options.shm_gib else {})


def _pod(launch: Launch, order: Order, container: str) -> Manifest:
    options = order.config.kubernetes
    volumes, mounts = _volumes(launch, order)
    pod: Manifest = {
        "containers": [_container(launch, order, container, mounts)],
        "volumes": volumes,
        # A Service named vllm would set VLLM_PORT to tcp://..., which vLLM takes for its own.
        "enableServiceLinks": False,
        "automountServiceAccountToken": bool(options.service_account),
        "terminationGracePeriodSeconds": options.drain_s + options.grace_s,
        **_placement(options),
    }
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    if options.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    return pod


def _container(launch: Launch, order: Order, name: str, mounts: list[Manifest]) -> Manifest:
    options = order.config.kubernetes
    container: Manifest = {
        "name": name,
        "image": launch.image,
        "env": _env(launch, options),
        "ports": [{"name": "http", "containerPort": launch.port, "protocol": "TCP"}],
        "resources": _resources(options),
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False},
        **_probes(launch, order),
    }
    if launch.command:
        container["command"] = launch.command
    if options.drain_s:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", f"sleep {options.drain_s}"]}}}
    return container


def _probes(launch: Launch, order: Order) -> Manifest:
    """Started, ready, alive. Without a path that answers as Kubernetes wants it (200 to 399), an open port must do."""
    port: Manifest = {"tcpSocket": {"port": launch.port}}
    readable = launch.ready_path and 200 <= launch.ready_status < 400
    ready = _get(launch.ready_path, launch.port) if readable else port
    live = _get(LIVE_PATHS.get(order.config.variant, launch.ready_path), launch.port) if readable else port
    return {
        "startupProbe": _startup(launch, order) | ready,
        "readinessProbe": READY | {"timeoutSeconds": math.ceil(launch.ready_timeout_s)} | ready,
        "livenessProbe": LIVE | live,
    }


def _startup(launch: Launch, order: Order) -> Manifest:
    threshold = math.ceil(budget_s(launch, order) / STARTUP_PERIOD_S)
    return {
        "periodSeconds": STARTUP_PERIOD_S,
        "timeoutSeconds": math.ceil(launch.ready_timeout_s),
        "failureThreshold": threshold,
    }


def _get(path: str, port: int) -> Manifest:
    return {"httpGet": {"path": path, "port": port}}


def _env(launch: Launch, options: KubernetesOptions) -> list[Manifest]:
    """Plain values, and references to Secrets; a value that looks like a secret is left out."""
    references = dict(entry.split("=", 1) for entry in options.secret_env)
    plain = {k: v for k, v in launch.env.items() if k not in references and not SECRET.search(k)}
    found: list[Manifest] = [{"name": name, "value": value} for name, value in sorted(plain.items())]
    for name, reference in references.items():
        secret, _, key = reference.partition(":")
        found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return found


def _resources(options: KubernetesOptions) -> Manifest:
    """What a pod gets is what it asked for: half-promised memory ends servers at the worst moment."""
    wanted = {
        "cpu": f"{round(options.cpus * 1000)}m" if options.cpus else "",
        "memory": f"{_mib(options.memory_gib)}Mi" if options.memory_gib else "",
        options.gpu_resource: str(int(options.gpus)) if options.gpus else "",
    }
    given = {name: amount for name, amount in wanted.items() if amount}
    return {"requests": given, "limits": given} if given else {}


def _volumes(launch: Launch, order: Order) -> tuple[list[Manifest], list[Manifest]]:
    options, place = order.config.kubernetes, order.place
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    if options.shm_gib:
        size = f"{_mib(options.shm_gib)}Mi"
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    if options.volume == "none":
        return volumes, mounts
    wanted = [Mount(str(place.model_dir), place.model_path), *launch.mounts]
    if options.volume == "claim":
        source = {"claimName": options.claim, "readOnly": not any(mount.writable for mount in wanted)}
        volumes.append({"name": "models", "persistentVolumeClaim": source})
    for number, mount in enumerate(wanted):
        mounted: Manifest = {"name": "models", "mountPath": mount.target, "readOnly": not mount.writable}
        if options.volume == "claim":
            path = _in_claim(options, mount.source, model=not number)
            mounted |= {"subPath": path} if path else {}
        else:
            mounted["name"] = f"folder-{number}"
            volumes.append({"name": mounted["name"], "hostPath": {"path": mount.source, "type": "Directory"}})
        mounts.append(mounted)
    return volumes, mounts


def _in_claim(options: KubernetesOptions, folder: str, model: bool = True) -> str:
    """The path of a folder of this machine within the claim; empty for the whole of it."""
    if model and (options.sub_path or not options.claim_folder):
        return options.sub_path
    root = os.path.abspath(os.path.expanduser(options.claim_folder)) if options.claim_folder else ""
    if not root or not PurePosixPath(folder).is_relative_to(root):
        raise ServingError(
            f"{folder} is not in the claim {options.claim}, so no pod can see it: put it below "
            f"{root or 'a folder where the claim is mounted here'}, and name that in serve.kubernetes.claim_folder."
        )
    path = str(PurePosixPath(folder).relative_to(root))
    return "" if path == "." else path


def _placement(options: KubernetesOptions) -> Manifest:
    placement: Manifest = {}
    if options.node_selector:
        placement["nodeSelector"] = dict(entry.split("=", 1) for entry in options.node_selector)
    if options.tolerations:
        placement["tolerations"] = [_toleration(entry) for entry in options.tolerations]
    return placement


def _toleration(entry: str) -> Manifest:
    taint, _, effect = entry.partition(":")
    key, equals, value = taint.partition("=")
    toleration = {"key": key, "operator": "Equal" if equals else "Exists"}
    return toleration | ({"value": value} if equals else {}) | ({"effect": effect} if effect else {})


def replicas(options: KubernetesOptions) -> int:
    """Pods to begin with."""
    return options.replicas if options.autoscaling == "none" else options.min_replicas


def _target(options: KubernetesOptions) -> float:
    return options.metric_target or TARGETS[options.metric]


def _mib(gib: float) -> int:
    return max(1, round(gib * 1024))
