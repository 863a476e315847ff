"""Work pools of the local Prefect: what a worker gets from the terminal, what a new start leaves, how runs begin."""

import os
import signal

import psutil
import pytest

from deployments.local import run_of
from flows.serving.runtimes import process
from tests.end_to_end.test_runs import children, wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]
POOL = "kept"
KEYS = {
    "AWS_ACCESS_KEY_ID": "id-of-a-test",
    "AWS_SECRET_ACCESS_KEY": "key-of-a-test",
    "AWS_SESSION_TOKEN": "token-of-a-test",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/tmp/token",
    "AWS_PROFILE": "profile-of-a-test",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "HF_TOKEN": "hub-token",
}
NOT_OURS = ("PREFECT_API_KEY", "DB_PASSWORD", "OTHER_ACCESS_KEY_ID")


@pytest.fixture
def worker(prefect):
    """Starts the pool's worker; it has ended afterwards."""
    started = []

    def start():
        started.append(prefect.local.up_pool(POOL).pools[POOL])
        return started[-1]

    yield start
    for one in started:
        process.stop(one, 0)


def test_the_keys_of_a_bucket_reach_the_worker_and_a_new_start_leaves_the_pool_as_it_is(prefect, worker, monkeypatch):
    for name, value in {**KEYS, **dict.fromkeys(NOT_OURS, "secret")}.items():
        monkeypatch.setenv(name, value)
    first = worker()
    environment = psutil.Process(first.pid).environ()
    assert {name: environment.get(name) for name in KEYS} == KEYS
    assert not environment.keys() & set(NOT_OURS)

    template = prefect.ask("GET", f"/work_pools/{POOL}")["base_job_template"]
    template["variables"]["properties"]["working_dir"]["default"] = "/tmp"
    own = {"is_paused": True, "concurrency_limit": 3, "description": "mine", "base_job_template": template}
    prefect.ask("PATCH", f"/work_pools/{POOL}", json=own)
    process.stop(first, 0)
    worker()
    there = prefect.ask("GET", f"/work_pools/{POOL}")
    assert {name: there[name] for name in own} == own


def test_a_run_has_a_session_of_its_own_so_what_ends_the_worker_does_not_end_it(prefect):
    run_id = prefect.start("pipeline/example", stages=[{"name": "wait", "kind": "shell", "command": "sleep 20"}])
    [run] = wait_for(lambda: [one for one in children("flows.engine") if run_of(one, prefect.api) == run_id])
    assert os.getsid(run.pid) == run.pid
    assert prefect.wait(run_id)["type"] == "COMPLETED"


@pytest.mark.fault(
    "run cancelled that has outlived its worker",
    expected="CANCELLED; nothing of it is left",
    action="none: the run itself sees that it is cancelled",
)
def test_a_run_that_has_outlived_its_worker_prints_on_and_can_be_cancelled(prefect, seen):
    command = "for n in $(seq 600); do echo line $n; sleep 0.2; done"
    run_id = prefect.start("pipeline/example", stages=[{"name": "count", "kind": "shell", "command": command}])
    [run] = wait_for(lambda: [one for one in children("flows.engine") if run_of(one, prefect.api) == run_id])
    wait_for(lambda: "line 5" in prefect.log(run_id))
    worker = prefect.local.record().worker
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not process.members(worker))
    prefect.local.up()
    printed = len(prefect.log(run_id).splitlines())
    wait_for(lambda: len(prefect.log(run_id).splitlines()) > printed + 20)
    assert prefect.state(run_id)["type"] == "RUNNING"
    commands = [one for one in run.children(recursive=True) if "seq 600" in " ".join(one.cmdline())]
    assert commands

    seen.begin()
    prefect.ask("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING"}})
    state = prefect.wait(run_id)
    seen(f"{state['type']}. {state['message']}")
    assert state["type"] == "CANCELLED"
    wait_for(lambda: not run.is_running(), 30)
    assert not any(one.is_running() for one in commands)
    assert prefect.ask("GET", f"/flow_runs/{run_id}")["run_count"] == 1
    names = [state["name"] for state in prefect.ask("GET", f"/flow_run_states/?flow_run_id={run_id}")]
    assert names[-2:] == ["Cancelling", "Cancelled"], names
