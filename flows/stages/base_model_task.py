"""Making the base model loadable, as a task: converting or downloading it takes a while the first time."""

from __future__ import annotations

import time
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from flows.base_models.resolve import BaseModelConfig, ResolvedModel, ready
from flows.reporting.contract import StageStatus
from flows.stages.base_models import NAME, fetch
from flows.stages.run_context import RunContext
from flows.stages.stage_task import StageError, can_retry_help, failing_in_words


def base_model(run: RunContext, config: BaseModelConfig) -> tuple[ResolvedModel, StageStatus, float]:
    """The loadable model, `ran` or `cached`, and the seconds it took.

    Raises:
        StageError: there is no such model, or it cannot be had.
    """
    started = time.monotonic()
    found = ready(config, run.store.models)
    if found is not None:
        return found, "cached", time.monotonic() - started
    prefect_task: Any = _fetch
    state: State[Any] = prefect_task(run, config, return_state=True)
    if not state.is_completed():
        raise StageError(NAME, state.message or "The base model cannot be had.")
    result: Any = state.result()
    return ResolvedModel.model_validate(result), "ran", time.monotonic() - started


@task(
    name=NAME,
    task_run_name=NAME,
    cache_policy=NO_CACHE,  # `ready` knows what is there
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=can_retry_help,
)
def _fetch(run: RunContext, config: BaseModelConfig) -> Any:
    return failing_in_words(run, NAME, lambda: fetch(run, config).model_dump())
