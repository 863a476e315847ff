"""What a person chooses of a Kubernetes cluster, and what of it cannot work."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from flows.config import Config

if TYPE_CHECKING:
    from flows.serving.config import ServeConfig

DNS = r"[0-9a-z]([0-9a-z-]*[0-9a-z])?"
NAME = rf"^{DNS}(\.{DNS})*$"
LABEL = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,300}[A-Za-z0-9])?"
OBJECT = "{object}"
RUNNING_REQUESTS = "vllm:num_requests_running"

Name = Annotated[str, Field(pattern=NAME, max_length=253)]


class KubernetesOptions(Config):
    """A Deployment with its Service, or an object of KServe or of the NIM Operator, in a cluster."""

    kubeconfig: str = Field(
        default="",
        max_length=1024,
        title="Kubeconfig",
        description="Path of the kubeconfig; empty means the cluster that the flow runs in, else KUBECONFIG or "
        "~/.kube/config.",
    )
    context: str = Field(
        default="", max_length=253, title="Context", description="Context of the kubeconfig; empty means its current."
    )
    namespace: Annotated[str, Field(pattern=rf"^{DNS}$", max_length=63)] = Field(
        default="default", title="Namespace", description="Namespace that the objects are made in; it must exist."
    )
    kind: Literal["deployment", "kserve", "nim-service"] = Field(
        default="deployment",
        title="Kind",
        description="What is made: deployment is a Deployment and a Service, kserve an InferenceService (KServe), "
        "nim-service a NIMService (NIM Operator, for the variant nim).",
    )
    image: str = Field(
        default="",
        max_length=512,
        title="Image",
        description="Container image with its tag, in place of the variant's; empty means the variant's.",
    )
    replicas: int = Field(
        default=1, ge=1, le=1000, title="Replicas", description="How many pods serve; without autoscaling only."
    )
    nodes: int = Field(
        default=1, ge=1, le=64, title="Nodes per replica", description="Machines that share one replica: 1 only."
    )
    cpus: float = Field(
        default=0, ge=0, le=4096, title="CPUs", description="CPU time of a pod, in cores; 0 means no request, no limit."
    )
    memory_gib: float = Field(
        default=0,
        ge=0,
        le=65536,
        title="Memory (GiB)",
        description="Memory of a pod; 0 means no request and no limit. A server that needs more is ended.",
    )
    gpus: float = Field(
        default=0, ge=0, le=64, title="GPUs", description="Whole GPUs of a pod; 0 is none. Shares are MIG resources."
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        title="GPU resource",
        description="Name under which the cluster gives GPUs, as nvidia.com/gpu or nvidia.com/mig-1g.10gb.",
        pattern=r"^[0-9a-z.-]+/[0-9A-Za-z._-]{1,63}$",
    )
    shm_gib: float = Field(
        default=8,
        ge=0,
        le=1024,
        title="Shared memory (GiB)",
        description="Largest size of /dev/shm, through which an engine's workers talk; what is used counts as memory "
        "of the pod. 0 means the cluster's 64 MiB.",
    )
    volume: Literal["claim", "host-path", "none"] = Field(
        default="claim",
        title="Model volume",
        description="Where pods find the model: in a persistent volume claim; in the same folder of their node (one "
        "node, or the same share on all); none means that the image brings or fetches it.",
    )
    claim: str = Field(
        default="",
        title="Claim",
        description="Name of the persistent volume claim that holds models; mounted read-only.",
        pattern=rf"^({DNS}(\.{DNS})*)?$",
        max_length=253,
    )
    claim_folder: str = Field(
        default="",
        max_length=1024,
        title="Claim's folder here",
        description="Folder of this machine where the claim's volume is mounted too: the model's place in the claim "
        "follows from its folder. Empty: give the sub path.",
    )
    sub_path: str = Field(
        default="",
        max_length=1024,
        title="Sub path",
        description="Folder of the model within the claim; empty means as follows from the claim's folder here, or the "
        "whole claim.",
        pattern=r"^([^/].*)?$",
    )
    node_selector: list[Annotated[str, Field(pattern=LABEL + r"=[A-Za-z0-9._-]{0,63}$")]] = Field(
        default=[], max_length=100, title="Node selector", description="Labels of the nodes to use, KEY=VALUE an entry."
    )
    tolerations: list[
        Annotated[str, Field(pattern=LABEL + r"(=[A-Za-z0-9._-]{0,63})?(:(NoSchedule|PreferNoSchedule|NoExecute))?$")]
    ] = Field(
        default=[],
        max_length=100,
        title="Tolerations",
        description="Taints to tolerate as kubectl writes them, KEY=VALUE:EFFECT, KEY:EFFECT or KEY, an entry each.",
    )
    service_account: str = Field(
        default="",
        title="Service account",
        description="Service account of the pods; empty means the namespace's default, without its token.",
        pattern=rf"^({DNS}(\.{DNS})*)?$",
        max_length=253,
    )
    image_pull_secrets: list[Name] = Field(
        default=[], max_length=20, title="Image pull secrets", description="Secrets with registry logins, by name."
    )
    secret_env: list[
        Annotated[str, Field(pattern=rf"^[A-Za-z_][A-Za-z0-9_]*={DNS}(\.{DNS})*:[A-Za-z0-9._-]+$", max_length=600)]
    ] = Field(
        default=[],
        max_length=100,
        title="Secret environment",
        description="Environment variables from Secrets of the cluster, VARIABLE=SECRET:KEY an entry, as "
        "HF_TOKEN=hugging-face:token. Only the reference is sent, never a value.",
    )
    nim_auth_secret: str = Field(
        default="",
        title="NIM secret",
        description="Secret with the key NGC_API_KEY, for nim-service; empty for public images.",
        pattern=rf"^({DNS}(\.{DNS})*)?$",
        max_length=253,
    )
    autoscaling: Literal["none", "hpa", "keda"] = Field(
        default="none",
        title="Autoscaling",
        description="Who changes the replicas with the load: nobody, a HorizontalPodAutoscaler, or KEDA.",
    )
    min_replicas: int = Field(default=1, ge=1, le=1000, title="Fewest replicas", description="With autoscaling.")
    max_replicas: int = Field(default=2, ge=1, le=1000, title="Most replicas", description="With autoscaling.")
    metric: Literal["vllm:num_requests_running", "cpu"] = Field(
        default="vllm:num_requests_running",
        title="Metric",
        description="What is scaled by: requests that vLLM works on (a HorizontalPodAutoscaler needs an adapter that "
        "serves it as a pod metric, KEDA reads it from Prometheus), or CPU.",
    )
    metric_target: float = Field(
        default=0,
        ge=0,
        le=100000,
        title="Target",
        description="Requests a replica, or CPU in percent of the request, at which more replicas are added; 0 means 8 "
        "requests, or 70 percent.",
    )
    prometheus_url: str = Field(
        default="",
        max_length=1024,
        title="Prometheus",
        description="Address of Prometheus inside the cluster, for KEDA, as http://prometheus.monitoring:9090.",
        pattern=r"^(https?://[!-~]+)?$",
    )
    disruption_budget: bool = Field(
        default=False,
        title="Disruption budget",
        description="Let the cluster's upkeep take away one replica at a time at most.",
    )
    drain_s: int = Field(
        default=10,
        ge=0,
        le=3600,
        title="Drain (s)",
        description="Seconds that a pod that is to end goes on serving, until everybody has learned not to ask it.",
    )
    grace_s: int = Field(
        default=60,
        ge=1,
        le=3600,
        title="Grace (s)",
        description="Seconds after that for the answers under way, before the pod is killed.",
    )
    url: str = Field(
        default="",
        max_length=2048,
        title="Address from outside",
        description="Where an ingress of yours leads to a Service, up to and with /v1; {object} stands for the "
        "Service's name, which is new with every start, as https://models.example.org/{object}/v1. Empty: the "
        "Service's own name inside the cluster, the API server's proxy from outside.",
        pattern=r"^(https?://[!-~]+/v1/?)?$",
    )


def problems(config: ServeConfig) -> list[str]:
    """Settings that contradict each other or that no cluster can do; a line each."""
    return _resource_problems(config) + _volume_problems(config) + _kind_problems(config) + _scaling_problems(config)


def _resource_problems(config: ServeConfig) -> list[str]:
    options, found = config.kubernetes, []
    gpus = options.gpus
    if gpus != math.floor(gpus):
        found.append(
            f"serve.kubernetes.gpus: {gpus:g} GPUs cannot be given: Kubernetes gives whole ones. For a share name a "
            "MIG resource in serve.kubernetes.gpu_resource and ask for 1 of it."
        )
    if (parallel := getattr(config.options, "tensor_parallel_size", 0)) > max(1, gpus):
        where = f"serve.{config.section}.tensor_parallel_size"
        found.append(f"serve.kubernetes.gpus: {where} needs {parallel} GPUs in one pod, not {gpus:g}.")
    if options.nodes > 1:
        found.append(
            f"serve.kubernetes.nodes: a replica over {options.nodes} nodes takes a LeaderWorkerSet, which is not made "
            "here. Use tensor parallel within one pod, or run the engine's own Ray cluster and serve it as external."
        )
    if config.secret_variables:
        found.append(
            f"serve.secret_variables: the value of {', '.join(config.secret_variables)} would stand in the manifest "
            "for all to read. Put it into a Secret of the cluster and name that in serve.kubernetes.secret_env."
        )
    if options.url and OBJECT not in options.url:
        found.append(
            "serve.kubernetes.url: write {object} where the Service's name belongs: a new model is asked beside the "
            "old one, so each needs an address of its own."
        )
    return found


def _volume_problems(config: ServeConfig) -> list[str]:
    options = config.kubernetes
    if options.volume == "claim" and not options.claim:
        return [
            "serve.kubernetes.claim: name the persistent volume claim that holds the model, or set "
            "serve.kubernetes.volume to host-path or none."
        ]
    if ".." in options.sub_path.split("/"):
        return [f"serve.kubernetes.sub_path: {options.sub_path} leaves the claim; take out the '..'."]
    return []


def _kind_problems(config: ServeConfig) -> list[str]:
    options, found = config.kubernetes, []
    if options.kind == "nim-service":
        if config.variant != "nim":
            found.append(f"serve.kubernetes.kind: a NIMService serves the variant nim, not {config.variant}.")
        if ":" not in (options.image or config.nim.image).rpartition("/")[2] or "@" in options.image:
            found.append("serve.nim.image: the NIM Operator wants an image with a tag, as nvcr.io/nim/NAME:2.0.11.")
        if options.volume == "host-path":
            found.append("serve.kubernetes.volume: host-path is for deployment and kserve; give a claim, or none.")
    if options.kind != "deployment" and options.disruption_budget:
        found.append(f"serve.kubernetes.disruption_budget: {options.kind} keeps its own; switch it off.")
    return found


def _scaling_problems(config: ServeConfig) -> list[str]:
    options, found = config.kubernetes, []
    if options.autoscaling == "none":
        return []
    if options.min_replicas > options.max_replicas:
        found.append("serve.kubernetes.min_replicas: it is more than serve.kubernetes.max_replicas.")
    if options.metric == "cpu" and not options.cpus:
        found.append("serve.kubernetes.cpus: scaling by CPU needs to know how much a pod asks for; give a number.")
    if options.autoscaling == "keda" and options.kind != "deployment":
        found.append(f"serve.kubernetes.autoscaling: keda scales a deployment; {options.kind} takes hpa.")
    if options.autoscaling == "keda" and options.metric != "cpu" and not options.prometheus_url:
        found.append("serve.kubernetes.prometheus_url: say where KEDA finds Prometheus.")
    if options.kind == "kserve" and options.metric != "cpu":
        found.append("serve.kubernetes.metric: KServe scales by cpu only.")
    return found
