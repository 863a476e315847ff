"""From a choice to where requests go; blocks and their keys are met in end_to_end/test_generate.py."""

import os

import pytest

from flows.errors import ConfigError, ServingError
from flows.serving import records
from flows.serving.endpoint import Endpoint, ProcessRecord
from flows.serving.front.options import FrontOptions
from flows.serving.front.record import FrontRecord
from flows.serving.state import State
from flows.stages.endpoint_target import EndpointChoice, find_target, in_environment
from flows.store.layout import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def endpoint(**values):
    process = ProcessRecord(pid=1, start_ticks=1, boot_id="b", log="/tmp/log")
    known = {"name": "demo", "url": "http://127.0.0.1:9/v1", "state": State.HEALTHY, "model": "/models/a", "port": 9}
    more = {"variant": "transformers", "runtime": "process", "process": process, "ready_path": "/health"}
    return Endpoint(**{**known, **more, "settings": "s", "started": "now", **values})


@pytest.mark.parametrize(("choice", "what"), [({}, "none is"), ({"name": "a", "block": "b"}, "both are")])
def test_exactly_one_is_given(store, choice, what):
    with pytest.raises(ConfigError, match=f"endpoint: give exactly one of name and block; {what} given"):
        find_target(store, EndpointChoice(**choice))


def test_an_endpoint_of_the_store_is_asked_for_its_model_and_told_from_its_next_revision(store):
    records.save(store.endpoints, endpoint(revision=1))
    first = find_target(store, EndpointChoice(name="demo"))
    assert (first.target.base_url, first.target.model, first.secrets) == ("http://127.0.0.1:9/v1", "/models/a", {})
    records.save(store.endpoints, endpoint(revision=2))
    assert find_target(store, EndpointChoice(name="demo")).identity != first.identity


def test_what_cannot_be_asked_is_named(store):
    with pytest.raises(ServingError, match="There is no endpoint 'demo'"):
        find_target(store, EndpointChoice(name="demo"))
    records.save(store.endpoints, endpoint(state=State.STOPPED))
    with pytest.raises(ServingError, match=r"endpoint\.name: 'demo' is STOPPED\. Serve it again"):
        find_target(store, EndpointChoice(name="demo"))
    records.save(store.endpoints, endpoint(model="", identity="none"))
    with pytest.raises(ServingError, match="does not say which model to ask for"):
        find_target(store, EndpointChoice(name="demo"))


def test_an_endpoint_behind_a_front_is_asked_there_with_a_token_of_the_environment(store, tmp_path, monkeypatch):
    options = FrontOptions(enabled=True, access="token")
    front = FrontRecord(name="demo", folder=str(tmp_path / "front"), port=18443, options=options)
    records.save(store.endpoints, endpoint(front=front))
    monkeypatch.delenv("FINETUNE_ENDPOINT_API_KEY", raising=False)
    with pytest.raises(ServingError, match=r"endpoint\.name: 'demo' asks for a token, and no block .* Run issue-token"):
        find_target(store, EndpointChoice(name="demo"))
    monkeypatch.setenv("FINETUNE_ENDPOINT_API_KEY", "k")
    found = find_target(store, EndpointChoice(name="demo"))
    assert (found.target.base_url, found.target.api_key_env) == (
        "http://127.0.0.1:18443/v1",
        "FINETUNE_ENDPOINT_API_KEY",
    )
    assert found.secrets == {}
    open_front = front.model_copy(update={"options": FrontOptions(enabled=True)})
    records.save(store.endpoints, endpoint(front=open_front))
    assert find_target(store, EndpointChoice(name="demo")).target.api_key_env == ""


def test_a_key_is_in_the_environment_for_so_long_only():
    with in_environment({"FINETUNE_TEST_KEY": "k"}):
        assert os.environ["FINETUNE_TEST_KEY"] == "k"
    assert "FINETUNE_TEST_KEY" not in os.environ
