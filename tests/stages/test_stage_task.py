"""A stage as a Prefect task: what is tried again, and when."""

import logging

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.states import Crashed, Failed

from flows.errors import ConfigError, TransientError
from flows.stages.call import StageCall
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.stage_task import RETRIES, failing_in_words, make_task
from flows.store.layout import Store
from flows.training.config import FinetuneConfig


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(RunContext, "logger", logging.getLogger("stages"))
    return RunContext(Store(str(tmp_path)), RunOptions(), "id", "name", "line")


@pytest.fixture
def stage(run):
    return make_task(run, StageCall("finetune", FinetuneConfig(), {}, {}), refresh=False)


def test_each_retry_waits_twice_as_long_and_never_exactly(stage):
    assert (stage.retries, stage.retry_delay_seconds) == (RETRIES, [5, 10, 20])
    assert stage.retry_jitter_factor == 0.5


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConfigError("finetune.epochs: no"), False),
        (TransientError("The child was killed."), True),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_only_what_a_retry_can_mend_is_tried_again(run, stage, error, again):
    def fails():
        raise error

    state = failing_in_words(run, "finetune", fails)
    assert stage.retry_condition_fn(stage, TaskRun(task_key="k", dynamic_key="0"), state) is again


def test_what_is_no_error_of_ours_is_tried_again(stage):
    for state in (Failed(message="?"), Crashed(message="?")):
        assert stage.retry_condition_fn(stage, TaskRun(task_key="k", dynamic_key="0"), state)
