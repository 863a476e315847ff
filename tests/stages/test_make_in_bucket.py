"""Making a stage's result on two machines that share only a bucket; the stage is that of `test_make`."""

import os
import time
from pathlib import Path

import pytest

from flows.errors import TransientError
from flows.stages.call import StageCall
from flows.stages.former import nearest
from flows.stages.make import artifact_of, finished, make
from flows.stages.run_context import RunContext, RunOptions
from tests.stages.test_make import Settings, call, nothing_told
from tests.stages.test_make import stage as stage
from tests.store.bucket.conftest import address as address
from tests.store.bucket.conftest import machine as machine
from tests.store.bucket.conftest import s3 as s3


@pytest.fixture
def runs(machine):
    """A run on each of two machines."""
    return [RunContext(machine(name), RunOptions(), name, f"run-{name}", "local") for name in ("first", "second")]


def test_what_one_has_made_the_other_takes_and_explains(runs):
    first, second = runs
    make(first, call(), False, nothing_told)
    assert nearest(second.store, call("others")).changes == ["text weights -> others"]
    result = make(second, call(), False, nothing_told)
    assert result["maker"]["run_id"] == "first"
    assert Path(artifact_of(second, result).path, "model").read_text() == "weights"
    assert artifact_of(second, result).path.startswith(str(second.store.root))


def test_an_input_that_another_machine_has_made_is_brought_here(runs):
    first, second = runs
    made = finished_path(first)
    there = StageCall("own", Settings(text="next"), {"model": second.store.place(made)}, {"model": "digest"})
    make(second, there, False, nothing_told)
    assert (second.store.place(made) / "model").read_text() == "weights"


def test_an_input_that_is_here_already_is_used_from_then_on(runs):
    _, second = runs
    folder = second.store.place(finished_path(second))
    os.utime(folder, (0, 0))
    there = StageCall("own", Settings(text="next"), {"model": folder}, {"model": "digest"})
    make(second, there, False, nothing_told)
    assert time.time() - folder.stat().st_mtime < 60


def finished_path(run):
    return make(run, call(), False, nothing_told)["artifact"]["path"]


def test_an_input_that_was_corrupted_in_the_bucket_is_said_and_made_again_by_the_next_run(runs):
    first, second = runs
    made = finished_path(first)
    first.store.bucket.write(f"{made}/model", b"wrights")
    there = StageCall("own", Settings(text="next"), {"model": second.store.place(made)}, {"model": "digest"})
    with pytest.raises(TransientError, match="own: its input model is neither here nor whole in the store s3://"):
        make(second, there, False, nothing_told)
    assert "model is not what was written" in second.store.told[0]
    assert finished(second, call().key) is None
    assert make(second, call(), False, nothing_told)["maker"]["run_id"] == "second"
    make(second, there, False, nothing_told)


def test_a_damaged_copy_is_taken_from_the_bucket_and_that_is_said(runs, caplog):
    first, _ = runs
    made = finished_path(first)
    file = first.store.place(made) / "model"
    file.write_text("wrights")
    assert finished(first, call().key)["maker"]["run_id"] == "first"
    assert file.read_text() == "weights"
    assert "was damaged: model is not what was written. It was taken from the bucket." in caplog.text


def test_what_need_not_be_here_is_not_brought(runs):
    first, second = runs
    made = finished_path(first)
    assert finished(second, call().key, here=False)["maker"]["run_id"] == "first"
    assert not second.store.place(made).exists()
