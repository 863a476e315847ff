"""A base model on another machine than the one that asks: each comes by it in its own way."""

import json
from pathlib import Path

import pytest

from flows.base_models.resolve import BaseModelConfig, pinned, resolve
from flows.corpus.sources.registry import Sources
from flows.errors import ConfigError, ModelError
from flows.evaluation.config import EvaluationConfig
from flows.stages.call import StageCall
from flows.stages.make import make
from flows.stages.pipeline import Pipeline
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.stage_request import StageRequest, call_of, request_of
from flows.stages.stage_task import Outcome
from flows.store.layout import Store
from flows.training.config import FinetuneConfig, PretrainConfig
from tests.stages.test_make import Settings, nothing_told
from tests.stages.test_make import stage as stage

SEEN = []


def look(config, inputs, workdir, progress):
    """Notes the folder of its model and what it can read there."""
    SEEN.append((inputs["model"], json.loads((inputs["model"] / "config.json").read_text())["model_type"]))
    (workdir / "output").mkdir()
    (workdir / "output" / "model").write_text("trained")
    return {}


@pytest.fixture
def asking(tmp_path, stage, monkeypatch):
    """The run of a machine that has the model; what it asks for looks at it."""
    monkeypatch.setattr("tests.stages.test_make.work", look)
    SEEN.clear()
    return RunContext(Store(str(tmp_path / "here")), RunOptions(), "the-id", "the-name", "demo")


def sent(run, config, **other):
    """What the machine that asks sends; `other` takes the place of what it knows of the model."""
    found = resolve(config, run.store.models).model_copy(update=other)
    inputs, digests = {"model": Path(found.path)}, {"base_model": found.identity}
    call = StageCall("own", Settings(), inputs, digests, base_models={"model": found.source})
    return call, request_of(run, call, refresh=False).model_dump_json()


def received(text, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_STORE", str(tmp_path / "there"))
    return call_of(StageRequest.model_validate_json(text))


def test_a_model_that_was_made_in_the_store_of_one_machine_is_made_in_that_of_the_other(asking, tmp_path, monkeypatch):
    call, text = sent(asking, BaseModelConfig(name="tiny:llama-3"))
    assert str(tmp_path) not in text, "no folder of the machine that asks"
    there, again = received(text, tmp_path, monkeypatch)
    assert again.key == call.key
    (tmp_path / "here").rename(tmp_path / "gone")
    make(there, again, False, nothing_told)
    [(folder, kind)] = SEEN
    assert (kind, folder.is_relative_to(tmp_path / "there")) == ("llama", True)


def test_a_folder_that_holds_another_model_there_is_refused(asking, tmp_path, monkeypatch):
    there, call = received(
        sent(asking, BaseModelConfig(name="tiny:llama-3"), identity="tiny:0")[1], tmp_path, monkeypatch
    )
    with pytest.raises(
        ConfigError, match=r"model\.name: tiny:llama-3 is another model on this worker \(tiny.* asks \(tiny:0\)"
    ):
        make(there, call, False, nothing_told)
    assert SEEN == []


def test_a_folder_that_is_not_there_is_told_and_not_tried_again(asking, tmp_path, monkeypatch, tiny_models):
    mine = tmp_path / "mine"
    mine.symlink_to(tiny_models["llama-3"])
    there, call = received(sent(asking, BaseModelConfig(name=str(mine)))[1], tmp_path, monkeypatch)
    mine.unlink()
    with pytest.raises(ModelError, match=r"no base model '.*/mine': it is neither a folder here nor") as error:
        make(there, call, False, nothing_told)
    assert not error.value.retryable


def test_the_stages_that_read_the_base_model_say_how_to_come_by_it(asking):
    seen, made = [], {"kind": "model", "digest": "d", "path": "/"}

    def runner(run, call):
        seen.append(call)
        return Outcome(stage=call.name, status="ran", seconds=0, why="", artifact=made, figures={}, maker={})

    line = Pipeline(asking, runner=runner)
    base = resolve(BaseModelConfig(name="tiny:llama-3"), asking.store.models)
    dataset = line.prepare(Sources(terms=[{"path": "sample:trade_en/terms"}]))
    tuned = line.finetune(FinetuneConfig(), dataset, line.pretrain(PretrainConfig(), dataset, base))
    line.evaluate(EvaluationConfig(embedder="hashed:char-ngrams"), dataset, base, tuned)
    assert [call.base_models for call in seen] == [{}, {"model": base.source}, {}, {"base": base.source}]
    assert sorted(seen[1].digests) == ["base_model", "dataset"]


def test_a_hub_model_is_asked_for_at_its_commit():
    assert (
        pinned(BaseModelConfig(name="google/gemma-2-2b-it"), "hub:google/gemma-2-2b-it@299a8560").revision == "299a8560"
    )
