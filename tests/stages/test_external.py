"""From the name of a block to settings and environment; the look-up itself is met in end_to_end/test_generate.py."""

import os
from pathlib import Path

import pytest

from blocks.openai_endpoint import OpenAIEndpoint
from flows.errors import ConfigError
from flows.serving import records, revisions
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ExternalRecord
from flows.serving.revisions import Revision
from flows.stages import endpoint_target, external, judge
from flows.stages.model_source import ModelSource, model_of
from flows.store.layout import Store
from tests.stages.test_endpoint_target import endpoint

BLOCKS = {
    "gate-way": OpenAIEndpoint(base_url="https://llm.example.org/v1", model="big", api_key="sk-1"),
    "open": OpenAIEndpoint(base_url="https://open.example.org/v1", model="small"),
}


@pytest.fixture(autouse=True)
def _blocks(monkeypatch):
    def load(name, parameter, otherwise=""):
        if name not in BLOCKS:
            raise ConfigError(f"{parameter}: there is no OpenAI Endpoint block '{name}'.")
        return BLOCKS[name]

    monkeypatch.setattr(external, "load_block", load)
    monkeypatch.setattr(os, "environ", dict(os.environ))


def serve(**options):
    return ServeConfig(name="theirs", runtime="external", external=options)


def test_a_block_gives_address_model_and_the_variable_of_its_key():
    found = external.with_block(serve(block="gate-way"))
    assert found.external.url == "https://llm.example.org/v1"
    assert (found.external.key_variable, found.served_model_name) == ("FINETUNE_BLOCK_GATE_WAY_API_KEY", "big")
    assert os.environ["FINETUNE_BLOCK_GATE_WAY_API_KEY"] == "sk-1"
    assert "sk-1" not in found.model_dump_json()


def test_an_open_block_needs_no_key_and_other_settings_stay_as_they_are():
    assert external.with_block(serve(block="open")).external.key_variable == ""
    for config in (serve(url="https://a.example.org/v1"), ServeConfig(external={"block": "gate-way"})):
        assert external.with_block(config) is config


@pytest.mark.parametrize("taken", [endpoint_target.KEY_VARIABLE, judge.KEY_VARIABLE])
def test_no_name_of_a_block_leads_to_a_variable_of_another_key(monkeypatch, taken):
    monkeypatch.setenv(taken, "theirs")
    name = taken.removeprefix("FINETUNE_").removesuffix("_API_KEY").lower().replace("_", "-")
    monkeypatch.setitem(BLOCKS, name, BLOCKS["gate-way"])
    assert external.with_block(serve(block=name)).external.key_variable not in ("", taken)
    assert os.environ[taken] == "theirs"


def test_a_prefect_that_does_not_answer_costs_no_look_at_the_others(tmp_path, monkeypatch, caplog):
    def load(name, parameter):
        if name == "away":
            raise ConnectionError("nobody answers")
        return BLOCKS[name]

    monkeypatch.setattr(external, "load_block", load)
    for name, block in (("one", "away"), ("two", "gate-way")):
        record = ExternalRecord(url="https://llm.example.org/v1", block=block)
        records.save(tmp_path, endpoint(name=name, runtime="external", process=record))
    external.load_keys(tmp_path)
    assert os.environ["FINETUNE_BLOCK_GATE_WAY_API_KEY"] == "sk-1"
    assert "The key of the OpenAI Endpoint block 'away' could not be read: nobody answers" in caplog.text


def test_a_damaged_revision_costs_no_other_key(tmp_path, caplog):
    (tmp_path / "theirs" / "revisions").mkdir(parents=True)
    (tmp_path / "theirs" / "revisions" / "1.json").write_text("{")
    record = ExternalRecord(url="https://llm.example.org/v1", block="gate-way")
    records.save(tmp_path, endpoint(name="theirs", runtime="external", process=record))
    assert revisions.numbers(tmp_path, "theirs") == [1]
    external.load_keys(tmp_path, "theirs")
    assert os.environ["FINETUNE_BLOCK_GATE_WAY_API_KEY"] == "sk-1"
    assert "1.json" in caplog.text


def test_a_block_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="serve.external.block: there is no OpenAI Endpoint block 'gone'"):
        external.with_block(serve(block="gone"))


def test_the_keys_of_all_endpoints_are_there_before_they_are_asked(tmp_path, caplog):
    for name, block in (("one", "gate-way"), ("two", "gone"), ("three", "")):
        record = ExternalRecord(url="https://llm.example.org/v1", block=block)
        records.save(tmp_path, endpoint(name=name, runtime="external", process=record))
    records.save(tmp_path, endpoint(name="four"))
    external.load_keys(tmp_path)
    assert os.environ["FINETUNE_BLOCK_GATE_WAY_API_KEY"] == "sk-1"
    assert "no OpenAI Endpoint block 'gone'" in caplog.text


def test_the_key_of_a_former_revision_is_there_before_it_is_taken_up_again(tmp_path):
    revision = Revision(number=0, promoted="now", model_dir="", config=serve(block="gate-way"))
    revisions.keep(tmp_path, revision, 0)
    external.load_keys(tmp_path)
    assert "FINETUNE_BLOCK_GATE_WAY_API_KEY" not in os.environ
    external.load_keys(tmp_path, "theirs")
    assert os.environ["FINETUNE_BLOCK_GATE_WAY_API_KEY"] == "sk-1"


def test_no_model_is_needed_where_nothing_is_started(tmp_path):
    store = Store(str(tmp_path))
    assert model_of(store, ModelSource(), serve(block="open")) == Path()
    assert model_of(store, ModelSource(folder="/models/a"), serve(block="open")) == Path("/models/a")
    with pytest.raises(ConfigError, match="none is given"):
        model_of(store, ModelSource(), ServeConfig())
