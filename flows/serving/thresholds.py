"""From single checks to a state: how many misses count, when it is good again, when it only flaps."""

from __future__ import annotations

from datetime import datetime, timedelta

from flows.serving.history import History
from flows.serving.probe import BusyError, CertainError, GenerationError, ProbeError, ProcessEndedError
from flows.serving.state import State

DEGRADED_AFTER = 2
GENERATION_FAILURES = 2  # wrong answers; an answer that only does not come in time counts like any other miss
PASSES_AFTER_UNHEALTHY = 2
LAPSES = 2  # misses between good checks that make it DEGRADED: one request in so many fails
PASSES_AFTER_LAPSES = 15  # good checks in a row after which lapses are forgotten
FLAPPING = timedelta(minutes=10)
MOST_MOVES = 4  # within FLAPPING
HOLD = timedelta(seconds=30)
LONGEST_HOLD = timedelta(seconds=300)
ANSWERING = (State.HEALTHY, State.DEGRADED, State.UNHEALTHY, State.UNVERIFIED)
WORDS = [state.value.lower() for state in ANSWERING]


def decide(history: History, good: State, error: ProbeError | None, threshold: int, now: datetime) -> tuple[State, str]:
    """The state after one more check, and why. Counts in `history`; its state is left for the caller to set.

    What is busy with others' requests is DEGRADED, for as long as that may last: it is no miss and no going down.

    Args:
        history: of the endpoint; `state` is that of the check before.
        good: what a good check makes of it, HEALTHY or UNVERIFIED.
        error: what was wrong, None for a good check.
        threshold: misses in a row that make it UNHEALTHY.
        now: the time of the check.
    """
    if isinstance(error, ProcessEndedError):
        return State.FAILED, str(error)
    if isinstance(error, BusyError):
        history.misses, history.passes, history.busy_at = 0, 0, now
        return State.DEGRADED, str(error)
    if history.state is State.STARTING:
        return _started(history, good, error, now)
    _count(history, error)
    state, why = _counted(history, good, error, threshold)
    if state is State.UNHEALTHY:
        history.lapses = 0  # that is told by other rules
    return _steadied(history, state, why, now)


def pending(at: datetime | None, now: datetime, longest: timedelta) -> bool:
    """Whether a time is yet to come. Further off than it can be means that the clock was put back: then it is not."""
    return at is not None and timedelta(0) < at - now <= longest


def _started(history: History, good: State, error: ProbeError | None, now: datetime) -> tuple[State, str]:
    if error is None:
        return good, ""
    if history.start_until and now >= history.start_until:
        return State.FAILED, f"It was started again and was not healthy within its startup budget: {error}"
    return State.STARTING, str(error)


def _count(history: History, error: ProbeError | None) -> None:
    """Good and bad checks in a row, and misses that come again and again with good checks between them."""
    if error is None:
        history.misses, history.passes = 0, history.passes + 1
        if history.passes >= PASSES_AFTER_LAPSES:
            history.lapses = 0
        return
    history.lapses += history.misses == 0
    history.misses, history.passes = history.misses + 1, 0


def _counted(history: History, good: State, error: ProbeError | None, threshold: int) -> tuple[State, str]:
    bad = history.state is State.UNHEALTHY
    if error is None:
        if bad and history.passes < PASSES_AFTER_UNHEALTHY:
            return State.UNHEALTHY, "It answers again; one more good check and it counts as healthy."
        if history.lapses >= LAPSES:
            return State.DEGRADED, f"{_lapsed(history)}; it counts as healthy after {PASSES_AFTER_LAPSES} good checks."
        return good, ""
    most = min(GENERATION_FAILURES, threshold) if isinstance(error, GenerationError) else threshold
    if bad or isinstance(error, CertainError) or history.misses >= most:
        return State.UNHEALTHY, str(error)
    if history.lapses >= LAPSES:
        return State.DEGRADED, f"{_lapsed(history)}: {error}"
    missed = f"Check missed {history.misses} of {most} times: {error}"
    if history.misses >= DEGRADED_AFTER or history.state is State.DEGRADED:
        return State.DEGRADED, missed
    return history.state or good, missed


def _lapsed(history: History) -> str:
    return f"It misses checks again and again, {history.lapses} times with good ones between"


def _steadied(history: History, state: State, why: str, now: datetime) -> tuple[State, str]:
    """Hold what goes up and down too often."""
    if pending(history.held_until, now, LONGEST_HOLD):
        return State.UNHEALTHY, _held(history)
    if state is history.state:
        return state, why
    since = max([now - FLAPPING, *(at for at in (history.held_until, history.busy_at) if at)])
    moves = [c for c in history.changes if c.at > since and c.before in ANSWERING and c.what in WORDS]
    if len(moves) + 1 <= MOST_MOVES:
        return state, why
    history.holds += 1
    history.held_until = now + min(HOLD * history.holds, LONGEST_HOLD)
    return State.UNHEALTHY, _held(history)


def _held(history: History) -> str:
    until = f"{history.held_until:%H:%M:%S} UTC" if history.held_until else "later"
    return f"It went up and down more than {MOST_MOVES} times in 10 minutes; held as unhealthy until {until}."
