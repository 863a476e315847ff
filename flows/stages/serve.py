"""Serving the model of a run, as a task; the endpoint outlives the run and is recorded in store and Prefect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import State

from flows.reporting.contract import StageStatus
from flows.serving.ask import curl_line
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.promotion import Maker, start_endpoint
from flows.serving.records import load
from flows.stages.endpoints import refresh_page, remember
from flows.stages.run_context import RunContext
from flows.stages.stage_task import StageError, failing_in_words

NAME = "serve"


def serve_model(run: RunContext, config: ServeConfig, model: Path) -> tuple[Endpoint, StageStatus, float]:
    """The healthy endpoint, `ran` or `cached` (it was serving this model already), and the seconds it took.

    Raises:
        StageError: it did not become healthy; what served before goes on serving.
    """
    started = time.monotonic()
    before = load(run.store.endpoints, config.name)
    prefect_task: Any = _serve
    state: State[Any] = prefect_task(run, config, model, return_state=True)
    if not state.is_completed():
        raise StageError(NAME, state.message or "The model could not be served.")
    endpoint: Any = state.result()
    reused = before is not None and before.process == endpoint.process
    return endpoint, "cached" if reused else "ran", time.monotonic() - started


@task(name=NAME, task_run_name=NAME, persist_result=False)
def _serve(run: RunContext, config: ServeConfig, model: Path) -> Any:
    return failing_in_words(run, NAME, lambda: _serve_once(run, config, model))


def _serve_once(run: RunContext, config: ServeConfig, model: Path) -> Endpoint:
    endpoint = start_endpoint(
        config,
        model,
        run.store.endpoints,
        run.progress(NAME),
        Maker(run.run_id, run.run_url, str(model)),
    )
    remember(endpoint)
    refresh_page(run.store)
    run.logger.info("%s is %s at %s", endpoint.name, endpoint.state.value, endpoint.url)
    run.logger.info("Ask it: %s", curl_line(endpoint, "What is a bill of lading?"))
    return endpoint
