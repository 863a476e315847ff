"""What a stage has cost is in its result and in the run's ledger, whoever tried before."""

import logging
import time
from pathlib import Path

import pytest
import torch
from prefect.logging.loggers import disable_run_logger
from safetensors.torch import load_file

from flows.cost import ledger
from flows.cost.budget import Budget
from flows.errors import BudgetError, FinetuneError
from flows.progress import silent
from flows.shell.command import ShellConfig
from flows.stages.call import StageCall
from flows.stages.make import make
from flows.stages.resources import StageResources
from flows.stages.run_child import ChildError
from flows.stages.run_context import RunContext, RunOptions
from flows.store.layout import Store
from flows.training.config import FinetuneConfig
from tests.training.conftest import dataset as dataset


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


HOUR_S = 3600


def test_a_budget_that_is_used_up_ends_a_command_and_begins_no_other_until_it_is_greater(tmp_path):
    run = run_of(tmp_path, "first")
    run.budget = Budget(max_hours=1.5 / HOUR_S)
    begin = time.monotonic()
    with pytest.raises(BudgetError, match=r"of work used, 1.5 s allowed \(budget.max_hours\)") as caught:
        make(run, command("sleep 120"), False, lambda why: None)
    assert time.monotonic() - begin < 30
    assert not caught.value.retryable
    again = run_of(tmp_path, "first")  # started again: it goes on with its count
    again.budget = run.budget
    with pytest.raises(BudgetError, match="look was not begun"):
        make(again, command("echo hello"), False, lambda why: None)
    again.budget = Budget(max_hours=1)
    assert make(again, command("echo hello"), False, lambda why: None)["figures"]["lines"] == 1


def test_a_training_that_a_budget_has_stopped_goes_on_and_ends_with_the_same_bits(tmp_path, dataset, tiny_models):
    config = FinetuneConfig(epochs=4, max_length=128, batch_size=2, accumulation=1, lora={"r": 4}, threads=1)
    inputs = {"dataset": dataset, "model": Path(tiny_models["llama-3"])}
    call = StageCall("finetune", config, inputs, {"dataset": "d", "base_model": "m"})

    def weights(result, run):
        return load_file(run.store.place(result["artifact"]["path"]) / "model.safetensors")

    free = run_of(tmp_path / "free", "free")
    whole = make(free, call, False, lambda why: None)
    short = run_of(tmp_path, "short")
    short.budget = Budget(max_hours=0.2 / HOUR_S)
    with pytest.raises(ChildError, match=r"budget.max_hours.*Training has stopped at step \d+ of ") as caught:
        make(short, call, False, lambda why: None)
    assert not caught.value.retryable
    long = run_of(tmp_path, "long")
    long.budget = Budget(max_hours=1)
    resumed = make(long, call, False, lambda why: None)
    assert 0 < resumed["figures"]["resumed_from_step"] < whole["figures"]["steps"]
    assert resumed["figures"]["cost"]["attempts"] == 2
    ours, theirs = weights(resumed, long), weights(whole, free)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Together both attempts have trained every token once.
    assert resumed["figures"]["cost"]["tokens"] == pytest.approx(whole["figures"]["cost"]["tokens"], abs=2)
