"""Real servers by the variants that need no further install: `command` and `custom`; and `vllm` where it is made."""

import sys
import time

import pytest
from openai import OpenAI

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import records
from flows.serving.ask import ask
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.variants.common import CHECKOUT

pytestmark = pytest.mark.end_to_end
SERVE = f"{sys.executable} -m transformers.cli.transformers serve {{model_path}} --host {{host}} --port {{port}}"
VLLM = CHECKOUT / "build" / "vllm" / "bin" / "python"


def the_three_ways_of_asking(endpoint):
    """List of models, completion, streamed chat: with the client that users have."""
    client = OpenAI(base_url=endpoint.url, api_key="none")
    assert endpoint.model in [model.id for model in client.models.list().data]
    question = [{"role": "user", "content": "What is a bill of lading?"}]
    whole = client.chat.completions.create(model=endpoint.model, messages=question, max_tokens=8, temperature=0)
    stream = client.chat.completions.create(
        model=endpoint.model, messages=question, max_tokens=8, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert whole.usage.completion_tokens == 8
    assert "".join(pieces) == whole.choices[0].message.content == ask(endpoint, question[0]["content"], max_tokens=8)
    assert len(pieces) > 1


def test_a_plain_command_with_a_health_path_is_healthy_by_the_name_it_lists(llama, tmp_path):
    command = {"command_line": SERVE, "health_path": "/health"}
    config = ServeConfig(name="plain", variant="command", command=command)
    endpoint = start_endpoint(config, llama, tmp_path, silent)
    assert (endpoint.state, endpoint.model, endpoint.variant) == (State.HEALTHY, str(llama), "command")
    the_three_ways_of_asking(endpoint)
    assert records.list_endpoints(tmp_path) == [endpoint]
    assert start_endpoint(config, llama, tmp_path, silent) == endpoint
    assert stop_endpoint("plain", tmp_path).state is State.STOPPED


def test_a_plain_command_without_a_health_path_is_unverified_and_serves(llama, tmp_path):
    config = ServeConfig(name="blind", variant="command", command={"command_line": SERVE})
    endpoint = start_endpoint(config, llama, tmp_path, silent)
    assert (endpoint.state, endpoint.model) == (State.UNVERIFIED, str(llama))
    assert "no health path" in endpoint.why
    assert records.load(tmp_path, "blind") == endpoint
    assert [e.state for e in records.list_endpoints(tmp_path)] == [State.UNVERIFIED]
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
    assert records.list_endpoints(endpoints)[0].state is State.STOPPED


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
    assert records.list_endpoints(tmp_path / "endpoints") == [endpoint]
    stop_endpoint("fixed", tmp_path / "endpoints")


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


@pytest.mark.skipif(not VLLM.exists(), reason=f"there is no {VLLM}: `make vllm` makes it (5 minutes, 3.4 GB)")
def test_vllm_serves_under_a_name_of_ours_and_a_wrong_option_is_told(llama, tmp_path):
    options = {"dtype": "float32", "enforce_eager": True, "cpu_kv_cache_gib": 1, "max_model_len": 256}
    config = ServeConfig(name="fast", variant="vllm", vllm=options)
    notes = []
    endpoint = start_endpoint(config, llama, tmp_path, lambda done, total, note="", /, **_: notes.append(note))
    assert (endpoint.state, endpoint.model, endpoint.root) == (State.HEALTHY, "fast", str(llama))
    assert any("loading weights" in note for note in notes)
    the_three_ways_of_asking(endpoint)
    wrong = config.model_copy(update={"vllm": config.vllm.model_copy(update={"extra_flags": ["--no-such-flag"]})})
    with pytest.raises(StartError) as error:
        start_endpoint(wrong, llama, tmp_path, silent)
    assert error.value.cause is Cause.BAD_OPTION
    assert records.list_endpoints(tmp_path) == [endpoint]
    stop_endpoint("fast", tmp_path)
    assert process.members(endpoint.process) == []


@pytest.mark.skipif(not VLLM.exists(), reason=f"there is no {VLLM}: `make vllm` makes it (5 minutes, 3.4 GB)")
def test_vllm_serves_an_adapter_beside_its_base(llama, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(llama), LoraConfig(r=8, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "style")
    adapters = [{"name": "style", "path": str(tmp_path / "style")}]
    options = {"dtype": "float32", "enforce_eager": True, "cpu_kv_cache_gib": 1, "max_model_len": 256}
    options |= {"enable_lora": True, "adapters": adapters}
    config = ServeConfig(name="two", variant="vllm", vllm=options)
    endpoint = start_endpoint(config, llama, tmp_path / "endpoints", silent)
    try:
        client = OpenAI(base_url=endpoint.url, api_key="none")
        assert [model.id for model in client.models.list().data] == ["two", "style"]
        assert isinstance(ask(endpoint.model_copy(update={"model": "style"}), "Hi?", max_tokens=4), str)
    finally:
        stop_endpoint("two", tmp_path / "endpoints")
