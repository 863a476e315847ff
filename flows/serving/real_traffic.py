"""Has the endpoint just answered somebody? Then the watcher need not ask: a probe costs, and fails under load."""

from __future__ import annotations

from datetime import datetime, timedelta

from flows.serving.history import History
from flows.serving.metrics import Counters
from flows.serving.state import State

RECENT = timedelta(minutes=3)  # a longer gap between two checks says nothing about now


def answered(counters: Counters | None) -> float | None:
    """Requests that the engine has answered well since it started, whoever sent them; None where it counts none."""
    return counters.succeeded if counters else None


def succeeded_since(history: History, counters: Counters | None, now: datetime) -> int:
    """How many requests of others it has answered well since the last check; 0 where that is not known.

    Args:
        history: of the endpoint; `answered` is the count after the last check, that check's own request included.
        counters: the engine's, of now; None if it has none.
        now: the time of this check.
    """
    total = answered(counters)
    if total is None or history.answered is None or not history.samples:
        return 0
    since = timedelta(seconds=now.timestamp() - history.samples[-1].at)
    return max(0, round(total - history.answered)) if timedelta(0) <= since <= RECENT else 0


def enough(history: History, succeeded: int) -> bool:
    """Whether that stands for a generation of our own. What was UNHEALTHY, or has just missed, must answer ourselves.

    Engines count what they answered well only: of a server that fails one request in five this shows the other four.
    """
    return succeeded > 0 and not history.lapses and history.state in (State.HEALTHY, State.DEGRADED)
