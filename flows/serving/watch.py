"""One look at all endpoints: what they are now, what changed, and starting again what failed.

All that a pass knows of former ones lies in the endpoints' records and histories, so a watcher that was killed, or a
machine that was started again, costs nothing but the passes missed.

Endpoints are looked at all at once, a thread each, and none waits for another: what there is to do about one (end it,
start it again) is done in its own thread. Only ending takes a while: a process ten seconds at most, after ten in which
running requests may finish, pods as long as their settings let them. What could take minutes is
left to processes of its own and looked at again by the next pass: a server that loads its model, an image that must
be pulled first.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from flows.errors import ServingError
from flows.serving import history as histories
from flows.serving import records, replicas, restarts, revisions
from flows.serving.checks import broken_off, check
from flows.serving.endpoint import Endpoint
from flows.serving.front import following
from flows.serving.history import Change, History, Sample
from flows.serving.state import State
from flows.serving.stop import end_leftovers, end_replicas, stop_endpoint
from flows.serving.sweep import end_orphans
from flows.serving.thresholds import decide

THREADS = 200
LONGEST_PASS = timedelta(minutes=5)
LONGEST_LOOK_S = 300.0
LONGEST_DRAIN_S = 10.0  # of what a pass ends: it must not make the next one late
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
    if not endpoints_dir.is_dir():
        return []
    recorded = records.names(endpoints_dir)
    names = sorted({name.partition(".")[0] for name in recorded})
    crowded = frozenset(name.partition(".")[0] for name in recorded if "." in name)
    look = partial(_watch_one, endpoints_dir, now, crowded)
    pool = ThreadPoolExecutor(max_workers=min(THREADS, len(names)) + 1)
    try:
        orphans = pool.submit(_end_orphans, endpoints_dir)
        looks = {pool.submit(look, name): name for name in names}
        under_way: list[Future[Any]] = [orphans, *looks]
        late = wait(under_way, LONGEST_LOOK_S).not_done
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if orphans not in late and (error := orphans.exception()):
        logger.error("What runs without a record is not known: %s", error)
    changes = []
    for one, name in looks.items():
        if one in late:
            logger.error("%s: the look at it did not end in %g s; the pass ends without it.", name, LONGEST_LOOK_S)
        elif error := one.exception():
            logger.error("%s: the look at it broke off (%s).", name, error)
        else:
            changes += one.result()
    return changes


def _end_orphans(folder: Path) -> None:
    for words in end_orphans(folder):
        logger.warning("Ended %s: no record named it.", words)


def _sweep(folder: Path, name: str) -> None:
    """End and forget what a killed start left beside the endpoint; one that is under way is left alone."""
    try:
        with (
            records.promoting(folder, name, wait_s=0) as nobody,
            records.starting(folder, name, wait_s=0) as free,
        ):
            if not nobody or not free:
                return
            serving = records.load(folder, name)
            if swept := end_leftovers(name, folder, serving=serving, longest_drain_s=LONGEST_DRAIN_S):
                logger.warning("%s was left by a start that was killed. %s", swept.name, swept.why)
            if serving is None or serving.state is State.STOPPED:
                end_replicas(name, folder)
    except (ServingError, OSError) as error:
        logger.error("%s: %s", name, error)


def _watch_one(folder: Path, now: datetime, crowded: frozenset[str], name: str) -> list[Change]:
    """Look at one; `crowded` are names with further records beside them: a candidate, replicas, leftovers."""
    if name in crowded:
        _sweep(folder, name)
    history, found = histories.load(folder, name), None
    try:
        found = records.load(folder, name)
        if found is None:
            return []
        changes = _look(folder, found, history, now, crowded=name in crowded)
    except ServingError as error:
        changes = history.move(name, State.FAILED, str(error), now)
    except OSError as error:  # as a full disk: it ends the look at this endpoint, not the pass
        logger.error("%s: what was found could not be written down (%s).", name, error)
        return []
    except Exception as error:  # nobody else's changes may be lost by it
        logger.exception("%s: the look at it broke off.", name)
        history = histories.load(folder, name)
        changes = _missed(found, history, error, now)
    try:
        histories.save(folder, name, history)
    except (OSError, ValueError) as error:
        logger.error("%s: its history could not be written (%s).", name, error)
    return changes


def _missed(found: Endpoint | None, history: History, error: Exception, now: datetime) -> list[Change]:
    """A look that broke off is a missed check: by the same rules it makes the endpoint DEGRADED, then UNHEALTHY."""
    if found is None or found.state in (State.STOPPED, State.DRAINING):
        return []
    history.add(Sample(round(now.timestamp(), 1), None))
    state, why = decide(history, State.HEALTHY, broken_off(error), found.failure_threshold, now)
    return history.move(found.name, state, why, now)


def _look(folder: Path, endpoint: Endpoint, history: History, now: datetime, *, crowded: bool) -> list[Change]:
    changes = _notice(folder, endpoint, history, now)
    if endpoint.state is State.DRAINING:
        endpoint = _finish_stop(folder, endpoint)
    if endpoint.state in (State.STOPPED, State.DRAINING):
        history.restart_at = None
        stopped = datetime.fromtimestamp(records.stopped_at(folder, endpoint.name) / 1e9, UTC)
        when = _before(now, stopped, history) if endpoint.state is State.STOPPED else now
        return changes + history.move(endpoint.name, endpoint.state, endpoint.why, when)
    front_error = _heal_front(folder, endpoint, history.state)
    found = check(endpoint, history, now)
    if records.load(folder, endpoint.name) != endpoint:  # replaced or stopped meanwhile: for the next pass
        return changes
    _mend_clock(history, now)
    history.add(found.sample)
    history.answered = found.answered
    state, why = decide(history, found.endpoint.state, found.error, endpoint.failure_threshold, now)
    short = _tend_replicas(folder, endpoint, state) if endpoint.front or crowded else ""
    if hung := restarts.hung(endpoint, history, state, now):
        state, why = State.FAILED, f"{hung} {why}"
    if state is State.FAILED:
        return changes + restarts.failed(folder, endpoint, history, why, now)
    if endpoint.state is State.STARTING and state in (State.HEALTHY, State.UNVERIFIED):
        _record_started(folder, endpoint, found.endpoint)
    if front_error and state is not State.STARTING:  # whatever the server can do, nobody gets there
        state, why = State.UNHEALTHY, front_error
    if short and state in (State.HEALTHY, State.UNVERIFIED):
        state, why = State.DEGRADED, short
    changes += history.move(endpoint.name, state, why or found.endpoint.why, now)
    steady = state in (State.HEALTHY, State.UNVERIFIED) and history.since and now - history.since >= restarts.STEADY
    if steady:
        history.restarts = history.holds = 0
    return changes


def _heal_front(folder: Path, endpoint: Endpoint, before: State | None) -> str:
    """Start a front that died and have it ask what answered before; what is wrong with it, empty if nothing is."""
    if endpoint.front is None and endpoint.runtime != "kubernetes":
        return ""
    with records.starting(folder, endpoint.name, wait_s=0) as free:
        if free and records.load(folder, endpoint.name) != endpoint:
            return ""
        return following.heal(endpoint.model_copy(update={"state": before or endpoint.state}), settled=free)


def _tend_replicas(folder: Path, endpoint: Endpoint, state: State) -> str:
    """Start, end and check what shares its requests; what is missing, empty if nothing is."""
    with records.starting(folder, endpoint.name, wait_s=0) as free:
        if not free or records.load(folder, endpoint.name) != endpoint:
            return ""
        try:
            found = replicas.tend(endpoint.model_copy(update={"state": state}), folder, LONGEST_DRAIN_S)
        except ServingError as error:
            return f"Its replicas are not known: {error}"
    return "" if found.complete else f"{found.answering + 1} of {found.wanted} replicas answer. {found.why}"


def _notice(folder: Path, endpoint: Endpoint, history: History, now: datetime) -> list[Change]:
    """A server that was started since the last pass, by whomever, and a name that moved to another revision."""
    before = history.state
    if history.launch != restarts.launch(endpoint):
        history.begin(restarts.launch(endpoint))
        history.restarts, history.restart_at, history.holds, history.held_until = 0, None, 0, None
        history.state = State.STARTING if endpoint.state is State.STARTING else None
        history.start_until = now + UNKNOWN_BUDGET
    if history.revision == endpoint.revision:
        return []
    history.revision = endpoint.revision
    again, promoted = 0, now
    with contextlib.suppress(ServingError, ValueError):  # a damaged file: it moved by now
        revision = revisions.load(folder, endpoint.name, endpoint.revision)
        again, promoted = revision.again, datetime.fromisoformat(revision.promoted).astimezone(UTC)
    what, why = ("rolled-back", f"Revision {again} serves again.") if again else ("promoted", "")
    change = Change(
        name=endpoint.name,
        at=_before(now, promoted, history),
        what=what,
        before=before,
        after=endpoint.state,
        why=why,
        revision=endpoint.revision,
    )
    return [history.change(change)]


def _before(now: datetime, at: datetime, history: History) -> datetime:
    """When something happened that this pass has noticed, in the order of the changes that are known."""
    return min(now, max(at, history.changes[-1].at) if history.changes else at)


def _mend_clock(history: History, now: datetime) -> None:
    """Time in which nobody looked, or that only a clock set anew has seen, is none of a start's budget.

    A long time between two passes is that only if it was not as long before: some let the watcher look each half hour.
    """
    if history.start_until is None or not history.samples:
        return
    last = [sample.at for sample in history.samples[-2:]]
    passed = now.timestamp() - last[-1]
    seldom = last[-1] - last[0] > LONGEST_PASS.total_seconds()
    if passed < 0 or (passed > LONGEST_PASS.total_seconds() and not seldom):
        history.start_until += timedelta(seconds=passed)


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
