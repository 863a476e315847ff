"""Traffic moves to the candidate by steps; each step shows whether the candidate stands it."""

from __future__ import annotations

import time

from flows.reporting.contract import CheckReport
from flows.serving import probe
from flows.serving.endpoint import Endpoint
from flows.serving.front.traffic import ServerStats
from flows.serving.promotion import Promotion
from flows.serving.promotion_options import PromotionOptions
from flows.stages.run_context import RunContext

POLL_S = 2.0
NAME = "serve"


def steps(options: PromotionOptions) -> list[int]:
    """The shares of the traffic (%) that the candidate gets one after another before the name moves to it."""
    return {"replace": [], "blue-green": [100], "canary": options.canary_steps}[options.strategy]


def traffic_check(run: RunContext, promotion: Promotion, percent: int) -> CheckReport:
    """Give the candidate that share of the traffic for a step's time, and see how it does.

    It fails as soon as the candidate does not answer the watcher's questions, and when a larger part of its requests
    failed than of the current model's; both are counted by the front. Without any request only the former shows.
    """
    candidate, options = promotion.candidate, promotion.config.promotion
    assert candidate is not None
    began, progress = time.monotonic(), run.progress(NAME)
    promotion.share(percent)
    before = promotion.statistics()
    while True:
        wrong = _wrong(candidate)
        seen = {who: since(before.get(who), stats) for who, stats in promotion.statistics().items()}
        spent = time.monotonic() - began
        passed = not wrong and not fails_more(seen)
        if not passed or spent >= options.step_s:
            return CheckReport(
                name=f"{options.strategy}: {percent} % of the traffic",
                passed=passed,
                words=wrong or words(seen),
                seconds=spent,
            )
        progress(min(spent, options.step_s), options.step_s, f"{percent} % of the traffic: {words(seen)}")
        time.sleep(min(POLL_S, options.step_s - spent))


def fails_more(seen: dict[str, ServerStats]) -> bool:
    """Whether a larger part of the candidate's requests failed than of the current model's."""
    return _failed(seen["candidate"]) > (_failed(seen["current"]) if "current" in seen else 0)


def since(before: ServerStats | None, now: ServerStats) -> ServerStats:
    """What came to a server since `before`; averages and running requests are as now."""
    if before is None:
        return now
    return now._replace(requests=now.requests - before.requests, errors=now.errors - before.errors)


def words(seen: dict[str, ServerStats]) -> str:
    """Requests, failures and time to the first byte of both."""
    return "; ".join(
        f"{'the ' * (who == 'current')}{who}{' model' * (who == 'current')} {stats.requests} requests, "
        f"{stats.errors} failed, first byte after {stats.first_byte_ms} ms"
        for who, stats in seen.items()
    )


def _failed(stats: ServerStats) -> float:
    return stats.errors / max(stats.requests, 1)


def _wrong(candidate: Endpoint) -> str:
    try:
        probe.verify(candidate)
    except probe.ProbeError as error:
        return f"It does not answer the watcher: {error}"
    return ""
