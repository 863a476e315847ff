"""Stages in a second work pool, whose workers have GPUs (pretended): placed, leased, linked, killed, cancelled."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import SMALL

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]
POOL = "gpu"
ON_GPU = {"finetune": {"work_pool": POOL, "gpus": 1}}


@pytest.fixture(scope="module")
def gpu_pool(prefect, tmp_path_factory):
    """A work pool with one worker on a machine with two pretended cards; its environment."""
    leases = tmp_path_factory.mktemp("leases")
    prefect.local.prefect(prefect.port, "work-pool", "create", POOL, "--type", "process")
    prefect.local._python(prefect.port, "deployments.apply")
    environment = prefect.local.environment(prefect.port) | {"FINETUNE_GPUS": "2", "FINETUNE_LEASES": str(leases)}
    with (leases / "worker.log").open("w") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "gpu-1"]
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield environment
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait(60)


def children(prefect, run_id):
    """The runs of its stages, the oldest first."""
    body = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return prefect.ask("POST", "/flow_runs/filter", json=body)


def test_a_stage_runs_in_the_pool_that_its_resources_name(prefect, gpu_pool, glossary):
    run_id, state = prefect.run(**SMALL, sources=glossary, resources=ON_GPU)
    assert state["type"] == "COMPLETED", state
    (child,) = children(prefect, run_id)
    assert child["work_pool_name"] == POOL
    assert child["state"]["type"] == "COMPLETED"
    assert "finetune has GPU 0." in prefect.log(child["id"])
    report = json.loads((prefect.folder(run_id) / "report.json").read_text())
    assert {one["name"]: one["status"] for one in report["stages"]}["finetune"] == "ran"

    again, state = prefect.run(**SMALL, sources=glossary)
    assert state["type"] == "COMPLETED"
    report = json.loads((prefect.folder(again) / "report.json").read_text())
    stages = {one["name"]: one["status"] for one in report["stages"]}
    assert stages["finetune"] == "cached", "the key is the same wherever it was trained"
    assert children(prefect, again) == []
