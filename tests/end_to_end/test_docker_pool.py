"""A stage in a container of a Docker work pool, started by Prefect's own worker on a real engine (Podman)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from deployments.local import CHECKOUT
from tests.end_to_end.conftest import SMALL
from tests.end_to_end.test_placement import stage_runs
from tests.serving import podman

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]
POOL = "containers"
IMAGE = "localhost/prefect-finetune/training:test"
SHM = 64 * 2**20


@pytest.fixture(scope="module")
def engine():
    if why := podman.missing():
        pytest.skip(why)
    with podman.engine() as socket:
        yield socket


@pytest.fixture(scope="module")
def image(engine):
    """The shipped image without its packages, which come from this machine, mounted: the base holds next to nothing."""
    found = docker.DockerClient(f"unix://{engine}", version="auto")
    found.images.build(
        path=str(CHECKOUT),
        dockerfile="deployments/images/training.Dockerfile",
        tag=IMAGE,
        buildargs={"PACKAGES": podman.BASE},
    )
    found.close()
    return IMAGE


@pytest.fixture(scope="module")
def docker_pool(prefect, engine, image, tmp_path_factory):
    """A pool made with the shipped template, edited as its page would; one worker of it."""
    folder = tmp_path_factory.mktemp("docker-pool")
    template = json.loads((CHECKOUT / "deployments/work-pools/docker.json").read_text())
    fields = template["variables"]["properties"]
    programs = [mount + ":ro" for mount in podman.PROGRAMS]
    fields["volumes"]["default"] = [f"{prefect.local.store}:/store", *programs]
    fields["env"]["default"] |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin", "OMP_NUM_THREADS": "1"}
    fields["image"]["default"] = image
    (folder / "template.json").write_text(json.dumps(template))
    options = ("--type", "docker", "--base-job-template", str(folder / "template.json"))
    prefect.local.prefect(prefect.port, "work-pool", "create", POOL, *options)
    prefect.local.apply_stages(prefect.port)
    environment = prefect.local.environment(prefect.port) | {"DOCKER_HOST": f"unix://{engine}"}
    with (folder / "worker.log").open("w") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield folder / "worker.log"
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def test_a_training_runs_in_a_container_and_its_result_is_that_of_every_other_place(prefect, docker_pool, glossary):
    wanted = {"work_pool": POOL, "shm": "64m", "env": ["HF_HUB_OFFLINE=1"]}
    only = SMALL | {"run": {"skip": ["evaluate"]}}
    run_id, state = prefect.run(**only, sources=glossary, resources={"finetune": wanted})
    assert state["type"] == "COMPLETED", (state, docker_pool.read_text()[-3000:])
    [stage] = stage_runs(prefect, run_id)
    assert (stage["work_pool_name"], stage["state"]["type"]) == (POOL, "COMPLETED")
    # Where the store is in the container alone.
    assert " is /store/artifacts/model/" in stage["state"]["message"]
    assert "Docker container" in (told := docker_pool.read_text()), told[-3000:]

    # The key is the same wherever it was trained.
    explained, state = prefect.run("explain/demo", **SMALL, sources=glossary)
    assert state["message"] == "Would run: evaluate. Of the others 3 are there already.", state
