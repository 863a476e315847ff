"""One look at all endpoints: what they are now, what changed, and starting again what failed.

All that a pass knows of former ones lies in the endpoints' records and histories, so a watcher that was killed, or a
machine that was started again, costs nothing but the passes missed.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from flows.errors import FinetuneError, ServingError
from flows.serving import history as histories
from flows.serving import probe, records, revisions
from flows.serving.causes import Cause, classify, last_lines
from flows.serving.endpoint import Endpoint, ProcessRecord
from flows.serving.history import Change, History
from flows.serving.runtimes import process
from flows.serving.start import restart
from flows.serving.state import State
from flows.serving.stop import end, end_leftovers, stop_endpoint
from flows.serving.thresholds import decide, pending

THREADS = 200
FIRST_BACKOFF = timedelta(seconds=10)
LONGEST_BACKOFF = timedelta(seconds=300)
MOST_RESTARTS = 5
STEADY = timedelta(minutes=10)
UNKNOWN_BUDGET = timedelta(minutes=30)  # of a start whose watcher was killed before it could write its budget down

logger = logging.getLogger(__name__)


def watch(endpoints_dir: Path, now: datetime) -> list[Change]:
    """Ask every endpoint, all at once, and do what there is to do; call it about once a minute.

    A server that ended is started again after 10 s, 20 s, ... up to 300 s, five times, unless it was good for ten
    minutes in between; what a person stopped stays stopped. What killed starts left behind is ended.

    Args:
        endpoints_dir: holds the records.
        now: the time, with its zone.

    Returns:
        What changed since the last pass, by name.
    """
    _sweep(endpoints_dir)
    names = [name for name in records.names(endpoints_dir) if "." not in name]
    if not names:
        return []
    with ThreadPoolExecutor(max_workers=min(THREADS, len(names))) as pool:
        return [change for found in pool.map(partial(_watch_one, endpoints_dir, now), names) for change in found]


def backoff(restarts: int) -> timedelta:
    """How long after its end a server is started for the `restarts`-th time, from 1."""
    return min(FIRST_BACKOFF * 2 ** (restarts - 1), LONGEST_BACKOFF)


def _sweep(folder: Path) -> None:
    """End and forget what a killed start left beside the endpoints; one that is under way is left alone."""
    for name in sorted({name.partition(".")[0] for name in records.names(folder) if "." in name}):
        try:
            with records.starting(folder, name, wait_s=0) as free:
                if free and (swept := end_leftovers(name, folder, serving=records.load(folder, name))):
                    logger.warning("%s was left by a start that was killed. %s", swept.name, swept.why)
        except ServingError as error:
            logger.error("%s: %s", name, error)


def _watch_one(folder: Path, now: datetime, name: str) -> list[Change]:
    history = histories.load(folder, name)
    try:
        found = records.load(folder, name)
        if found is None:
            return []
        changes = _look(folder, found, history, now)
    except ServingError as error:
        changes = _move(history, name, State.FAILED, str(error), now)
    try:
        histories.save(folder, name, history)
    except OSError as error:
        logger.error("%s: its history could not be written (%s).", name, error)
    return changes


def _look(folder: Path, endpoint: Endpoint, history: History, now: datetime) -> list[Change]:
    changes = _notice(folder, endpoint, history, now)
    if endpoint.state is State.DRAINING:
        endpoint = _finish_stop(folder, endpoint)
    if endpoint.state in (State.STOPPED, State.DRAINING):
        history.restart_at = None
        return changes + _move(history, endpoint.name, endpoint.state, endpoint.why, now)
    began = time.monotonic()
    error: probe.ProbeError | None = None
    answered = endpoint
    try:
        answered = probe.verify(endpoint)
    except probe.ProbeError as problem:
        error = problem
    latency_s = time.monotonic() - began
    if records.load(folder, endpoint.name) != endpoint:  # replaced or stopped meanwhile: for the next pass
        return changes
    history.sample(now, None if error else latency_s)
    state, why = decide(history, answered.state, error, endpoint.failure_threshold, now)
    if state is State.FAILED:
        return changes + _failed(folder, endpoint, history, why, now)
    if endpoint.state is State.STARTING and state in (State.HEALTHY, State.UNVERIFIED):
        _record_started(folder, endpoint, answered)
    changes += _move(history, endpoint.name, state, why or answered.why, now)
    steady = state in (State.HEALTHY, State.UNVERIFIED) and history.since and now - history.since >= STEADY
    if steady:
        history.restarts = history.holds = 0
    return changes


def _notice(folder: Path, endpoint: Endpoint, history: History, now: datetime) -> list[Change]:
    """A server that was started since the last pass, by whomever, and a name that moved to another revision."""
    before = history.state
    if history.launch != _launch(endpoint):
        history.launch, history.misses, history.passes = _launch(endpoint), 0, 0
        history.restarts, history.restart_at, history.holds, history.held_until = 0, None, 0, None
        history.state = State.STARTING if endpoint.state is State.STARTING else None
        history.start_until = now + UNKNOWN_BUDGET
    if history.revision == endpoint.revision:
        return []
    history.revision = endpoint.revision
    try:
        again = revisions.load(folder, endpoint.name, endpoint.revision).again
    except ServingError:
        again = 0
    what, why = ("rolled-back", f"Revision {again} serves again.") if again else ("promoted", "")
    change = Change(
        name=endpoint.name,
        at=now,
        what=what,
        before=before,
        after=endpoint.state,
        why=why,
        revision=endpoint.revision,
    )
    return [history.change(change)]


def _launch(endpoint: Endpoint) -> str:
    """What tells one start of a server from the next."""
    return f"{endpoint.started} {endpoint.log}"


def _move(history: History, name: str, state: State, why: str, now: datetime, again: bool = False) -> list[Change]:
    """Set state and reason; a change if the state is another one, or if it is to be told once more (`again`)."""
    before, history.why = history.state, why
    if state is before and not again:
        return []
    if state is not before:
        history.state, history.since = state, now
    what = state.value.lower()
    change = Change(name=name, at=now, what=what, before=before, after=state, why=why, revision=history.revision)
    return [history.change(change)]


def _failed(folder: Path, endpoint: Endpoint, history: History, why: str, now: datetime) -> list[Change]:
    """Say that it failed and why; start it again when that is due; give up loudly."""
    changes: list[Change] = []
    scheduled = history.restart_at is not None or history.restarts >= MOST_RESTARTS
    if history.state is not State.FAILED or not scheduled:
        _end_rest(endpoint)
        if isinstance(endpoint.process, ProcessRecord) and process.rebooted(endpoint.process):
            why += " The machine was started again since."
        if (cause := classify(last_lines(Path(endpoint.log)))) is not Cause.OTHER:
            why += f" Cause: {cause.words}. {cause.remedy}"
        changes = _schedule(history, endpoint.name, why, now)
    if history.restart_at is None or pending(history.restart_at, now, LONGEST_BACKOFF):
        return changes
    history.restarts += 1
    try:
        started = restart(endpoint, folder)
    except FinetuneError as error:
        return changes + _schedule(history, endpoint.name, f"It could not be started again: {error}", now)
    if started is None:  # somebody else is at it
        history.restarts -= 1
        return changes
    new, budget_s = started
    history.launch, history.misses, history.passes = _launch(new), 0, 0
    history.start_until, history.restart_at = now + timedelta(seconds=budget_s), None
    words = f"Started again, {history.restarts} of {MOST_RESTARTS} times."
    return changes + _move(history, endpoint.name, State.STARTING, words, now)


def _schedule(history: History, name: str, why: str, now: datetime) -> list[Change]:
    """FAILED, with the time of the next restart or the last word."""
    if history.restarts >= MOST_RESTARTS:
        history.restart_at = None
        why = f"Gave up after {MOST_RESTARTS} restarts; serve it again or roll it back when its cause is mended. {why}"
        return _move(history, name, State.FAILED, why, now, again=True)
    delay = backoff(history.restarts + 1)
    history.restart_at = now + delay
    why = f"{why} It is started again in {delay.total_seconds():.0f} s."
    return _move(history, name, State.FAILED, why, now)


def _end_rest(endpoint: Endpoint) -> None:
    """End workers that outlived their server, or a server that took too long: they hold memory and the port."""
    try:
        end(endpoint)
    except ServingError as error:
        logger.error("%s: %s", endpoint.name, error)


def _finish_stop(folder: Path, endpoint: Endpoint) -> Endpoint:
    """Stop what a killed process was stopping; as it is, if that process lives."""
    with records.starting(folder, endpoint.name, wait_s=0) as free:
        pass
    try:
        return (stop_endpoint(endpoint.name, folder) if free else None) or endpoint
    except ServingError as error:
        logger.error("%s: %s", endpoint.name, error)
        return endpoint


def _record_started(folder: Path, endpoint: Endpoint, answered: Endpoint) -> None:
    """Write down that a restarted server has answered, and the name of its model, unless the record has changed."""
    with records.starting(folder, endpoint.name, wait_s=0) as free:
        if free and records.load(folder, endpoint.name) == endpoint:
            records.save(folder, answered)
