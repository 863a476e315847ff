"""What Prefect does by itself, on a real server: tell of trouble, miss a dead watcher, roll back what was given up."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.apply import RUNS_AT_ONCE
from deployments.local import CHECKOUT, POOL
from flows.progress import silent
from flows.serving import history, records
from flows.serving.promotion import start_endpoint
from flows.serving.restarts import MOST_RESTARTS
from flows.serving.runtimes import process
from flows.serving.stop import stop_endpoint
from tests.end_to_end.test_runs import wait_for
from tests.serving.world import World

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]
SILENT_AFTER_S = 12
BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
text = {"subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="sink", url=sys.argv[1], json_data=text).save("endpoints", overwrite=True)
"""


@pytest.fixture(scope="module")
def sink():
    """A webhook of our own: its address, and what was sent to it."""
    messages = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self):
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", messages
    server.shutdown()


def python(prefect, *arguments):
    """Run this interpreter against the server; its exit code, and what it said."""
    environment = prefect.local.environment(prefect.port) | {"PWD": str(CHECKOUT), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def automations(prefect):
    return {one["name"]: one for one in prefect.ask("POST", "/automations/filter", json={})}


def test_so_many_runs_are_under_way_at_a_time_as_the_queue_says(prefect):
    assert prefect.ask("GET", f"/work_pools/{POOL}/queues/runs")["concurrency_limit"] == RUNS_AT_ONCE
    placed = {name: prefect.ask("GET", f"/deployments/name/{name}") for name in ("pipeline/example", "run-stage/local")}
    assert {name: one["work_queue_name"] for name, one in placed.items()} == {
        "pipeline/example": "runs",
        "run-stage/local": "default",
    }


def test_automations_are_applied_as_often_as_one_likes(prefect, sink):
    assert set(automations(prefect)) == {
        "prefect-finetune: bury dead runs (finetune)",
        "prefect-finetune: bury dead runs (stage)",
        "prefect-finetune: bury runs that never began (finetune)",
        "prefect-finetune: bury runs that never began (stage)",
        "prefect-finetune: start crashed runs again",
        "prefect-finetune: roll back what was given up",
    }, "local up applies these"
    apply = ["-m", "deployments.automations"]
    code, said = python(prefect, *apply)
    assert (code, said.splitlines()[0]) == (0, "unchanged: prefect-finetune: bury dead runs (finetune)")
    assert "Nobody is told when an endpoint fails: FINETUNE_NOTIFY names no notification block." in said

    code, said = python(prefect, *apply, "--notify", "custom-webhook/endpoints")
    assert code == 1
    assert said.startswith("FINETUNE_NOTIFY: there is no block 'custom-webhook/endpoints'. It is TYPE/NAME, as ")
    code, said = python(prefect, "-c", BLOCK, sink[0])
    assert code == 0, said
    notify = [*apply, "--notify", "custom-webhook/endpoints", "--silent-after-s"]
    for seconds, words in (("300", "created"), ("300", "unchanged"), (str(SILENT_AFTER_S), "brought up to date")):
        code, said = python(prefect, *notify, seconds)
        assert code == 0, said
        assert f"{words}: prefect-finetune: miss the watcher" in said
    assert len(automations(prefect)) == 8

    told = automations(prefect)["prefect-finetune: tell of endpoints in trouble"]
    prefect.ask("PATCH", f"/automations/{told['id']}", json={"enabled": False})
    assert "(switched off)" in python(prefect, *notify, str(SILENT_AFTER_S))[1], "what a person switched off stays off"
    prefect.ask("PATCH", f"/automations/{told['id']}", json={"enabled": True})


@pytest.fixture(scope="module")
def messages(prefect, sink):
    """What is sent by the automations, once they are applied."""
    assert python(prefect, "-c", BLOCK, sink[0])[0] == 0
    block = ["--notify", "custom-webhook/endpoints", "--silent-after-s", str(SILENT_AFTER_S)]
    assert python(prefect, "-m", "deployments.automations", *block)[0] == 0
    return sink[1]


def test_an_unhealthy_endpoint_and_a_watcher_that_stops_are_told(prefect, messages, tmp_path):
    world = world_in(prefect, tmp_path, "sick")
    try:
        world.start()
        prefect.run("watch-endpoints/every-minute")
        world.flags(health=503)
        prefect.run("watch-endpoints/every-minute")
        sick = "Endpoint sick: unhealthy"
        wait_for(lambda: sick in [one["subject"] for one in messages], 30)
        told = next(one["body"] for one in messages if one["subject"] == sick)
        assert "/health answered 503." in told
        assert f"http://127.0.0.1:{prefect.port}/artifacts/key/endpoints" in told

        silent_watcher = "Nobody watches the endpoints"
        wait_for(lambda: silent_watcher in [one["subject"] for one in messages], 90)
        assert [one["subject"] for one in messages].count(silent_watcher) == 1
    finally:
        stop_endpoint("sick", world.folder)


def test_what_was_given_up_is_rolled_back_if_its_settings_say_so(prefect, messages, tmp_path):
    world = world_in(prefect, tmp_path, "given-up")
    watch = {"watch": {"roll_back_when_given_up": True}}
    try:
        good = world.start()
        world.config = world.config.model_validate(world.config.model_dump() | watch | {"threads": 2})
        bad = world.start()
        prefect.run("watch-endpoints/every-minute")
        past = history.load(world.folder, "given-up")
        past.restarts = MOST_RESTARTS
        history.save(world.folder, "given-up", past)
        os.kill(bad.process.pid, signal.SIGKILL)
        wait_for(lambda: not process.alive(bad.process), 10)
        prefect.run("watch-endpoints/every-minute")
        wait_for(lambda: records.load(world.folder, "given-up").revision == 3, 120)
        back = records.load(world.folder, "given-up")
        assert (back.settings, process.alive(back.process)) == (good.settings, True)
        prefect.run("watch-endpoints/every-minute")
        subject = "Endpoint given-up: rolled-back"
        wait_for(lambda: subject in [one["subject"] for one in messages], 30)
    finally:
        stop_endpoint("given-up", world.folder)


def world_in(prefect, tmp_path, name):
    """An endpoint of the server's own store that can be told to fail."""
    world = World(tmp_path)
    world.folder = prefect.local.store / "endpoints"
    world.config = world.config.model_copy(update={"name": name})
    world.start = lambda: start_endpoint(world.config, world.model, world.folder, silent)
    return world
