"""Making what a key stands for: what is damaged is made again, and a former attempt leaves nothing."""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from flows.errors import ConfigError, DataError, RunEndedError
from flows.stages import make as maker
from flows.stages import run_context
from flows.stages.call import StageCall
from flows.stages.make import artifact_of, finished, make
from flows.stages.preflight import check_store
from flows.stages.registry import STAGES, Stage
from flows.stages.resources import StageResources
from flows.stages.run_context import RunContext, RunOptions
from flows.store import garbage
from flows.store.attempts import SupersededError, take
from flows.store.layout import DONE, Store
from flows.training.config import FinetuneConfig


class Settings(BaseModel):
    text: str = "weights"


def work(config, inputs, workdir, progress):
    """Writes the text; `meanwhile` is what happens before that."""
    progress(0, 1)
    (workdir / "output").mkdir()
    (workdir / "output" / "model").write_text(config.text)
    meanwhile()
    progress(1, 1)
    return {"figure": 1}


def meanwhile():
    """What another process does during the work; tests put it in."""


def nothing_told(why):
    pass


@pytest.fixture(autouse=True)
def stage(monkeypatch):
    function, settings = f"{__name__}:work", f"{__name__}:Settings"
    own = Stage(name="own", function=function, config=settings, artifact="model", code=[], heavy=False)
    monkeypatch.setitem(STAGES, "own", own)
    monkeypatch.setattr(run_context, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(run_context, "ProgressArtifact", lambda stage: lambda *report, **figures: None)


def run_of(tmp_path, name="first"):
    return RunContext(Store(str(tmp_path / "store")), RunOptions(), name, f"run-{name}", "local")


def call(text="weights"):
    return StageCall("own", Settings(text=text), {}, {})


def made(run, refresh=False):
    return make(run, call(), refresh, nothing_told)


def test_a_second_run_takes_what_the_first_has_made_wherever_the_store_lies_now(tmp_path):
    run = run_of(tmp_path)
    result = made(run)
    assert result["artifact"]["path"].startswith("artifacts/model/")
    assert made(run_of(tmp_path, "second"))["maker"]["run_id"] == "first"
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = RunContext(Store(str(tmp_path / "moved")), RunOptions(), "third", "run-third", "local")
    again = finished(moved, call().key)
    assert Path(artifact_of(moved, again).path, "model").read_text() == "weights"


def test_a_corrupted_artifact_is_said_and_made_again(tmp_path, caplog):
    run = run_of(tmp_path)
    file = Path(artifact_of(run, made(run)).path, "model")
    file.write_text("wrights")
    second = run_of(tmp_path, "second")
    assert finished(second, call().key) is None
    assert "is damaged: model is not what was written. It is made anew." in caplog.text
    assert made(second)["maker"]["run_id"] == "second"
    assert file.read_text() == "weights"


@pytest.mark.parametrize(
    "torn",
    ["[]", "{}", '{"artifact": 1}', '{"artifact": {"path": "a"}}', '{"artifact": 1, "figures": {}, "maker": {}}'],
)
def test_a_word_of_another_shape_is_said_and_made_again(tmp_path, caplog, torn):
    run = run_of(tmp_path)
    made(run)
    file = run.store.work(call().key) / DONE
    file.write_text(torn)
    assert finished(run, call().key) is None
    assert f"{file} is damaged. The result is made anew." in caplog.text
    assert made(run)["figures"]["figure"] == 1


HARM = {
    "model is not what was written": lambda result: (result / "model").write_text("other words"),
    "model is missing": lambda result: (result / "model").unlink(),
    "it has no manifest": shutil.rmtree,
}


def test_what_a_command_adds_to_a_result_before_it_is_removed(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "shell", STAGES["own"].model_copy(update={"name": "shell"}))
    run = run_of(tmp_path)
    before = Path(artifact_of(run, made(run)).path)
    (before / "of-a-server").touch()
    monkeypatch.setattr(sys.modules[__name__], "meanwhile", (before / "more.csv").touch)
    reads = StageCall("look", Settings(text="more"), {"first": before}, {}, "shell")
    with pytest.raises(DataError, match="While look ran, its input first was changed: more.csv was added, and is rem"):
        make(run, reads, False, nothing_told)
    assert sorted(file.name for file in before.iterdir()) == ["manifest.json", "model", "of-a-server"]


@pytest.mark.parametrize("what", HARM)
def test_what_has_written_into_a_result_before_it_makes_none_and_that_is_made_anew(tmp_path, monkeypatch, what):
    run = run_of(tmp_path)
    before = Path(artifact_of(run, made(run)).path)
    monkeypatch.setattr(sys.modules[__name__], "meanwhile", lambda: HARM[what](before))
    reads = StageCall("own", Settings(text="more"), {"first": before}, {})
    with pytest.raises(DataError, match=f"While own ran, its input first was changed: {what}. ") as error:
        make(run, reads, False, nothing_told)
    assert not error.value.retryable
    assert not (run.store.work(reads.key) / DONE).exists()
    monkeypatch.setattr(sys.modules[__name__], "meanwhile", lambda: None)
    assert finished(run, call().key) is None
    made(run)
    assert make(run, reads, False, nothing_told)["figures"]["figure"] == 1


@pytest.mark.parametrize(("use", "kept"), [(True, True), (False, False)])
def test_a_result_that_a_run_relies_on_is_no_garbage_from_then_on_and_one_only_looked_at_is(tmp_path, use, kept):
    run = run_of(tmp_path)
    place = Path(artifact_of(run, made(run)).path)
    long_ago = time.time() - 90 * garbage.DAY_S
    for path in (place, run.store.work(call().key), run.store.work(call().key) / DONE):
        os.utime(path, (long_ago, long_ago))
    listed = garbage.find(run.store, 0, 30)
    assert [one.path for one in listed] == [place]
    assert finished(run_of(tmp_path, "second"), call().key, use=use) is not None
    garbage.remove(run.store, listed)
    assert place.exists() == kept


def test_a_run_that_is_ended_waits_for_no_other_one(tmp_path):
    run, told = run_of(tmp_path), []
    run.ending.set()
    with run.store.hold(call().key, lambda: None), pytest.raises(RunEndedError):
        make(run, call(), False, told.append)
    assert told == ["Another run is making the same result; waiting for it."]


def test_who_waits_is_at_work(tmp_path):
    run = run_of(tmp_path)
    run.pause(0)
    assert not run.ledger.exists(), "nothing is spent"
    run.ledger.mkdir(parents=True)
    os.utime(run.ledger, (0, 0))
    run.pause(0)
    assert garbage.at_work(run.ledger.parent)


def test_a_run_that_only_seemed_dead_ends_and_leaves_nothing(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    monkeypatch.setitem(globals(), "meanwhile", lambda: take(run.store.attempts / call().key))
    with pytest.raises(SupersededError, match="Attempt 1 .* attempt 2 has taken its work over"):
        made(run)
    assert not list(run.store.artifacts.glob("*/*"))
    assert finished(run, call().key) is None


def test_taken_over_at_the_last_moment_the_result_is_that_of_the_newer(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    publish = maker.publish

    def late(*arguments):
        artifact = publish(*arguments)
        take(run.store.attempts / call().key)
        return artifact

    monkeypatch.setattr(maker, "publish", late)
    with pytest.raises(SupersededError):
        made(run)
    assert finished(run, call().key) is None, "nobody has said that it is done"
    monkeypatch.undo()


@pytest.mark.parametrize("field", ["run.store", "FINETUNE_STORE"])
def test_a_store_that_cannot_be_written_to_is_named_with_its_field(monkeypatch, field):
    given = "/proc/store" if field == "run.store" else ""
    monkeypatch.setenv("FINETUNE_STORE", "/proc/store")
    run = RunContext(Store(given, "run.store"), RunOptions(), "first", "run-first", "local")
    with pytest.raises(ConfigError, match=f"^{field}: the folder /proc/store cannot be written to: .*Choose another"):
        check_store(run)


def test_more_cards_than_this_machine_has_are_refused_with_their_field(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "own", STAGES["own"].model_copy(update={"heavy": True}))
    monkeypatch.setenv("FINETUNE_GPUS", "2")
    monkeypatch.setenv("FINETUNE_LEASES", str(tmp_path / "leases"))
    run = RunContext(Store(str(tmp_path / "store")), RunOptions(), "the-id", "the-name", "demo")
    call = StageCall("own", Settings(), {}, {}, resources=StageResources(gpus=3))
    with pytest.raises(ConfigError, match=r"resources\.own\.gpus: 3 asked for, this machine has 2\."):
        make(run, call, refresh=False, waiting=nothing_told)
    assert not (tmp_path / "leases").exists(), "nobody waits"


def test_what_a_training_needs_is_looked_for_where_it_trains(tmp_path):
    config = FinetuneConfig(report_to="wandb")
    wanted = StageCall("slow", config, {}, {}, "finetune", StageResources(work_pool="gpu"))
    with pytest.raises(ConfigError, match=r"slow\.report_to: wandb is not installed here"):
        make(run_of(tmp_path), wanted, False, nothing_told)


@pytest.mark.parametrize(
    ("name", "kind", "field"),
    [
        ("finetune", "", "resources.finetune"),
        ("finetune-bold", "finetune", "resources.finetune"),
        ("learn", "finetune", "stages: learn: resources"),
    ],
)
def test_the_parameter_of_a_stage_s_resources_is_named(name, kind, field):
    assert StageCall(name, FinetuneConfig(), {}, {}, kind).needs == field
