"""What a stage's own flow run is told, as its parameter: which stage, on what, for whom. No secret is among it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.exceptions import TerminationSignal
from pydantic import Field

from flows.base_models.resolve import BaseModelConfig
from flows.config import Config
from flows.cost.budget import Budget
from flows.cost.prices import Prices
from flows.ending import hear_again
from flows.errors import ConfigError
from flows.stages.call import StageCall
from flows.stages.keys import differences
from flows.stages.opening import open_store
from flows.stages.registry import STAGES
from flows.stages.resources import StageResources
from flows.stages.run_context import RunContext, RunOptions
from flows.store.layout import Store


class Asker(Config):
    """The run that asks."""

    run_id: str = Field(title="Id")
    run_name: str = Field(title="Name")
    line: str = Field(title="Deployment")


class StageRequest(Config):
    """One stage of a run, for the machine that runs it."""

    name: str = Field(title="Stage")
    kind: str = Field(title="Kind", description="Its name in the registry of stages.")
    config: dict[str, Any] = Field(title="Settings")
    inputs: dict[str, str] = Field(title="Inputs", description="Folders; those of the store relative to it.")
    base_models: dict[str, BaseModelConfig] = Field(
        default={}, title="Inputs that are base models", description="Each machine has them in a place of its own."
    )
    digests: dict[str, str] = Field(title="Digests of what it depends on")
    code: dict[str, str] = Field(default={}, title="Digests of the code")
    libraries: dict[str, str] = Field(default={}, title="Versions of the libraries")
    key: str = Field(title="Cache key", description="As the asking run has computed it; another one here is refused.")
    refresh: bool = Field(default=False, title="Run anyway")
    resources: StageResources = Field(title="Resources")
    labels: dict[str, str] = Field(default={}, title="What people call the inputs")
    store: str = Field(title="Artifact store")
    run: Asker = Field(title="Run whose stage this is")
    prices: Prices = Field(default=Prices(), title="Prices")
    budget: Budget = Field(default=Budget(), title="Budget of that run")


def request_of(run: RunContext, call: StageCall, refresh: bool) -> StageRequest:
    """The call, for another machine."""
    return StageRequest(
        name=call.name,
        kind=call.kind or call.name,
        config=call.config.model_dump(mode="json"),
        inputs={
            name: _relative(folder, run.store) for name, folder in call.inputs.items() if name not in call.base_models
        },
        base_models=call.base_models,
        digests=call.digests,
        code=call.depends_on["code"],
        libraries=call.depends_on["libraries"],
        key=call.key,
        refresh=refresh,
        resources=call.resources,
        labels=call.labels,
        store=run.options.store,
        run=Asker(run_id=run.run_id, run_name=run.run_name, line=run.line),
        prices=run.prices,
        budget=run.budget,
    )


def call_of(request: StageRequest) -> tuple[RunContext, StageCall]:
    """The run it is for, and the call, on this machine.

    Raises:
        ConfigError: the code here is not that of the asking run.
    """
    hear_again(TerminationSignal)
    asker = request.run
    options = RunOptions(store=request.store)
    run = RunContext(open_store(request.store, "run.store"), options, asker.run_id, asker.run_name, asker.line)
    run.prices, run.budget = request.prices, request.budget
    stage = STAGES.get(request.kind)
    if stage is None:
        raise ConfigError(f"There is no stage '{request.kind}' here: {OTHER_VERSION}")
    call = StageCall(
        name=request.name,
        config=stage.config_type.model_validate(request.config),
        inputs={name: run.store.root / folder for name, folder in request.inputs.items()},
        digests=request.digests,
        kind=request.kind,
        resources=request.resources,
        labels=request.labels,
        base_models=request.base_models,
    )
    if call.key != request.key:
        asked = call.depends_on | {"code": request.code, "libraries": request.libraries}
        changes = ", ".join(differences(asked, call.depends_on)) or f"{request.key} -> {call.key}"
        raise ConfigError(f"The stage {request.name} is another one here ({changes}): {OTHER_VERSION}")
    return run, call


OTHER_VERSION = (
    "this worker runs another version of the project, or of its libraries, than the run that asks. Bring both to the "
    "same one."
)


def _relative(folder: Path, store: Store) -> str:
    """Below the store relative to it: another machine may have it elsewhere."""
    return str(folder.relative_to(store.root) if folder.is_relative_to(store.root) else folder)
