"""One stage as a flow run of its own, in the work pool that its resources name. Runs of a pipeline start it."""

from __future__ import annotations

import contextlib
from typing import Any

import prefect.runtime
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed, Running, State

from flows.errors import FinetuneError, OutOfDiskError, is_disk_full
from flows.stages.make import artifact_of, make
from flows.stages.opening import open_store
from flows.stages.stage_request import StageRequest, call_of
from flows.store.files import write_json


@flow(name="run-stage")
def run_stage(request: StageRequest) -> Any:
    """Make what a stage of another run needs, on this machine.

    Args:
        request: The stage, its settings and inputs, and the run that asks.
    """
    try:
        run, call = call_of(request)
        result = make(run, call, request.refresh, waiting=_waiting(run.logger))
    except FinetuneError as error:
        return _failed(request, error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        return _failed(request, OutOfDiskError(f"The disk is full: {error}. Free some space and run again."))
    return Completed(message=f"{request.name} of {request.run.run_name} is {artifact_of(run, result).path}")


def _failed(request: StageRequest, error: FinetuneError) -> Any:
    """The state, with the error's words; a state cannot say whether a retry may help, so a file beside it does."""
    with contextlib.suppress(FinetuneError, OSError):  # the store itself may be what is wrong
        store = open_store(request.store, "run.store")
        file = store.failure(str(prefect.runtime.flow_run.id))
        write_json(file, {"retryable": error.retryable})
        store.share_files([file])
    return Failed(message=str(error))


def _waiting(logger: Any) -> Any:
    """Says in the log, and as the run's own state, what it waits for."""
    waits = False

    def tell(why: str) -> None:
        nonlocal waits
        if why:
            logger.info(why)
        if bool(why) != waits or why:
            state: State[Any] = Running(name="Waiting", message=why) if why else Running()
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(prefect.runtime.flow_run.id, state, force=True)
        waits = bool(why)

    return tell
