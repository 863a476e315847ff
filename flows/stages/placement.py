"""A stage on another machine: its own flow run in the work pool that its resources name, followed to its end."""

from __future__ import annotations

import contextlib
import importlib.metadata
from itertools import count
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.errors import ConfigError, TransientError
from flows.stages.call import StageCall
from flows.stages.job_variables import job_variables
from flows.stages.make import finished
from flows.stages.run_child import ChildError
from flows.stages.run_context import RunContext
from flows.stages.stage_request import StageRequest, request_of
from flows.store.files import read_json

FLOW = "run-stage"
PROJECT = "prefect-finetune"
VERSION = f"{PROJECT} {importlib.metadata.version(PROJECT)}"  # of the deployments that `make deploy` makes for pools
POLL_S = 1.0


def make_elsewhere(run: RunContext, call: StageCall, refresh: bool) -> dict[str, Any]:
    """Have the stage's result made by a run of `run-stage/<pool>`, and wait for that run.

    A run of this stage that a former attempt of ours has started, and that still lives, is taken over.

    Returns:
        The result, as `make` gives it.

    Raises:
        ConfigError: there is no such pool, or no deployment for it.
        ChildError: it failed; the message is its own.
        TransientError: it was ended from outside.
        RunEndedError: our own run is.
    """
    child = _submit(run, call, refresh)
    run.logger.info("%s runs in the work pool %s as %s.", call.name, call.resources.work_pool, child.name)
    try:
        child = _wait(run, child)
    except BaseException:  # also when this run is being ended
        _cancel_if_we_are(run, child)
        raise
    state = child.state
    here = call.stage.artifact != "model"
    if state is not None and state.is_completed() and (result := finished(run, call.key, here)) is not None:
        return result
    raise _failure(run, call, child)


def pool_problems(wanted: dict[str, str]) -> list[str]:
    """Which of the pools (field -> name) cannot run a stage, a line each; the server is asked."""
    found = []
    with get_client(sync_client=True) as client:
        for field, pool in wanted.items():
            try:
                there = client.read_deployment_by_name(f"{FLOW}/{pool}").version or ""
            except ObjectNotFound:
                found.append(f"{field}: {_no_deployment(client, pool)}")
                continue
            if there.startswith(PROJECT) and there != VERSION:
                found.append(
                    f"{field}: {FLOW}/{pool} is of {there}, and this run of {VERSION}. Bring the workers of both to "
                    "one version, then make deploy."
                )
    return found


def _no_deployment(client: SyncPrefectClient, pool: str) -> str:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        known = ", ".join(sorted(one.name for one in client.read_work_pools())) or "none"
        return f"there is no work pool '{pool}' on this server; it has {known}."
    return f"the work pool '{pool}' has no deployment {FLOW}/{pool}; make deploy makes one for every pool."


def _submit(run: RunContext, call: StageCall, refresh: bool) -> FlowRun:
    request = request_of(run, call, refresh)
    with get_client(sync_client=True) as client:
        if found := pool_problems({f"{call.needs}.work_pool": call.resources.work_pool}):
            raise ConfigError(found)
        kind = client.read_work_pool(call.resources.work_pool).type
    for number in count(1):
        child = _run(call, request, job_variables(kind, call.resources), f"{run.run_id}:{call.name}:{number}")
        over = child.state is not None and child.state.is_final()
        if not over or (child.state is not None and child.state.is_completed() and finished(run, call.key, here=False)):
            return child
    raise AssertionError("counting does not end")


def _run(call: StageCall, request: StageRequest, variables: dict[str, Any], key: str) -> FlowRun:
    return run_deployment(  # type: ignore[return-value]
        f"{FLOW}/{call.resources.work_pool}",
        parameters={"request": request.model_dump(mode="json")},
        flow_run_name=f"{request.run.run_name}-{call.name}",
        timeout=0,
        idempotency_key=key,
        job_variables=variables,
    )


def _wait(run: RunContext, child: FlowRun) -> FlowRun:
    """The child once it is final; a server that does not answer for a while is waited for.

    Raises:
        RunEndedError: our own run is being ended.
    """
    with get_client(sync_client=True) as client:
        while child.state is None or not child.state.is_final():
            run.pause(POLL_S)
            with contextlib.suppress(httpx.TransportError):
                child = client.read_flow_run(child.id)
    return child


def _cancel_if_we_are(run: RunContext, child: FlowRun) -> None:
    """End the child if this run is being cancelled; after a crash it lives on, and the re-run takes it over."""
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        ours = client.read_flow_run(UUID(run.run_id)).state
        if ours is not None and ours.type in (StateType.CANCELLING, StateType.CANCELLED):
            client.set_flow_run_state(child.id, Cancelling(message="Its parent run was cancelled."))


def _failure(run: RunContext, call: StageCall, child: FlowRun) -> Exception:
    state = child.state
    words = (state.message if state else "") or "it left no result"
    if state is not None and state.is_failed():
        run.store.fetch_files([run.store.failure(str(child.id))])
        told = read_json(run.store.failure(str(child.id)))
        return ChildError(words, retryable=bool(told["retryable"]) if isinstance(told, dict) else True)
    name = (state.name or "").lower() if state else "unknown"
    if name == "cancelled":
        return ChildError(f"Its run {child.name} was cancelled.", retryable=False)
    return TransientError(f"Its run {child.name} in the work pool {call.resources.work_pool} ended as {name}: {words}")
