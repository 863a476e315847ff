import json
from pathlib import Path

import pytest

from flows.errors import ConfigError, ServingError
from flows.stages.model_source import ModelSource, find_model
from flows.store.artifacts import publish
from flows.store.layout import Store
from tests.reporting.conftest import make_report
from tests.serving.folders import model


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_a_folder_is_taken_as_it_is(store):
    assert find_model(store, ModelSource(folder="/models/a")) == Path("/models/a")


@pytest.mark.parametrize(
    ("given", "words"), [({}, "none is given"), ({"folder": "/a", "run": "b"}, "folder and run are given")]
)
def test_one_of_the_three_must_be_given(store, given, words):
    with pytest.raises(ConfigError, match=f"exactly one of folder, run and artifact; {words}"):
        find_model(store, ModelSource(**given))


def test_an_artifact_is_found_by_the_beginning_of_its_digest_and_must_be_whole(store, tmp_path):
    artifact = publish(store, "model", model(tmp_path / "made"), {})
    assert find_model(store, ModelSource(artifact=artifact.digest)) == Path(artifact.path)
    assert find_model(store, ModelSource(artifact=artifact.digest[:8])) == Path(artifact.path)
    with pytest.raises(ServingError, match="has no model whose digest begins with"):
        find_model(store, ModelSource(artifact=artifact.digest[:30] + "0" * 34))
    (Path(artifact.path) / "model.safetensors").unlink()
    with pytest.raises(ServingError, match="is damaged: model.safetensors is missing. Make it anew"):
        find_model(store, ModelSource(artifact=artifact.digest))


def test_a_run_s_model_is_what_its_report_names(store):
    report = make_report()
    folder = store.run("run-1")
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report.model_dump_json())
    assert find_model(store, ModelSource(run="run-1")) == Path(report.trained_model_uri)
    with pytest.raises(ServingError, match="has no report of a run run-2"):
        find_model(store, ModelSource(run="run-2"))
    (folder / "report.json").write_text(json.dumps({}))
    with pytest.raises(ServingError, match="is no report"):
        find_model(store, ModelSource(run="run-1"))
