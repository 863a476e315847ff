"""Two machines, each with a home and a worker of its own, that share only a bucket."""

import json
import os
import signal
import subprocess
import sys
import uuid

import pytest
import s3fs

from flows.store.bucket import checkpoints
from flows.store.bucket.address import Access, Address
from flows.store.bucket.client import Bucket
from tests.end_to_end.conftest import SMALL
from tests.end_to_end.test_runs import LONG, children, wait_for
from tests.store.bucket.conftest import KEYS, serving

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]


class Machine:
    """A worker of a work pool of its own, whose home nobody else sees."""

    def __init__(self, prefect, name, home, environment):
        self.name, self.home = name, home
        prefect.local.prefect(prefect.port, "work-pool", "create", name, "--type", "process")
        environment = prefect.local.environment(prefect.port) | environment | {"HOME": str(home)}
        environment["PREFECT_HOME"] = str(home / "prefect")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", name, "--name", name]
        with (home / "worker.log").open("w") as log:
            self.worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def trainings(self):
        return children(f"flows.stages.child {self.home}")

    def kill(self):
        """As when the power is gone: the worker, its runs and their children."""
        family = [process for process in children("prefect.engine") if process.environ().get("HOME") == str(self.home)]
        for process in [*family, *self.trainings()]:
            process.kill()
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()


@pytest.fixture
def bucket(monkeypatch):
    with serving() as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        name = f"test-{uuid.uuid4().hex[:12]}"
        s3fs.S3FileSystem(skip_instance_cache=True).call_s3("create_bucket", Bucket=name)
        yield Bucket(Address(name, "", Access()))


@pytest.fixture
def machines(prefect, bucket, tmp_path):
    """Two of them; FINETUNE_STORE is the bucket, and no folder is shared."""
    environment = KEYS | {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"], "FINETUNE_STORE": bucket.address.url}
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        found.append(Machine(prefect, f"{name}-{bucket.address.bucket}", tmp_path / name, environment))
    prefect.local.apply_stages(prefect.port)
    yield found
    for machine in found:
        if machine.worker.poll() is None:
            machine.kill()


def start(prefect, machine, **parameters):
    """A run of the main flow on that machine's worker: the demo's deployment, in its work pool."""
    shipped = prefect.ask("GET", "/deployments/name/domain-adaptation/demo-korean")
    flow = {"name": machine.name, "flow_id": shipped["flow_id"], "work_pool_name": machine.name}
    same = {name: shipped[name] for name in ("entrypoint", "path", "pull_steps", "parameter_openapi_schema")}
    found = prefect.ask("POST", "/deployments/", json=flow | same | {"parameters": shipped["parameters"]})
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return prefect.ask("POST", f"/deployments/{found['id']}/create_flow_run", json=body)["id"]


def steps(bucket):
    """The steps of the training's checkpoints in the bucket."""
    keys = {name.split("/")[1] for name in bucket.entries("work/finetune-") if "/checkpoints/" in name}
    return [step for key in keys for step in checkpoints.steps(bucket, f"work/{key}/checkpoints")]


def results(bucket, stage):
    names = [name for name in bucket.entries(f"work/{stage}-") if name.endswith("/done.json")]
    return [json.loads(content) for content in bucket.read_all(names).values()]


def test_the_second_machine_goes_on_where_the_first_was_killed_and_what_is_done_is_there_for_both(
    prefect, bucket, machines, glossary
):
    first, second = machines
    parameters = {**SMALL, "sources": glossary, "finetune": {**LONG, "epochs": 14}}
    lost = start(prefect, first, **parameters)
    wait_for(lambda: steps(bucket), 180)
    first.kill()
    prefect.ask("POST", f"/flow_runs/{lost}/set_state", json={"state": {"type": "CANCELLED"}, "force": True})
    assert results(bucket, "finetune") == []

    run_id = start(prefect, second, **parameters)
    state = prefect.wait(run_id)
    assert state["type"] == "COMPLETED", (state, prefect.log(run_id)[-3000:])
    [result] = results(bucket, "finetune")
    assert result["maker"]["run_id"] == run_id
    assert result["figures"]["resumed_from_step"] >= 5
    assert "comes from the bucket; the training goes on from it" in prefect.log(run_id)
    [prepared] = results(bucket, "prepare")
    assert prepared["maker"]["run_id"] == lost, "it was not made a second time"
    report = json.loads(bucket.read(f"runs/{run_id}/report.json").content)
    assert [one["status"] for one in report["stages"] if one["name"] in ("prepare", "finetune")] == ["cached", "ran"]
    assert steps(bucket) == [], "what is done needs no checkpoint"
    everything = prefect.log(run_id) + json.dumps(prefect.ask("GET", f"/flow_runs/{run_id}"))
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in everything
