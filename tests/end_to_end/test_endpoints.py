"""Endpoints by hand and under watch, through the deployments: serve, list, watch, roll back, stop, and what fails."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deployments.local import CHECKOUT
from flows.base_models.resolve import BaseModelConfig, resolve
from flows.serving import records
from flows.serving.runtimes import process
from flows.serving.state import State
from tests.end_to_end.test_runs import no_traceback_of_ours, wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return resolve(BaseModelConfig(name="tiny:llama-3"), tmp_path_factory.mktemp("models")).path


def page(prefect):
    """The newest version of the page of all endpoints, and how many versions there are."""
    body = {"artifacts": {"key": {"any_": ["endpoints"]}}, "sort": "UPDATED_DESC"}
    found = prefect.ask("POST", "/artifacts/filter", json=body)
    return found[0]["data"], len(found)


def test_life_of_an_endpoint_served_watched_rolled_back_restarted_and_stopped(prefect, model, tmp_path):
    folder = prefect.local.store / "endpoints"
    run_id, state = prefect.run("serve-variant/local", model={"folder": model}, serve={"name": "by-hand"})
    assert state["type"] == "COMPLETED", state["message"]
    assert "| **by-hand** | 🟢\N{NO-BREAK SPACE}HEALTHY |" in prefect.artifacts(run_id)["endpoints"]["data"], (
        "the run shows the page"
    )
    first = records.load(folder, "by-hand")
    assert state["message"].startswith(f"by-hand is HEALTHY at {first.url} (revision 1, came up in ")
    assert prefect.ask("GET", "/variables/name/endpoint_by_hand")["value"]["url"] == first.url

    _, state = prefect.run("list-endpoints/local")
    assert state["type"] == "COMPLETED", state["message"]
    assert "HEALTHY" in state["message"]
    assert first.url in page(prefect)[0]

    _, state = prefect.run("watch-endpoints/every-minute")
    assert "HEALTHY" in state["message"]
    wait_for(lambda: prefect.events("by-hand") == ["endpoint.promoted", "endpoint.healthy"], 20)
    text, versions = page(prefect)
    assert "| **by-hand** | 🟢\N{NO-BREAK SPACE}HEALTHY |" in text
    assert f"curl -s {first.url}/chat/completions" in text
    _, state = prefect.run("watch-endpoints/every-minute")
    assert state["message"].endswith(" 0 changes."), state["message"]
    assert page(prefect)[1] == versions, "a quiet pass must not add a version"

    other = shutil.copytree(model, tmp_path / "other")
    _, state = prefect.run("serve-variant/local", model={"folder": str(other)}, serve={"name": "by-hand"})
    assert "(revision 2, " in state["message"], state["message"]
    _, state = prefect.run("roll-back/local", name="by-hand")
    assert state["type"] == "COMPLETED", state["message"]
    third = records.load(folder, "by-hand")
    assert (third.model, third.revision) == (model, 3)
    assert prefect.ask("GET", "/variables/name/endpoint_by_hand")["value"]["revision"] == 3

    os.kill(third.process.pid, signal.SIGKILL)
    wait_for(lambda: not process.alive(third.process), 10)
    prefect.run("watch-endpoints/every-minute")
    assert page(prefect)[0].count("| **by-hand** | 🔴\N{NO-BREAK SPACE}FAILED |") == 1
    time.sleep(10)
    prefect.run("watch-endpoints/every-minute")
    fourth = records.load(folder, "by-hand")
    assert (fourth.url, fourth.revision, process.alive(fourth.process)) == (third.url, 3, True)
    wait_for(lambda: process.port_served(fourth.port), 60)
    prefect.run("watch-endpoints/every-minute")
    assert records.load(folder, "by-hand").state is State.HEALTHY
    wanted = ["endpoint.rolled-back", "endpoint.failed", "endpoint.healthy"]
    wait_for(lambda: prefect.events("by-hand")[2:] == wanted, 20)

    _, state = prefect.run("stop-endpoint/local", name="by-hand")
    assert state["message"].startswith("by-hand: It was stopped on request. Ended process"), state["message"]
    assert not process.port_served(fourth.port)
    prefect.run("watch-endpoints/every-minute")
    assert "| **by-hand** | ⚫\N{NO-BREAK SPACE}STOPPED |" in page(prefect)[0]


def test_what_fails_says_so_in_words(prefect, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken, ignore=shutil.ignore_patterns("tokenizer*", "special*", "*.jinja"))
    run_id, state = prefect.run("serve-variant/local", model={"folder": str(broken)}, serve={"name": "broken"})
    assert state["type"] == "FAILED"
    assert "Cause: unknown model." in state["message"]
    assert "lines of the log:" in state["message"]
    # Of tracebacks only the model server's own, which is quoted.
    assert f'File "{CHECKOUT}/flows' not in prefect.log(run_id)
    assert "failure" in prefect.artifacts(run_id)
    assert "broken" not in records.names(prefect.local.store / "endpoints")

    for deployment, parameters, words in (
        ("serve-variant/local", {"model": {}}, "give exactly one of folder, run and artifact; none is given"),
        ("serve-variant/local", {"model": {"run": "nobody"}}, "of a run nobody"),
        (
            "serve-variant/local",
            {"model": {"artifact": "0" * 12}},
            "has no model whose digest begins with 000000000000",
        ),
        ("stop-endpoint/local", {"name": "nobody"}, "There is no endpoint 'nobody'"),
        ("roll-back/local", {"name": "nobody"}, "There is no endpoint 'nobody'"),
    ):
        run_id, state = prefect.run(deployment, **parameters)
        assert state["type"] == "FAILED"
        assert words in state["message"]
        assert no_traceback_of_ours(prefect.log(run_id))


@pytest.mark.parametrize(
    ("words", "code", "end"),
    [
        (["list-endpoints/local"], 0, "Completed after "),
        (["stop-endpoint/local", "-p", "name=nobody"], 1, "Failed after "),
        (["stop-endpoint/local", "-p", "name=No Body"], 1, "does not match"),
    ],
)
def test_a_run_from_the_terminal_ends_with_its_message(prefect, words, code, end):
    environment = prefect.local.environment(prefect.port) | {"PWD": str(CHECKOUT)}
    command = [sys.executable, "-m", "deployments.run", *words]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    last = done.stdout.splitlines()[-1]
    assert (done.returncode, end in done.stdout) == (code, True), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert code or "endpoint" in last
    if end.startswith("Failed"):
        assert "nobody" in last
