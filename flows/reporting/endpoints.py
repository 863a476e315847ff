"""All endpoints on one page of Markdown, for the artifact `endpoints` of the Prefect UI."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from flows.reporting.markdown import plain, table
from flows.reporting.words import DASH
from flows.serving.ask import curl_line
from flows.serving.endpoint import Endpoint
from flows.serving.history import History
from flows.serving.state import State

PARTS = 48  # of the bar: half an hour each
LEVELS = "▁▂▃▄▅▆▇█"
NO_CHECK = "·"
CHANGES = 5


@dataclass(frozen=True)
class Shown:
    """An endpoint with the state to show, what the watcher remembers of it, and the numbers of its kept revisions."""

    endpoint: Endpoint
    state: State
    why: str
    history: History
    revisions: list[int]


def count_line(shown: list[Shown]) -> str:
    """How many endpoints there are in which state, as `3 endpoints: 2 HEALTHY, 1 FAILED`."""
    counts = Counter(one.state for one in shown)
    states = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    return f"{len(shown)} endpoint{'' if len(shown) == 1 else 's'}" + (f": {states}" if states else "")


def endpoints_markdown(shown: list[Shown], now: datetime) -> str:
    """A table of all endpoints, then for each its reason, address, latest changes and a line to ask it."""
    parts = ["# Endpoints", f"{count_line(shown)}, {now:%Y-%m-%d %H:%M:%S} UTC."]
    if shown:
        head = ["endpoint", "state", "since (UTC)", "last 24 h", "answered", "latency", "revision"]
        parts += [table(head, [_row(one, now) for one in shown])]
        parts += [
            f"The bar shows the last 24 hours, half an hour a sign: {LEVELS[-1]} every check was answered, {LEVELS[0]} "
            f"none, {NO_CHECK} nobody checked. Latency is the median of a whole check (health path, model list, 16 "
            "tokens)."
        ]
    return "\n\n".join(parts + [_details(one) for one in shown]) + "\n"


def uptime_bar(history: History, now: datetime) -> str:
    """48 signs for the last 24 hours, the oldest first."""
    return "".join(
        NO_CHECK if share is None else LEVELS[int(share * (len(LEVELS) - 1))] for share in history.shares(now, PARTS)
    )


def _row(one: Shown, now: datetime) -> list[str]:
    history = one.history
    uptime, latency = history.uptime, history.latency_s
    since = history.since if history.state is one.state else None
    return [
        f"**{plain(one.endpoint.name)}**",
        one.state.value,
        f"{since:%m-%d %H:%M}" if since else DASH,
        f"`{uptime_bar(history, now)}`",
        DASH if uptime is None else f"{100 * uptime:.1f} %",
        DASH if latency is None else f"{1000 * latency:.0f} ms",
        str(one.endpoint.revision or DASH),
    ]


def _details(one: Shown) -> str:
    endpoint = one.endpoint
    former = [str(number) for number in one.revisions if number != endpoint.revision]
    lines = [
        f"## {plain(endpoint.name)}",
        f"**{one.state.value}**: {one.state.words} {plain(one.why) if one.why else ''}".rstrip(),
        f"- address: {endpoint.url}",
        f"- model: {plain(endpoint.model)} ({endpoint.variant} on {endpoint.runtime})",
        f"- revision {endpoint.revision or DASH}, started {endpoint.started}"
        + (f"; can be rolled back to {', '.join(former)}" if former else ""),
    ]
    if endpoint.run_url:
        lines.append(f"- [the run that served it]({endpoint.run_url})")
    if one.state not in (State.STOPPED, State.FAILED):
        lines += ["", "```sh", curl_line(endpoint, "Hello?"), "```"]
    if one.history.changes:
        rows = [
            [f"{change.at:%m-%d %H:%M:%S}", change.what, plain(change.why) if change.why else ""]
            for change in reversed(one.history.changes[-CHANGES:])
        ]
        lines += ["", table(["when (UTC)", "what", "why"], rows)]
    return "\n".join([lines[0], "", lines[1], "", *lines[2:]])
