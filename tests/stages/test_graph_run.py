import os
import threading

import pytest

from flows.corpus.ladder import SplitConfig
from flows.corpus.sources.registry import Sources
from flows.errors import ConfigError, DataError
from flows.stages.graph import OwnStage, nodes
from flows.stages.graph_run import Surroundings, run_graph
from flows.stages.pipeline import Pipeline
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.stage_task import Outcome, StageError
from flows.store.artifacts import Artifact
from flows.store.layout import Store


class Runner:
    """Stands for the running of a stage; each call is kept, one whose command is `false` fails."""

    def __init__(self):
        self.calls = {}

    def __call__(self, run, call):
        self.calls[call.name] = call
        if getattr(call.config, "command", "") == "false":
            raise StageError(call.name, "it failed")
        artifact = Artifact(kind="files", digest=f"digest of {call.name}", path=f"/made/{call.name}")
        maker = {"run_id": "1", "run_name": "a", "run_url": "", "time": ""}
        return Outcome(stage=call.name, status="ran", seconds=0, why="", artifact=artifact, figures={}, maker=maker)


def pipeline_of(stages, tmp_path, runner, env=(), at_once=0, **shared):
    sources = Sources(folder=shared.get("data_folder", ""))
    graph = nodes([OwnStage(**stage) for stage in stages], sources, SplitConfig())
    run = RunContext(Store(str(tmp_path)), RunOptions(env=list(env), at_once=at_once), "1", "a", "local")
    own = {node.name: node.stage.resources for node in graph}
    always = {node.name for node in graph if node.stage.always}
    line = Pipeline(run, runner=runner, own=own, always=always)
    return line, run_graph(line, graph, Surroundings(None, shared.get("data_folder", "")))


def shell(name, *after, command="true", **more):
    return {"name": name, "kind": "shell", "command": command, "after": list(after), **more}


def test_a_stage_reads_what_those_before_it_made(tmp_path):
    runner = Runner()
    line, failed = pipeline_of([shell("a"), shell("b", "a"), shell("c", "a"), shell("d", "b", "c")], tmp_path, runner)
    assert failed == {}
    order = list(line.outcomes)
    assert (order[0], set(order[1:3]), order[3]) == ("a", {"b", "c"}, "d")
    assert {name: str(path) for name, path in runner.calls["d"].inputs.items()} == {"b": "/made/b", "c": "/made/c"}
    assert runner.calls["d"].digests == {"b": "digest of b", "c": "digest of c"}


def test_what_comes_after_a_failed_stage_is_skipped_and_the_rest_is_done(tmp_path):
    stages = [shell("a", command="false"), shell("b", "a"), shell("c", "b"), shell("other")]
    line, failed = pipeline_of(stages, tmp_path, Runner())
    assert {name: str(error) for name, error in failed.items()} == {"a": "it failed"}
    assert list(line.outcomes) == ["other"]
    assert {(s.name, s.why) for s in line.stages if s.status == "skipped"} == {
        ("b", "not run: a failed"),
        ("c", "not run: a failed"),
    }


def test_branches_run_side_by_side(tmp_path):
    both = threading.Barrier(2, timeout=20)
    runner = Runner()

    def together(run, call):
        both.wait()
        return runner(run, call)

    line, failed = pipeline_of([shell("a"), shell("b")], tmp_path, together)
    assert (failed, set(line.outcomes)) == ({}, {"a", "b"})


def test_a_command_depends_on_the_files_that_it_names(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.txt").write_text("one")
    stages = [shell("a", files=["**/*.txt"])]
    runner = Runner()
    pipeline_of(stages, tmp_path, runner, data_folder=str(tmp_path / "data"))
    first = runner.calls["a"]
    assert list(first.digests) == ["data/deep/a.txt"]
    assert first.config.data_folder == str(tmp_path / "data")
    whole = [shell("a", files=[str(tmp_path / "data" / "**" / "*.txt")])]
    pipeline_of(whole, tmp_path, runner, data_folder=str(tmp_path / "data"))
    assert runner.calls["a"].key == first.key
    (tmp_path / "data" / "deep" / "a.txt").write_text("two")
    pipeline_of(stages, tmp_path, runner, data_folder=str(tmp_path / "data"))
    assert runner.calls["a"].key != first.key
    _, failed = pipeline_of([shell("a", files=["none"])], tmp_path, runner, data_folder=str(tmp_path / "data"))
    assert str(failed["a"]).startswith("There is no file none in ")
    (tmp_path / "data" / os.fsdecode(b"\xff.csv")).touch()
    _, failed = pipeline_of([shell("a", files=["*.csv"])], tmp_path, runner, data_folder=str(tmp_path / "data"))
    assert "\\udcff.csv' is no UTF-8. Give it another one." in str(failed["a"])


def test_the_environment_of_the_run_is_that_of_every_stage_unless_it_says_otherwise(tmp_path):
    runner = Runner()
    stages = [shell("a"), shell("b", resources={"env": ["ONE=b", "TOKEN=secret:hub"]})]
    pipeline_of(stages, tmp_path, runner, env=["ONE=all", "TWO=2"])
    assert runner.calls["a"].resources.env == ["ONE=all", "TWO=2"]
    assert runner.calls["b"].resources.env == ["TWO=2", "ONE=b", "TOKEN=secret:hub"]
    assert runner.calls["b"].config.secrets == ["TOKEN"]
    assert runner.calls["a"].config.environment == ["ONE=all", "TWO=2"]


def test_a_stage_that_is_to_run_always_is_asked_to(tmp_path):
    runner = Runner()
    pipeline_of([shell("a", always=True), shell("b")], tmp_path, runner)
    assert (runner.calls["a"].anew, runner.calls["b"].anew) == (True, False)


def test_the_folder_of_a_stage_stands_in_the_settings_of_a_later_one(tmp_path):
    made = tmp_path / "made.csv"
    made.write_text("question,answer\nWhat?,That.\n")
    runner = Runner()

    def fetched(run, call):
        outcome = runner(run, call)
        return outcome.model_copy(update={"artifact": outcome.artifact.model_copy(update={"path": str(tmp_path)})})

    tables = "sources.tables=[{path: '{fetch}/made.csv', question: question, answer: answer}]"
    stages = [shell("fetch"), {"name": "prepare", "kind": "prepare", "after": ["fetch"], "settings": [tables]}]
    _, failed = pipeline_of(stages, tmp_path, fetched)
    assert failed == {}
    assert runner.calls["prepare"].config.sources.tables[0].path == str(made)


def test_an_error_of_the_work_is_an_error_of_the_pipeline(tmp_path):
    def broken(run, call):
        raise DataError("terms.json, line 3: no description")

    _, failed = pipeline_of([shell("a")], tmp_path, broken)
    assert isinstance(failed["a"], DataError)
    with pytest.raises(ConfigError):
        pipeline_of([], tmp_path, broken)
