"""Prefect's own parts die; endpoints do not need them to answer, and what comes up again goes on from the records."""

import datetime
import os
import signal
import time

import pytest

from deployments.local import Local
from flows.serving import records
from flows.serving.ask import ask
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from tests.end_to_end.conftest import Prefect
from tests.end_to_end.test_automations import world_in
from tests.end_to_end.test_promotion import model, serve
from tests.end_to_end.test_runs import wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]
OUTAGE_S = float(os.environ.get("FINETUNE_OUTAGE_S", "15"))  # `make faults`: two minutes
WATCH = "watch-endpoints/every-minute"


@pytest.mark.fault(
    "kill -9 of the Prefect worker",
    expected="the endpoint answers on, its record unchanged; runs wait for a worker",
    action="a new worker does the waiting pass, which adopts the endpoint",
)
def test_an_endpoint_outlives_the_worker_and_a_new_one_adopts_it(prefect, tmp_path, seen):
    folder = prefect.local.store / "endpoints"
    _, state = prefect.run(
        "serve-variant/local",
        model={"folder": model(tmp_path / "good", {"Who?": "We."})},
        serve=serve("kept", rows=0),
    )
    assert state["type"] == "COMPLETED", state["message"]
    try:
        endpoint = records.load(folder, "kept")
        worker = prefect.local.record().worker
        seen.begin()
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: not process.alive(worker), 10)
        waiting = prefect.start(WATCH)
        assert ask(endpoint, "Who?") == "We."
        assert prefect.state(waiting)["type"] in ("SCHEDULED", "PENDING")

        found = prefect.local.up()
        assert (found.port, found.worker == worker) == (prefect.port, False)
        state = prefect.wait(waiting)
        seen(f"{state['type']}. {state['message']}")
        assert state["type"] == "COMPLETED", state["message"]
        assert records.load(folder, "kept") == endpoint
        assert process.alive(endpoint.process)
        wait_for(lambda: prefect.events("kept") == ["endpoint.promoted", "endpoint.healthy"], 20)
    finally:
        stop_endpoint("kept", folder)


@pytest.fixture
def fragile(tmp_path):
    """A Prefect of the test's own, with the watcher alone."""
    local = Local(tmp_path / "local")
    try:
        port = local.up().port
        local.prefect(port, "--no-prompt", "deploy", "--name", WATCH)
        yield Prefect(local, port)
    finally:
        local.down()


def kill_server(prefect):
    server = prefect.local.record().server
    for pid in process.members(server):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not process.members(server), 10)


def due_in(prefect, seconds):
    """A pass that is due then; its id."""
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    found = prefect.ask("GET", f"/deployments/name/{WATCH}")
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    return prefect.ask("POST", f"/deployments/{found['id']}/create_flow_run", json={"state": state})["id"]


@pytest.mark.fault(
    "Prefect server down",
    on=f"{OUTAGE_S:.0f} s",
    expected="endpoints and their clients go on; passes do not run",
    action="the server comes back on its port; a pass that was missed runs, and sees what failed meanwhile",
)
def test_endpoints_do_not_need_the_server_and_a_missed_pass_is_caught_up(fragile, tmp_path, seen):
    world = world_in(fragile, tmp_path, "alone")
    try:
        endpoint = world.start()
        fragile.run(WATCH)
        missed = due_in(fragile, 3)
        worker = fragile.local.record().worker
        seen.begin()
        kill_server(fragile)
        until, answers = time.monotonic() + OUTAGE_S, 0
        while time.monotonic() < until:
            assert ask(endpoint, "Are you there?") == "yes"
            answers += 1
            time.sleep(0.5)
        assert answers >= OUTAGE_S / 2
        os.kill(endpoint.process.pid, signal.SIGKILL)
        wait_for(lambda: not process.alive(endpoint.process), 10)

        found = fragile.local.up()
        assert (found.port, found.worker) == (fragile.port, worker), "the worker is the one that waited"
        state = fragile.wait(missed, 120)
        seen(f"{state['type']}. {state['message']}")
        assert (state["type"], "1 FAILED" in state["message"]) == ("COMPLETED", True), state
        assert records.load(world.folder, "alone").state is State.HEALTHY, "as it was promoted: the pass asks"
        wait_for(lambda: fragile.events("alone")[-1:] == ["endpoint.failed"], 20)
    finally:
        stop_endpoint("alone", world.folder)
