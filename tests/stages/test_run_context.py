import datetime
from contextlib import nullcontext
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.states import AwaitingRetry, Cancelled, Crashed, Failed, Pending, Running

from flows.errors import ConfigError
from flows.stages import run_context
from flows.stages.run_context import MOST_CRASHES, RunOptions, give_up_after_crashes


def test_stages_that_run_anyway_are_named_or_come_after_one():
    assert RunOptions().anew == set()
    assert RunOptions(refresh=["evaluate"]).anew == {"evaluate"}
    assert RunOptions(from_stage="finetune").anew == {"finetune", "evaluate"}
    assert RunOptions(from_stage="finetune", refresh=["prepare"]).anew == {"prepare", "finetune", "evaluate"}


CRASH = [AwaitingRetry, Pending, Running, Crashed]
TOLD_TWICE = [*CRASH, Crashed]
FAILURE = [AwaitingRetry, Pending, Running, Failed]
NEVER_BEGUN = [AwaitingRetry, Pending, Crashed]


@pytest.mark.parametrize(
    ("history", "given_up"),
    [
        (CRASH * MOST_CRASHES, True),
        (CRASH * (MOST_CRASHES - 1), False),
        (FAILURE * MOST_CRASHES, False),
        ([*CRASH, Running, Cancelled] * MOST_CRASHES, False),
        (TOLD_TWICE * (MOST_CRASHES - 1), False),
        (NEVER_BEGUN * MOST_CRASHES, False),
        ([*FAILURE, *CRASH * MOST_CRASHES], True),
        ([*CRASH * MOST_CRASHES, *FAILURE], False),  # given up, mended, retried by hand
    ],
)
def test_a_run_is_given_up_for_crashes_and_not_for_failures_that_a_person_retries(monkeypatch, history, given_up):
    now = datetime.datetime.now(datetime.UTC)
    states = [make() for make in [*history, Pending, Running]]
    for second, state in enumerate(states):
        state.timestamp = now + datetime.timedelta(seconds=second)
    client = SimpleNamespace(read_flow_run_states=lambda run_id: states[::-1])
    monkeypatch.setattr(run_context, "get_client", lambda sync_client: nullcontext(client))
    monkeypatch.setattr(run_context.prefect.runtime, "flow_run", SimpleNamespace(id=uuid4(), run_count=99))
    with pytest.raises(ConfigError, match="has crashed 4 times") if given_up else nullcontext():
        give_up_after_crashes()
