"""The base job templates and images of deployments/: what Prefect's own workers make of them for a stage."""

import asyncio
import json
import re
import tomllib
import uuid

import docker.models.containers
import jsonschema
import kubernetes_validate
import pytest
from docker.utils import parse_bytes
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessJobConfiguration
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from deployments.local import CHECKOUT
from flows.stages.job_variables import job_variables
from flows.stages.resources import StageResources

POOLS, IMAGES = CHECKOUT / "deployments" / "work-pools", CHECKOUT / "deployments" / "images"
CONFIGURATIONS = {
    "process": ProcessJobConfiguration,
    "docker": DockerWorkerJobConfiguration,
    "kubernetes": KubernetesWorkerJobConfiguration,
}
MUCH = StageResources(work_pool="gpu", cpu=3.5, memory="24GiB", gpus=2, shm="8g", image="registry.local/train:2")
VERSIONS = ["1.28", "1.35"]
PLACEHOLDER = re.compile(r"{{ *([\w.]+) *}}")


def template(kind):
    return json.loads((POOLS / f"{kind}.json").read_text("utf-8"))


def rendered(kind, wanted, **pool):
    """What the worker of a pool with this template would start for a stage; `pool` are the pool's own settings."""
    found = template(kind)
    for name, value in pool.items():
        found["variables"]["properties"][name]["default"] = value
    values = job_variables(kind, wanted)
    jsonschema.validate(values, found["variables"])  # as the server does when the run is made
    # Nothing is asked of this server; without one Prefect starts its own.
    client = PrefectClient("http://127.0.0.1:1/api")
    made = asyncio.run(CONFIGURATIONS[kind].from_template_and_values(found, values, client=client))
    run = FlowRun(id=uuid.uuid4(), name="quick-fox-finetune", flow_id=uuid.uuid4())
    made.prepare_for_flow_run(run)
    return made


def pod(made):
    return made.job_manifest["spec"]["template"]["spec"]


def host_config(made):
    """What docker-py would send to the engine."""

    class Engine:
        def version(self):
            return {"Version": "29.0.0"}

    settings = DockerWorker(work_pool_name="gpu", test_mode=True)._build_container_settings(Engine(), made)
    settings = {"version": "1.47", **settings}
    return docker.models.containers._create_container_args(settings)["host_config"]


def test_there_is_one_for_every_kind_of_pool_that_stages_know():
    assert {path.stem for path in POOLS.glob("*.json")} == {"process", "docker", "kubernetes"}
    assert {path.name for path in IMAGES.iterdir()} == {"training.Dockerfile", "serving.Dockerfile"}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_every_place_has_a_variable_and_every_variable_a_place_and_a_title(kind):
    found = template(kind)
    properties = found["variables"]["properties"]
    jsonschema.Draft202012Validator.check_schema(found["variables"])
    places = set(PLACEHOLDER.findall(json.dumps(found["job_configuration"])))
    # `env` is merged by name, below what the template fixes.
    assert places | {"env"} == set(properties)
    assert all(field["title"] for field in properties.values())
    assert set(job_variables(kind, MUCH)) <= set(properties)
    defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
    jsonschema.validate(defaults, found["variables"])


def test_a_process_gets_the_command_and_the_environment_of_the_pool():
    made = rendered("process", MUCH, env={"FINETUNE_STORE": "/srv/store"})
    assert made.env["FINETUNE_STORE"] == "/srv/store"
    assert made.command.endswith(" -m prefect.engine")


def test_a_container_gets_what_the_stage_asks_for():
    made = rendered("docker", MUCH)
    assert made.image == "registry.local/train:2"
    assert parse_bytes(made.mem_limit) == 24 * 2**30
    sent = host_config(made)
    assert sent["NanoCpus"] == 3_500_000_000
    assert sent["ShmSize"] == 8 * 2**30
    assert sent["Memory"] == 24 * 2**30
    [request] = sent["DeviceRequests"]
    assert (request["Driver"], request["Count"], request["Capabilities"]) == ("nvidia", 2, [["gpu"]])
    assert sent["Binds"] == ["/srv/prefect-finetune:/store"]
    assert sent["Init"] is True


def test_a_container_of_a_stage_that_asks_for_nothing_has_no_limits_and_no_gpu():
    made = rendered("docker", StageResources(work_pool="gpu"))
    assert made.image == "prefect-finetune/training:0.1.0"
    assert made._determine_image_pull_policy().value == "IfNotPresent"
    sent = host_config(made)
    assert not {"DeviceRequests", "NanoCpus", "Memory"} & set(sent)
    assert sent["ShmSize"] == 2**31


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_an_engine_has_given_the_cards_out_whatever_the_pool_says_in_its_environment(kind):
    made = rendered(kind, MUCH, env={"FINETUNE_STORE": "/elsewhere", "NCCL_DEBUG": "INFO"})
    env = made.env if kind == "docker" else {one["name"]: one["value"] for one in pod(made)["containers"][0]["env"]}
    assert env["FINETUNE_LEASES"] == "off"
    assert (env["FINETUNE_STORE"], env["NCCL_DEBUG"]) == ("/elsewhere", "INFO")
    assert env["PREFECT__FLOW_RUN_ID"]


def test_a_pod_gets_what_the_stage_asks_for():
    made = rendered("kubernetes", MUCH, node_selector={"nvidia.com/gpu.product": "H100"}, runtime_class="nvidia")
    spec = pod(made)
    [container] = spec["containers"]
    size = str(24 * 2**30)
    assert container["image"] == "registry.local/train:2"
    assert container["resources"] == {
        "limits": {"memory": size, "nvidia.com/gpu": 2},
        "requests": {"cpu": "3.5", "memory": size},
    }
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["envFrom"] == [{"secretRef": {"name": "prefect-finetune", "optional": True}}]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"store": "/store", "shm": "/dev/shm"}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": str(8 * 2**30)}
    assert volumes["store"]["persistentVolumeClaim"]["claimName"] == "prefect-finetune-store"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "H100"}
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


@pytest.mark.parametrize("wanted", [MUCH, StageResources(work_pool="gpu")], ids=["much", "nothing"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_is_one_that_kubernetes_knows(wanted, version):
    manifest = rendered("kubernetes", wanted).job_manifest
    # Prefect's worker insists on these two in the pod as well, where the API server drops what it does not know.
    for name in ("parallelism", "completions"):
        manifest["spec"]["template"]["spec"].pop(name)
    kubernetes_validate.validate(manifest, version, strict=True)
    assert "{{" not in json.dumps(manifest)


def test_a_stage_without_gpus_asks_the_cluster_for_none():
    [container] = pod(rendered("kubernetes", StageResources(work_pool="gpu")))["containers"]
    assert not container["resources"].get("limits")


def test_pools_use_the_image_that_the_dockerfile_makes():
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    for kind in ("docker", "kubernetes"):
        properties = template(kind)["variables"]["properties"]
        assert properties["image"]["default"] == f"prefect-finetune/training:{version}"
        assert properties["env"]["default"] == {"FINETUNE_STORE": "/store"}
