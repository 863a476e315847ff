"""Serve a model by hand: any folder, the model of a run, or one of the store."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.errors import ConfigError, FinetuneError
from flows.serving.config import ServeConfig
from flows.stages.endpoints import failed
from flows.stages.evidence import evaluation_of_run
from flows.stages.model_source import ModelSource, model_of
from flows.stages.run_context import RunOptions, current_run
from flows.stages.serve import Served, serve_model


@flow(name="serve-variant")
def serve_variant(model: ModelSource, serve: ServeConfig = ServeConfig(), store: str = "") -> Any:
    """Start an endpoint, or move one to another model; what served before is replaced only by what passed the checks.

    Args:
        model: Which model to serve; left empty for the runtime external.
        serve: How it is served, and under which name.
        store: Folder for models and endpoints. Empty means FINETUNE_STORE of the environment.
    """
    served = Served()
    try:
        context = current_run(RunOptions(store=store))
        if not serve.enabled:
            raise ConfigError("serve.enabled is off, so there is nothing to do. Switch it on.")
        evaluation = evaluation_of_run(context.store, model.run) if model.run else None
        endpoint = serve_model(context, serve, model_of(context.store, model, serve), evaluation, served)
    except FinetuneError as error:
        return failed(error)
    seconds = next((check.seconds for check in served.checks if check.name == "healthy"), served.seconds)
    how = "served already" if served.status == "cached" else f"came up in {seconds:.0f} s"
    words = f"{endpoint.name} is {endpoint.state.value} at {endpoint.public_url} (revision {endpoint.revision}, {how})."
    return Completed(message=words)
