"""A file of questions through an endpoint, by the deployment: a block with a key, a kill, and what is refused."""

import json
import os
import signal
import subprocess
import sys

import pytest

from deployments.local import CHECKOUT, run_of
from tests.end_to_end.test_runs import children, no_traceback_of_ours, wait_for
from tests.endpoint_client.fake_endpoint import FakeEndpoint

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]
KEY = "sk-very-secret-4711"
DEPLOYMENT = "generate-with-endpoint/local"


@pytest.fixture
def fake(prefect):
    """A fake endpoint that the block `fake` of the local Prefect names, with a key."""
    server = FakeEndpoint()
    code = (
        "from blocks.openai_endpoint import OpenAIEndpoint;"
        f"OpenAIEndpoint(base_url={server.url!r}, model='fake', api_key={KEY!r}).save('fake', overwrite=True)"
    )
    environment = prefect.local.environment(prefect.port)
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, check=True)
    yield server
    server.close()


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.csv"
    path.write_text("question,instruction\n" + "".join(f"Question {n}?,Answer.\n" for n in range(200)))
    return str(path)


def test_a_killed_run_goes_on_and_the_key_is_nowhere(prefect, fake, questions, tmp_path):
    fake.delay_s = 0.2
    parameters = {"endpoint": {"block": "fake"}, "rows": questions, "options": {"concurrency": 2}}
    run_id = prefect.start(DEPLOYMENT, **parameters)
    wait_for(lambda: len(fake.requests) > 20)
    [flow] = [one for one in children("flows.engine") if run_of(one, prefect.api) == run_id][-1:]
    os.kill(flow.pid, signal.SIGKILL)
    assert prefect.wait(run_id)["type"] == "CRASHED"
    wait_for(lambda: fake.under_way == 0)
    before, fake.delay_s = len(fake.requests), 0
    run_id, state = prefect.run(DEPLOYMENT, **parameters)
    assert state["type"] == "COMPLETED", state["message"]
    assert state["message"].startswith("200 requests, 200 replies, 0 failed, ")
    assert 200 <= len(fake.requests) <= 202 < 200 + before, "only what was under way is asked once more"
    [output] = prefect.local.store.glob("generations/*/replies.jsonl")
    assert state["message"].endswith(str(output))
    replies = [json.loads(line) for line in output.read_text().splitlines()]
    assert [reply["reply"] for reply in replies] == [f"You asked: Answer. Question {n}?" for n in range(200)]
    assert fake.keys == {f"Bearer {KEY}"}
    artifacts = prefect.artifacts(run_id)
    assert "Question 9?" in artifacts["replies"]["data"]
    assert artifacts["generate-progress"]["data"] == 100
    everything = prefect.log(run_id) + json.dumps(artifacts) + json.dumps(prefect.ask("GET", f"/flow_runs/{run_id}"))
    assert KEY not in everything
    assert not [file for file in prefect.local.store.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_a_block_is_served_as_an_endpoint_and_asked_by_its_name(prefect, fake, questions):
    serve = {"name": "theirs", "runtime": "external", "external": {"block": "fake", "health_path": ""}}
    _, state = prefect.run("serve-variant/local", model={}, serve=serve)
    assert state["message"].startswith(f"theirs is UNVERIFIED at {fake.url} (revision 1, ")
    _, state = prefect.run(DEPLOYMENT, endpoint={"name": "theirs"}, rows=questions)
    assert state["message"].startswith("200 requests, 200 replies, 0 failed, ")
    assert fake.keys == {f"Bearer {KEY}"}
    _, state = prefect.run("stop-endpoint/local", name="theirs")
    assert "Nothing was ended: the server at" in state["message"]
    assert not [file for file in prefect.local.store.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_what_is_wrong_is_said_before_anything_is_asked(prefect, fake, questions, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Why?"}\n{"question": ""}\n')
    block = {"block": "fake"}
    wrong = [
        ({"endpoint": {"block": "nobody"}, "rows": questions}, "endpoint.block: there is no OpenAI Endpoint block"),
        ({"endpoint": block, "rows": str(bad)}, f"{bad}, line 2: give exactly one of messages, question and prompt"),
        ({"endpoint": block, "rows": questions, "output": questions}, "is where the questions are"),
    ]
    runs = [(prefect.start(DEPLOYMENT, **parameters), words) for parameters, words in wrong]
    for run_id, words in runs:
        state = prefect.wait(run_id)
        assert state["type"] == "FAILED"
        assert words in state["message"]
        assert no_traceback_of_ours(prefect.log(run_id))
    assert fake.requests == []
