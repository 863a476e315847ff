"""Messages of runs on a real Prefect, through real blocks, to a real mail server and a real web server."""

import json
import subprocess
import sys
import time

import pytest

from tests.end_to_end.conftest import SMALL
from tests.sinks import mail_server, web_server

pytestmark = pytest.mark.end_to_end

MAKE_BLOCKS = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect_email import EmailServerCredentials
port, url = sys.argv[1:]
EmailServerCredentials(smtp_server="127.0.0.1", smtp_port=int(port), smtp_type="INSECURE").save("mail", overwrite=True)
Webhook(url=url).save("ci", overwrite=True)
Webhook(url="http://127.0.0.1:9/gone").save("gone", overwrite=True)
template = {"text": "{{subject}}|{{body}}"}
CustomWebhookNotificationBlock(name="chat", url=url, json_data=template).save("chat", overwrite=True)
"""
NOTIFY = {
    "blocks": ["email-server-credentials/mail", "webhook/ci", "custom-webhook/chat"],
    "email_to": ["team@field.example"],
    "email_from": "runs@field.example",
}


@pytest.fixture
def sinks(prefect):
    """A mailbox and a hook, each behind a block."""
    with mail_server() as (box, port), web_server() as hook:
        command = [sys.executable, "-c", MAKE_BLOCKS, str(port), hook.url]
        subprocess.run(command, env=prefect.local.environment(prefect.port), check=True)
        yield box, hook


def notify(**more):
    return {"title": "Trade", "notify": {**NOTIFY, **more}}


def test_a_run_tells_how_it_ended(prefect, sinks, glossary):
    box, hook = sinks
    run_id, state = prefect.run(sources=glossary, **SMALL, run=notify())
    assert state["type"] == "COMPLETED", state
    report = json.loads((prefect.folder(run_id) / "report.json").read_text("utf-8"))
    passed = report["gate"]["passed"]
    event = "succeeded" if passed else "gate-failed"
    _until(lambda: box.mails and len(hook.bodies) == 2)
    [(receivers, mail)] = box.mails
    assert receivers == ["team@field.example"]
    assert mail["Subject"].startswith(f"Trade: the gate {'passed' if passed else 'did not pass'} (")
    [picture] = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert picture.get_content() == (prefect.folder(run_id) / "truthfulness_result.png").read_bytes()
    body, chat = hook.bodies
    assert (body["event"], body["run"]["id"]) == (event, run_id)
    assert body["run"]["url"].endswith(f"/runs/flow-run/{run_id}")
    assert body["semscore"] == report["metrics"]["semscore"]
    assert chat["text"].startswith(f"{mail['Subject']}|The gate ")


def test_a_run_that_is_refused_tells_why(prefect, sinks, glossary):
    _, hook = sinks
    wrong = {**SMALL, "model": {"name": "tiny:no-such"}}
    run_id, state = prefect.run(sources=glossary, **wrong, run=notify(blocks=["webhook/ci"]))
    assert state["type"] == "FAILED"
    _until(lambda: hook.bodies)
    assert [(one["event"], one["run"]["id"]) for one in hook.bodies] == [("failed", run_id)]
    assert "No tiny model 'no-such'" in hook.bodies[0]["text"]
    # Refused before the flow begins, by a validator that the form does not know.
    hook.bodies.clear()
    wrong = {**SMALL, "serve": {"enabled": False, "served_model_name": "a..b"}}
    run_id, state = prefect.run(sources=glossary, **wrong, run=notify(blocks=["webhook/ci"]))
    assert state["type"] == "FAILED"
    _until(lambda: hook.bodies)
    assert hook.bodies[0]["subject"] == "Trade: failed"
    assert "served_model_name" in hook.bodies[0]["text"]


def _until(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "no message came"
        time.sleep(0.2)


def test_a_run_without_anything_to_do_is_skipped_and_says_so(prefect):
    stage = {"name": "say", "kind": "shell", "command": "echo once > once.txt"}
    first, state = prefect.run("pipeline/example", stages=[stage], run={"only_if_changed": True})
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    second, state = prefect.run("pipeline/example", stages=[stage], run={"only_if_changed": True})
    assert (state["type"], state["name"]) == ("COMPLETED", "Skipped"), state
    name = prefect.ask("GET", f"/flow_runs/{first}")["name"]
    assert state["message"].startswith(f"Nothing has changed since {name} (")
    assert "nothing-changed" in prefect.artifacts(second)
    other = {**stage, "command": "echo twice > once.txt"}
    third, state = prefect.run("pipeline/example", stages=[other], run={"only_if_changed": True})
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    assert f"There is something to do: stages changed since {name}" in prefect.log(third)


def test_a_message_that_nobody_takes_changes_nothing_but_a_warning(prefect, sinks):
    _, hook = sinks
    stage = {"name": "say", "kind": "shell", "command": "echo hello > hello.txt"}
    run_id, state = prefect.run("pipeline/example", stages=[stage], run=notify(blocks=["webhook/gone", "webhook/ci"]))
    assert state["type"] == "COMPLETED"
    _until(lambda: hook.bodies, 60)
    assert [one["event"] for one in hook.bodies] == ["succeeded"]
    assert "could not be delivered through webhook/gone" in prefect.log(run_id)
    run_id, state = prefect.run("pipeline/example", stages=[stage], run=notify(blocks=["webhook/no-such"]))
    assert state["type"] == "FAILED"
    assert "run.notify.blocks[0]: there is no block 'webhook/no-such'" in state["message"]
