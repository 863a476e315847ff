import importlib.metadata
import json
from pathlib import Path

import pytest

from flows.errors import ConfigError
from flows.stages.call import StageCall
from flows.stages.former import nearest, remember
from flows.stages.resources import StageResources
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.stage_request import StageRequest, call_of, request_of
from flows.store.files import write_json
from flows.store.layout import DONE, Store
from flows.training.config import FinetuneConfig


def asking(tmp_path):
    return RunContext(Store(str(tmp_path / "here")), RunOptions(), "the-id", "the-name", "demo")


def call(store, rate=2e-4, name="finetune-slow"):
    inputs = {"dataset": store.root / "artifacts" / "dataset" / "x", "model": Path("/opt/model")}
    digests = {"dataset": "d", "base_model": "b"}
    needs = StageResources(work_pool="gpu", gpus=1)
    return StageCall(name, FinetuneConfig(learning_rate=rate), inputs, digests, "finetune", needs)


def test_a_call_is_the_same_on_another_machine_whose_store_lies_elsewhere(tmp_path, monkeypatch):
    run = asking(tmp_path)
    sent = request_of(run, call(run.store), refresh=False).model_dump_json()
    monkeypatch.setenv("FINETUNE_STORE", str(tmp_path / "there"))
    there, received = call_of(StageRequest.model_validate_json(sent))
    assert received.key == call(run.store).key
    assert received.inputs == {
        "dataset": tmp_path / "there" / "artifacts" / "dataset" / "x",
        "model": Path("/opt/model"),
    }
    assert (there.run_id, there.run_name, there.line) == ("the-id", "the-name", "demo")


def test_another_version_of_the_code_is_refused(tmp_path):
    run = asking(tmp_path)
    sent = json.loads(request_of(run, call(run.store), refresh=False).model_dump_json())
    for changed in ({"key": "finetune-0"}, {"kind": "distil"}):
        with pytest.raises(ConfigError, match="another version of the project"):
            call_of(StageRequest.model_validate(sent | changed))


def test_what_is_another_on_the_worker_is_named(tmp_path, monkeypatch):
    run = asking(tmp_path)
    sent = request_of(run, call(run.store), refresh=False)
    versions = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1" if name == "peft" else versions(name))
    with pytest.raises(ConfigError, match=rf"another one here \(peft {versions('peft')} -> 0\.1\): this worker runs"):
        call_of(sent)
    builds = {"torch": versions("torch").partition("+")[0] + "+cu130"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: builds.get(name) or versions(name))
    assert call_of(sent)[1].key == sent.key, "another build of the same version is no other version"


def test_the_nearest_former_result_is_the_one_with_the_fewest_differences(tmp_path):
    run = asking(tmp_path)
    for number, rate in enumerate((1e-3, 1e-4)):
        made = call(run.store, rate)
        remember(run.store, made)
        maker = {"run_name": f"run-{number}", "time": f"2026-01-0{number + 1}T00:00:00"}
        write_json(run.store.work(made.key) / DONE, {"maker": maker})
    other = call(run.store, 1e-4)
    near = nearest(run.store, StageCall(**{**vars(other), "config": FinetuneConfig(learning_rate=1e-4, epochs=9)}))
    assert near.changes == ["epochs 3 -> 9"]
    assert near.maker["run_name"] == "run-1"
    assert nearest(run.store, call(run.store, 1e-3)).changes == []
    tied = nearest(run.store, call(run.store, 5e-4))
    assert (tied.maker["run_name"], tied.changes) == ("run-1", ["learning_rate 0.0001 -> 0.0005"])


def test_a_stage_at_work_is_no_former_result(tmp_path):
    run = asking(tmp_path)
    remember(run.store, call(run.store))
    assert nearest(run.store, call(run.store)) is None
