"""Tokens by the deployments: from issue-token through a block to the front, and nowhere else."""

import json
import subprocess
import sys

import httpx
import pytest

from deployments.local import CHECKOUT
from flows.errors import ServingError
from flows.serving import records
from flows.serving.front import haproxy
from flows.serving.stop import stop_endpoint
from tests.serving import fake_server

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _installed():
    try:
        haproxy.program()
    except ServingError as error:
        pytest.skip(str(error))


@pytest.fixture
def guarded(prefect, tmp_path):
    """An endpoint behind a front that asks for a token."""
    folder = tmp_path / "model"
    folder.mkdir()
    line = f"{sys.executable} -S {fake_server.__file__} {{port}} {tmp_path / 'flags.json'}"
    serve = {
        "name": "guarded",
        "variant": "command",
        "command": {"command_line": line, "health_path": "/health"},
        "front": {"enabled": True, "access": "token", "drain_s": 2},
    }
    _, state = prefect.run("serve-variant/local", model={"folder": str(folder)}, serve=serve)
    assert state["type"] == "COMPLETED", state["message"]
    yield records.load(prefect.local.store / "endpoints", "guarded")
    stop_endpoint("guarded", prefect.local.store / "endpoints")


def key_of(prefect, block):
    """What the block holds; empty if there is none."""
    code = (
        "import sys\nfrom blocks.openai_endpoint import OpenAIEndpoint\n"
        "try:\n    print(OpenAIEndpoint.load(sys.argv[1]).api_key.get_secret_value())\nexcept ValueError:\n    pass"
    )
    environment = prefect.local.environment(prefect.port)
    done = subprocess.run(
        [sys.executable, "-c", code, block], cwd=CHECKOUT, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def ask(endpoint, token):
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{endpoint.public_url}/models", headers=headers, trust_env=False).status_code


def test_a_token_goes_from_a_block_to_the_front_and_is_taken_back(prefect, guarded, tmp_path):
    questions = tmp_path / "questions.csv"
    questions.write_text("question\nWhy?\nHow?\n")
    run_id, state = prefect.run("issue-token/local", name="guarded", token_name="batch", days=7)
    words = "Token 'batch' of guarded is in the OpenAI Endpoint block 'guarded-batch', valid for 7 days."
    assert state["message"] == words
    token = key_of(prefect, "guarded-batch")
    assert (token[:4], ask(guarded, token), ask(guarded, "x")) == ("pft-", 200, 401)
    everything = prefect.log(run_id) + json.dumps(prefect.ask("GET", f"/flow_runs/{run_id}"))
    assert token not in everything + json.dumps(prefect.artifacts(run_id))
    files = [path for path in prefect.local.store.rglob("*") if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]

    _, state = prefect.run("generate-with-endpoint/local", endpoint={"name": "guarded"}, rows=str(questions))
    assert state["message"].startswith("2 requests, 2 replies, 0 failed, "), state["message"]

    _, state = prefect.run("revoke-token/local", name="guarded", token_name="batch")
    assert state["message"].startswith("Token 'batch' of guarded was revoked at ")
    assert (ask(guarded, token), key_of(prefect, "guarded-batch")) == (401, "")
