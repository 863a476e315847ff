"""Starting again what failed: when, how often, and what happens when it is given up."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from flows.errors import FinetuneError, ServingError
from flows.serving import revisions
from flows.serving.causes import LOG_LINES, Cause, classify
from flows.serving.endpoint import Endpoint
from flows.serving.history import Change, History
from flows.serving.registry import RUNTIMES
from flows.serving.start import restart
from flows.serving.state import State
from flows.serving.stop import end
from flows.serving.thresholds import pending
from flows.serving.variants.launch import NotYetError

FIRST_BACKOFF = timedelta(seconds=10)
LONGEST_BACKOFF = timedelta(seconds=300)
MOST_RESTARTS = 5
STEADY = timedelta(minutes=10)

logger = logging.getLogger(__name__)


def backoff(restarts: int) -> timedelta:
    """How long after its end a server is started for the `restarts`-th time, from 1."""
    return min(FIRST_BACKOFF * 2 ** (restarts - 1), LONGEST_BACKOFF)


def hung(endpoint: Endpoint, history: History, state: State, now: datetime) -> str:
    """Why a server that lives counts as one that failed: it has been UNHEALTHY for as long as its settings allow.

    Args:
        endpoint: as recorded.
        history: of the endpoint, before this check is written down.
        state: what this check made of it.
        now: the time of the check.

    Returns:
        The reason; empty while there is none, or if its settings leave it alone.
    """
    limit_s = endpoint.watch.restart_unhealthy_after_s
    if not limit_s or state is not State.UNHEALTHY or history.state is not State.UNHEALTHY or not history.since:
        return ""
    if now - history.since < timedelta(seconds=limit_s):
        return ""
    return f"It lived but was UNHEALTHY for {limit_s:g} s (serve.watch.restart_unhealthy_after_s), so it was ended."


def failed(folder: Path, endpoint: Endpoint, history: History, why: str, now: datetime) -> list[Change]:
    """Say that it failed and why; start it again when that is due; give up loudly.

    Nothing here takes long: a server is not waited for, and an image that is missing is pulled beside us.
    """
    changes: list[Change] = []
    scheduled = history.restart_at is not None or history.restarts >= MOST_RESTARTS
    if history.state is not State.FAILED or not scheduled:
        why += _circumstances(endpoint)
        _end_rest(endpoint)
        changes = _schedule(folder, endpoint, history, why, now)
    if history.restart_at is None or pending(history.restart_at, now, LONGEST_BACKOFF):
        return changes
    history.restarts += 1
    try:
        started = restart(endpoint, folder)
    except NotYetError as error:  # no try: the next pass makes it
        history.restarts -= 1
        return changes + history.move(endpoint.name, State.FAILED, f"{error} It is started again after that.", now)
    except (FinetuneError, OSError) as error:  # as a full disk, on which neither record nor log can be written
        words = f"{error}." if isinstance(error, OSError) else str(error)
        return changes + _schedule(folder, endpoint, history, f"It could not be started again: {words}", now)
    if started is None:  # somebody else is at it
        history.restarts -= 1
        return changes
    new, budget_s = started
    history.begin(launch(new))
    history.start_until, history.restart_at = now + timedelta(seconds=budget_s), None
    words = f"Started again, {history.restarts} of {MOST_RESTARTS} times."
    return changes + history.move(endpoint.name, State.STARTING, words, now)


def launch(endpoint: Endpoint) -> str:
    """What tells one start of a server from the next."""
    return f"{endpoint.started} {endpoint.log}"


def _circumstances(endpoint: Endpoint) -> str:
    """What else is known of an end: exit code, a restart of the machine, the cause that the log shows."""
    runtime, words = RUNTIMES[endpoint.runtime], ""
    try:
        if (code := runtime.exit_code(endpoint.process)) is not None:
            words += f" Its exit code is {code}."
        if runtime.rebooted(endpoint.process):
            words += " The machine was started again since."
        if (cause := classify(runtime.logs(endpoint.process, LOG_LINES))) is not Cause.OTHER:
            words += f" Cause: {cause.words}. {cause.remedy}"
    except ServingError as error:
        logger.error("%s: %s", endpoint.name, error)
    return words


def _schedule(folder: Path, endpoint: Endpoint, history: History, why: str, now: datetime) -> list[Change]:
    """FAILED, with the time of the next restart or the last word."""
    if history.restarts >= MOST_RESTARTS:
        history.restart_at = None
        back = _roll_back(folder, endpoint)
        what = "The revision before takes over" if back else "Serve it again or roll it back when its cause is mended"
        why = f"Gave up after {MOST_RESTARTS} restarts. {what}. {why}"
        return history.move(endpoint.name, State.FAILED, why, now, again=True, gave_up=True, roll_back=back)
    delay = backoff(history.restarts + 1)
    history.restart_at = now + delay
    why = f"{why} It is started again in {delay.total_seconds():.0f} s."
    return history.move(endpoint.name, State.FAILED, why, now)


def _roll_back(folder: Path, endpoint: Endpoint) -> bool:
    """Whether the revision before is to take over by itself; never after a roll-back: two bad ones would take turns."""
    if not endpoint.watch.roll_back_when_given_up:
        return False
    try:
        again = revisions.load(folder, endpoint.name, endpoint.revision).again
    except ServingError:
        return False
    return not again and any(number < endpoint.revision for number in revisions.numbers(folder, endpoint.name))


def _end_rest(endpoint: Endpoint) -> None:
    """End workers that outlived their server, or a server that took too long: they hold memory and the port."""
    try:
        end(endpoint)
    except ServingError as error:
        logger.error("%s: %s", endpoint.name, error)
