"""Real servers by the variants that need no further install: `transformers`, `command` and `custom`."""

import shutil
import sys
import time

import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, records
from flows.serving.ask import ask
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from tests.serving.verifications import the_three_ways_of_asking

pytestmark = pytest.mark.end_to_end
SERVE = f"{sys.executable} -m transformers.cli.transformers serve {{model_path}} --host {{host}} --port {{port}}"


def test_transformers_serves_as_the_article_verifies_it(served):
    the_three_ways_of_asking(served)


def test_a_plain_command_with_a_health_path_is_healthy_by_the_name_it_lists(llama, tmp_path):
    command = {"command_line": SERVE, "health_path": "/health"}
    config = ServeConfig(name="plain", variant="command", command=command)
    endpoint = start_endpoint(config, llama, tmp_path, silent)
    assert (endpoint.state, endpoint.model, endpoint.variant) == (State.HEALTHY, str(llama), "command")
    the_three_ways_of_asking(endpoint)
    assert listing.list_records(tmp_path) == [endpoint]
    assert start_endpoint(config, llama, tmp_path, silent) == endpoint
    assert stop_endpoint("plain", tmp_path).state is State.STOPPED


def test_a_plain_command_without_a_health_path_is_unverified_and_serves(llama, tmp_path):
    config = ServeConfig(name="blind", variant="command", command={"command_line": SERVE})
    endpoint = start_endpoint(config, llama, tmp_path, silent)
    assert (endpoint.state, endpoint.model) == (State.UNVERIFIED, str(llama))
    assert "no health path" in endpoint.why
    assert records.load(tmp_path, "blind") == endpoint
    assert [e.state for e in listing.list_records(tmp_path)] == [State.UNVERIFIED]
    assert start_endpoint(config, llama, tmp_path, silent) == endpoint
    assert isinstance(ask(endpoint, "Hi?", max_tokens=4), str)
    stop_endpoint("blind", tmp_path)
    assert not process.alive(endpoint.process)


def test_a_definition_in_the_model_folder_is_served_after_its_actions(llama, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for file in llama.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "model-definition.yaml").write_text(
        f"""
models:
  - name: tiny
    model_path: /models
    service:
      pre_start_actions:
        - action: write_file
          args: {{filename: '{tmp_path}/settings', body: ["model is {{model_path}}"]}}
      start_command: |
        cat {tmp_path}/settings
        exec {SERVE}
      port: 8000
      health_check: {{enable: true, path: /health, initial_delay: 120}}
"""
    )
    endpoints = tmp_path / "endpoints"
    endpoint = start_endpoint(ServeConfig(name="defined", variant="custom"), folder, endpoints, silent)
    assert (endpoint.state, endpoint.model, endpoint.variant) == (State.HEALTHY, str(folder), "custom")
    with open(endpoint.log) as log:
        assert log.readline() == f"model is {folder}\n"
    the_three_ways_of_asking(endpoint)
    stop_endpoint("defined", endpoints)
    assert listing.list_records(endpoints)[0].state is State.STOPPED


def custom(folder, command, port=8000, health="{enable: true}", actions="[]"):
    folder.mkdir(exist_ok=True)
    (folder / "model-definition.yaml").write_text(
        f"models: [{{name: m, model_path: /models, service: {{start_command: {command}, port: {port}, "
        f"pre_start_actions: {actions}, health_check: {health}}}}}]"
    )
    return folder


def test_a_definition_that_keeps_its_port_cannot_be_started_beside_itself(tmp_path):
    port = process.choose_port(0)
    folder = custom(tmp_path / "m", f"[{sys.executable}, -m, http.server, '{port}']", port, "{enable: false}")
    config = ServeConfig(name="fixed", variant="custom")
    endpoint = start_endpoint(config, folder, tmp_path / "endpoints", silent)
    assert (endpoint.state, endpoint.port) == (State.UNVERIFIED, port)
    assert start_endpoint(config, folder, tmp_path / "endpoints", silent) == endpoint
    with pytest.raises(ServingError, match=rf"listens on port {port} only, on which fixed still serves"):
        start_endpoint(config.model_copy(update={"threads": 2}), folder, tmp_path / "endpoints", silent)
    with pytest.raises(ServingError, match=f"port: {port} on 127.0.0.1 is taken by process"):
        start_endpoint(config.model_copy(update={"name": "other"}), folder, tmp_path / "endpoints", silent)
    assert listing.list_records(tmp_path / "endpoints") == [endpoint]
    stop_endpoint("fixed", tmp_path / "endpoints")


def test_a_zero_byte_in_a_definition_is_told(tmp_path):
    folder = custom(tmp_path / "m", r'["sh", "a\0b"]')
    with pytest.raises(ServingError, match="Cannot start sh: embedded null byte in its command line"):
        start_endpoint(ServeConfig(variant="custom"), folder, tmp_path / "endpoints", silent)
    assert records.names(tmp_path / "endpoints") == []


def test_a_given_name_is_the_same_for_the_next_model(llama, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(llama, second)
    config = ServeConfig(name="named", served_model_name="acme/trade-terms")
    for folder in (llama, second):
        endpoint = start_endpoint(config, folder, tmp_path / "endpoints", silent)
        assert (endpoint.state, endpoint.model) == (State.HEALTHY, "acme/trade-terms")
        the_three_ways_of_asking(endpoint)
    stop_endpoint("named", tmp_path / "endpoints")


def test_a_folder_with_any_name_is_served(llama, tmp_path):
    folder = tmp_path / "모델 (a b) 'c'"
    shutil.copytree(llama, folder)
    endpoint = start_endpoint(ServeConfig(name="odd"), folder, tmp_path / "endpoints", silent)
    assert (endpoint.state, endpoint.model) == (State.HEALTHY, str(folder))
    the_three_ways_of_asking(endpoint)
    stop_endpoint("odd", tmp_path / "endpoints")


@pytest.mark.parametrize(
    ("command", "actions", "cause"),
    [
        ("'no-such-server --port {port}'", "[]", Cause.MISSING_PROGRAM),
        ("echo never", "[{action: run_command, args: {command: ['false']}}]", Cause.PRE_START),
        (f"'{sys.executable} -m transformers.cli.transformers serve --no-such-flag'", "[]", Cause.BAD_OPTION),
        ("'cat /no/such/file'", "[]", Cause.MISSING_PATH),
    ],
)
def test_a_definition_that_fails_says_why_at_once(tmp_path, command, actions, cause):
    folder = custom(tmp_path / "m", command, actions=actions)
    began = time.monotonic()
    with pytest.raises(StartError) as error:
        start_endpoint(ServeConfig(variant="custom"), folder, tmp_path / "endpoints", silent)
    assert error.value.cause is cause, str(error.value)
    assert f"Cause: {cause.words}. {cause.remedy}" in str(error.value)
    assert time.monotonic() - began < 30
    assert records.names(tmp_path / "endpoints") == []


def test_a_command_that_listens_nowhere_is_no_endpoint(tmp_path, llama):
    command = {"command_line": "sleep 600", "port": process.choose_port(0)}
    config = ServeConfig(variant="command", command=command, startup_budget_s=2)
    with pytest.raises(StartError, match=r"was not healthy within startup_budget_s=2 s .*Nobody listens"):
        start_endpoint(config, llama, tmp_path, silent)
