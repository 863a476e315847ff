"""One check of an endpoint by the watcher: cheap questions always, a generation unless others just had one."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime

from flows.serving import metrics, probe, real_traffic
from flows.serving.endpoint import Endpoint
from flows.serving.history import History, Sample
from flows.serving.metrics import Counters
from flows.serving.state import State

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        endpoint: HEALTHY or UNVERIFIED with its model's name, or as it was given if `error` says what is wrong.
        sample: for the history.
        answered: requests the server has answered well since its start, ours included; None if it does not count.
    """

    endpoint: Endpoint
    sample: Sample
    answered: float | None = None
    error: probe.ProbeError | None = None


def check(endpoint: Endpoint, history: History, now: datetime) -> Check:
    """Ask, cheapest first. `history` is only read; `now` is the time to write down.

    What breaks the check itself off counts as a miss: a server whose answers nobody foresaw is not a good one.
    """
    at = round(now.timestamp(), 1)
    began = time.monotonic()
    total: float | None = None
    try:
        found = probe.reachable(endpoint)
        cheap_s = time.monotonic() - began
        if not endpoint.ready_path:
            return Check(found, Sample(at, round(cheap_s, 4)))
        counters = metrics.read(endpoint)
        total = real_traffic.answered(counters)
        good = found.model_copy(update={"state": State.HEALTHY, "why": ""})
        succeeded = real_traffic.succeeded_since(history, counters, now)
        if real_traffic.enough(history, succeeded):
            return Check(good, Sample(at, None, answered=succeeded), total)
        answer = _generation(found, counters)
    except probe.ProbeError as error:
        return Check(endpoint, Sample(at, None), total, error)
    except Exception as error:
        logger.exception("%s: the check broke off.", endpoint.name)
        return Check(endpoint, Sample(at, None), None, broken_off(error))
    sample = Sample(at, round(cheap_s + answer.seconds, 4), round(answer.tokens_per_s, 2))
    return Check(good, sample, None if total is None else total + 1)


def broken_off(error: Exception) -> probe.ProbeError:
    """A check or a look that broke off, as the miss that it counts as."""
    return probe.ProbeError(f"The look at it broke off ({type(error).__name__}: {error}).")


def _generation(endpoint: Endpoint, before: Counters | None) -> probe.Answer:
    """A generation; one that does not come in time is weighed by what the engine did meanwhile.

    Raises:
        BusyError: the engine went on with requests, or refused ours while it has others.
        SlowError: it did not, or does not tell.
        GenerationError: an answer that is none.
    """
    try:
        return probe.generation(endpoint, probe.GENERATION_TIMEOUT_S)
    except probe.OverloadedError as error:
        if before and before.running > 0:
            raise probe.BusyError(f"Busy: running requests {before.running:.0f}. {error}") from error
        raise
    except probe.SlowError as error:
        after = metrics.read(endpoint) if before else None
        if before is None or after is None:
            raise
        steps = after.steps - before.steps
        counted = f"running requests {after.running:.0f}, steps of its engine meanwhile {steps:.0f}. {error}"
        if after.running > 0 and steps > 0:
            raise probe.BusyError(f"Busy, not stuck: {counted}") from error
        raise probe.SlowError(f"Stuck, not busy: {counted}") from error
