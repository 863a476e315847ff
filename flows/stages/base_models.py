"""A base model on the machine whose stage reads it: every machine comes by it in its own way."""

from __future__ import annotations

from functools import partial

from flows.base_models.resolve import BaseModelConfig, ResolvedModel, ready
from flows.errors import ConfigError
from flows.stages.call import StageCall
from flows.stages.run_child import run_child
from flows.stages.run_context import RunContext
from flows.store.locks import locked

NAME = "base-model"


def fetch(run: RunContext, config: BaseModelConfig) -> ResolvedModel:
    """Make it loadable in a process of its own, one run at a time.

    Raises:
        ChildError: there is no such model, or it cannot be had.
    """
    waiting = partial(run.logger.info, "Another run is fetching a model; waiting for it.")
    work, place = "flows.base_models.resolve:run", run.store.models
    with locked(run.store.locks / NAME, waiting, pause=run.pause):
        figures = run_child(work, config, {}, place, run.progress(NAME), run.logger.info, ending=run.ending)
    return ResolvedModel.model_validate({name: figures[name] for name in ResolvedModel.model_fields})


def bring(run: RunContext, call: StageCall, name: str) -> ResolvedModel:
    """The base model that is the input `name` of a stage that another machine asks for.

    Raises:
        ModelError: there is no such model here.
        ChildError: it cannot be had.
        ConfigError: it is here and holds something else.
    """
    source = call.base_models[name]
    found = ready(source, run.store.models) or fetch(run, source)
    wanted = call.digests["base_model"]
    if found.identity != wanted:
        raise ConfigError(
            f"model.name: {source.name} is another model on this worker ({found.identity}) than on the machine that "
            f"asks ({wanted}). Bring both to the same one, or take one of the Hub, whose commit is named."
        )
    return found
