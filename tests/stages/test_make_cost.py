"""What a stage has cost is in its result and in the run's ledger, whoever tried before."""

import logging

import pytest
from prefect.logging.loggers import disable_run_logger

from flows.cost import ledger
from flows.errors import FinetuneError
from flows.progress import silent
from flows.shell.command import ShellConfig
from flows.stages.call import StageCall
from flows.stages.make import make
from flows.stages.resources import StageResources
from flows.stages.run_context import RunContext, RunOptions
from flows.store.layout import Store


class QuietRun(RunContext):
    """A run without a Prefect around it."""

    logger = logging.getLogger("quiet")

    def progress(self, stage):
        return silent


def run_of(tmp_path, run_id):
    return QuietRun(Store(str(tmp_path / "store")), RunOptions(), run_id, run_id, "local")


def command(text, **more):
    return StageCall("look", ShellConfig(command=text, **more), {}, {}, "shell", StageResources())


def test_a_failed_attempt_of_a_former_run_is_in_the_result_s_cost_not_in_this_run_s(tmp_path):
    call = command(f"test -e {tmp_path}/there && echo done")
    first, second = run_of(tmp_path, "first"), run_of(tmp_path, "second")
    with disable_run_logger(), pytest.raises(FinetuneError):
        make(first, call, False, lambda why: None)
    (tmp_path / "there").touch()
    result = make(second, call, False, lambda why: None)
    assert ledger.by_stage(first.ledger)["look"].attempts == 1
    spent = ledger.by_stage(second.ledger)["look"]
    assert (spent.attempts, result["figures"]["cost"]["attempts"]) == (1, 2)
    whole = spent.seconds + ledger.spent(first.ledger).seconds
    assert result["figures"]["cost"]["seconds"] == pytest.approx(whole)
