"""Asking again what passes by itself: a lost connection, a timeout, 408, 409, 429 and 5xx."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
)

Answer = TypeVar("Answer")

PASSING = (408, 409, 429)  # refusals that time mends, besides 5xx
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LONGEST_WISH_S = 300.0  # a Retry-After beyond this is no pause but a refusal


def retried(
    ask: Callable[[], Answer], retries: int, given_up: threading.Event, also: Callable[[BaseException], bool]
) -> Answer:
    """What `ask` returns, tried up to `retries` times more: after 0.5 s, 1 s, 2 s ... 30 s, or when the server says.

    `given_up` ends the waiting at once: the last error is raised. `also` names further errors that pass.

    Raises:
        Exception: the last one of `ask`, or the first that does not pass.
    """
    retrying = Retrying(
        retry=retry_if_exception(lambda error: passes(error) or also(error)),
        stop=stop_any(stop_after_attempt(retries + 1), stop_when_event_set(given_up)),
        wait=_pause,
        sleep=sleep_using_event(given_up),
        reraise=True,
    )
    return retrying(ask)


def passes(error: BaseException) -> bool:
    """Whether the same request may be answered a little later."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        return (error.status_code >= 500 or error.status_code in PASSING) and wish(error) <= LONGEST_WISH_S
    return isinstance(error, APIConnectionError)


def wish(error: BaseException) -> float:
    """The seconds after which the server wants to be asked again (Retry-After); 0 if it does not say."""
    from openai import APIStatusError

    headers: Any = error.response.headers if isinstance(error, APIStatusError) else {}
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) / unit)
        except ValueError:
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    wished = wish(error) if error else 0.0
    if wished:
        return wished
    # Apart from one another, so that a server that comes back is not asked by all at once.
    return float(min(FIRST_PAUSE_S * 2 ** (state.attempt_number - 1), LONGEST_PAUSE_S)) * random.uniform(0.75, 1.0)
