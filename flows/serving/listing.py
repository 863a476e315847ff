"""All endpoints with the truth about them, asked for now; a damaged record hides none but itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.errors import ServingError
from flows.serving import probe, records
from flows.serving.checks import broken_off
from flows.serving.endpoint import Endpoint, ExternalRecord
from flows.serving.front import folder as fronts
from flows.serving.state import State

THREADS = 8

logger = logging.getLogger(__name__)


def endpoint_names(folder: Path) -> list[str]:
    """Names of the endpoints, sorted: replicas, and what is started or replaced beside one, have a dot in theirs."""
    return [name for name in records.names(folder) if "." not in name]


def list_endpoints(folder: Path) -> list[Endpoint]:
    """All endpoints with their true state: each running one is asked now, with a real question (up to 25 s)."""
    return _asked(folder, endpoint_names(folder))


def list_records(folder: Path) -> list[Endpoint]:
    """The same of all that is recorded: replicas too, and what is being started or replaced."""
    return _asked(folder, records.names(folder))


def recorded(folder: Path, name: str) -> Endpoint | None:
    """The record of that name as it was written, or None; of a damaged one the name, FAILED, and what is wrong."""
    try:
        return records.load(folder, name)
    except ServingError as error:
        # It names no process, so that nobody can end one by it.
        nothing = {"url": "", "model": "", "variant": "", "process": ExternalRecord(url=""), "port": 0}
        nothing["runtime"] = "external"
        more = {"state": State.FAILED, "why": str(error), "ready_path": "", "settings": "", "started": ""}
        return Endpoint.model_validate({"name": name, **nothing, **more})


def current(folder: Path, endpoint: Endpoint) -> Endpoint:
    """The endpoint with its true state, asked for now."""
    if endpoint.state in (State.STOPPED, State.DRAINING) or not endpoint.url:
        return endpoint
    if endpoint.state is not State.STARTING:
        return _behind_front(probe.check(endpoint))
    try:
        probe.process_alive(endpoint)
    except probe.ProbeError as error:
        return endpoint.model_copy(update={"state": State.FAILED, "why": str(error)})
    if not endpoint.name.endswith(records.NEXT):  # restarted by the watcher, which does not stay to see it answer
        checked = probe.check(endpoint)
        good = checked.state in (State.HEALTHY, State.UNVERIFIED)
        return checked if good else endpoint.model_copy(update={"why": checked.why})
    if records.being_promoted(folder, endpoint.name):
        return endpoint
    why = "Who started it is gone and never saw it answer; stop it or start it again."
    return endpoint.model_copy(update={"state": State.UNVERIFIED, "why": why})


def _asked(folder: Path, names: Sequence[str]) -> list[Endpoint]:
    found = [endpoint for name in names if (endpoint := recorded(folder, name))]
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return list(pool.map(lambda endpoint: _current(folder, endpoint), found))


def _current(folder: Path, endpoint: Endpoint) -> Endpoint:
    try:
        return current(folder, endpoint)
    except Exception as error:  # whatever one of them does, the others are shown
        logger.exception("%s: the look at it broke off.", endpoint.name)
        return endpoint.model_copy(update={"state": State.UNHEALTHY, "why": str(broken_off(error))})


def _behind_front(endpoint: Endpoint) -> Endpoint:
    """The endpoint; UNHEALTHY, however good its server is, if the front that clients ask is dead."""
    good = endpoint.state in (State.HEALTHY, State.UNVERIFIED, State.DEGRADED)
    if not good or endpoint.front is None or fronts.alive(endpoint.front):
        return endpoint
    why = "Its front does not run, so clients get no answer. The watcher starts it again."
    return endpoint.model_copy(update={"state": State.UNHEALTHY, "why": why})
