"""Serving a model in a run: promoted after its checks; the endpoint outlives the run, recorded in store and Prefect."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from flows.reporting.contract import CheckReport, StageStatus
from flows.serving.ask import curl_line
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.records import load
from flows.stages.endpoints import refresh_page, remember
from flows.stages.external import load_keys, with_block
from flows.stages.promote import promote
from flows.stages.run_context import RunContext


@dataclass
class Served:
    """How serving went: `ran`, or `cached` if the endpoint was serving this model already; the checks made so far."""

    endpoint: Endpoint | None = None
    status: StageStatus = "failed"
    seconds: float = 0.0
    checks: list[CheckReport] = field(default_factory=list)


def serve_model(run: RunContext, config: ServeConfig, model: Path, evaluation: Path | None, served: Served) -> Endpoint:
    """The endpoint that serves the model now; `served` is filled as it goes.

    `evaluation` is the folder of this model's own evaluation, if there was one.

    Raises:
        StageError: it did not become healthy or a check refused it; what served before goes on serving.
    """
    started = time.monotonic()
    if model.is_relative_to(run.store.artifacts):  # it may have been trained on another machine
        run.store.fetch(str(model))
    before = load(run.store.endpoints, config.name)
    load_keys(run.store.endpoints)  # what serves now is asked too, and its key may lie in a block
    try:
        endpoint = promote(run, with_block(config), model, evaluation, served.checks)
    finally:
        served.seconds = time.monotonic() - started
    remember(endpoint)
    served.endpoint = endpoint
    served.status = "cached" if before is not None and before.process == endpoint.process else "ran"
    refresh_page(run.store)
    run.logger.info("%s is %s at %s", endpoint.name, endpoint.state.value, endpoint.public_url)
    run.logger.info("Ask it: %s", curl_line(endpoint, "What is a bill of lading?"))
    return endpoint
