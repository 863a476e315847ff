"""All endpoints on one page of Markdown, for the artifact `endpoints` of the Prefect UI."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.reporting.html import data_uri
from flows.reporting.markdown import link, plain, table
from flows.reporting.words import DASH
from flows.serving.ask import curl_line, python_lines
from flows.serving.endpoint import Endpoint
from flows.serving.history import History
from flows.serving.revisions import Revision
from flows.serving.state import State

PARTS = 24  # of the bar: an hour each
LEVELS = "▁▂▃▄▅▆▇█"
NO_CHECK = "·"
CHANGES = 5
LONGEST_PATH = 48  # characters
DOWN = (State.STOPPED, State.FAILED, State.DRAINING)
SERVING = (State.HEALTHY, State.UNVERIFIED, State.DEGRADED, State.UNHEALTHY, State.STARTING, State.PENDING)
UNWATCHED = timedelta(minutes=10)
SIGNS = {
    State.HEALTHY: "🟢",
    State.UNVERIFIED: "⚪",
    State.STARTING: "🔵",
    State.PENDING: "🔵",
    State.DEGRADED: "🟡",
    State.UNHEALTHY: "🟠",
    State.FAILED: "🔴",
    State.DRAINING: "⚫",
    State.STOPPED: "⚫",
}


@dataclass(frozen=True)
class Shown:
    """An endpoint, the state to show, what the watcher remembers, its kept revisions, and its plot if it has one."""

    endpoint: Endpoint
    state: State
    why: str
    history: History
    revisions: list[Revision]
    plot: Path | None = None


def count_line(shown: list[Shown]) -> str:
    """How many endpoints there are in which state, as `3 endpoints: 2 HEALTHY, 1 FAILED`."""
    counts = Counter(one.state for one in shown)
    states = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    return f"{len(shown)} endpoint{'' if len(shown) == 1 else 's'}" + (f": {states}" if states else "")


def endpoints_markdown(shown: list[Shown], now: datetime) -> str:
    """A table of all endpoints, then each: reason, address, plot, lines to ask it, revisions, latest changes.

    What serves comes first; what was stopped comes last, in a few words.
    """
    shown = sorted(shown, key=lambda one: (one.state not in SERVING) + (one.state is State.STOPPED))
    parts = ["# Endpoints", f"{count_line(shown)}, {now:%Y-%m-%d %H:%M:%S} UTC."]
    if late := [plain(one.endpoint.name) for one in shown if _unwatched(one, now)]:
        parts.append(
            f"**Not checked in the last {UNWATCHED // timedelta(minutes=1)} minutes:** {', '.join(late)}. If "
            "nobody watches, switch on the schedule of the deployment `watch-endpoints/every-minute`."
        )
    if shown:
        head = ["endpoint", "state", "last 24 h", "answered", "latency", "tokens/s", "rev."]
        parts += [table(head, [_row(one, now) for one in shown])]
        parts += [
            f"The bar is the last 24 hours, an hour a sign: {LEVELS[-1]} every check was answered, {LEVELS[0]} none, "
            f"{NO_CHECK} nobody checked. Latency is the median of a whole check (health path, model list, an answer of "
            "up to 16 tokens), tokens/s that of its answer, the wait for the first token included."
        ]
    return "\n\n".join(parts + [_stopped(one) if one.state is State.STOPPED else _details(one) for one in shown]) + "\n"


def uptime_bar(history: History, now: datetime) -> str:
    """24 signs for the last 24 hours, the oldest first."""
    return "".join(
        NO_CHECK if share is None else LEVELS[int(share * (len(LEVELS) - 1))] for share in history.shares(now, PARTS)
    )


def _row(one: Shown, now: datetime) -> list[str]:
    history = one.history
    uptime, latency, speed = history.uptime, history.latency_s, history.tokens_per_s
    return [
        f"**{plain(one.endpoint.name)}**",
        f"{SIGNS[one.state]}\N{NO-BREAK SPACE}{one.state.value}",
        f"`{uptime_bar(history, now)}`",
        DASH if uptime is None else f"{100 * uptime:.1f} %",
        DASH if latency is None else f"{1000 * latency:.0f} ms",
        DASH if speed is None else f"{speed:.1f}",
        str(one.endpoint.revision or DASH),
    ]


def _unwatched(one: Shown, now: datetime) -> bool:
    """Whether it should be checked, and was not lately."""
    last = one.history.samples[-1].at if one.history.samples else 0
    asked = one.state not in (State.STOPPED, State.DRAINING) and one.endpoint.url  # else its record is damaged
    return bool(asked) and now.timestamp() - last > UNWATCHED.total_seconds()


def _head(one: Shown) -> list[str]:
    """Name, state and reason."""
    since = one.history.since if one.history.state is one.state else None
    when = f" since {since:%m-%d %H:%M} UTC" if since else ""
    words = f"**{one.state.value}**{when}: {one.state.words} {plain(one.why) if one.why else ''}".rstrip()
    return [f"## {plain(one.endpoint.name)}", words]


def _stopped(one: Shown) -> str:
    """What it served, and what can be served again; its address leads nowhere."""
    last = f"- revision {one.endpoint.revision or DASH} was {plain(one.endpoint.model)}, started {one.endpoint.started}"
    kept = ", ".join(str(revision.number) for revision in one.revisions)
    return "\n\n".join([*_head(one), last + (f"\n- kept revisions: {kept}" if kept else "")])


def _details(one: Shown) -> str:
    endpoint = one.endpoint
    facts = [f"- last check: {_last_check(one.history)}"]
    if endpoint.url:  # else its record is damaged
        facts = [*_facts(endpoint), *facts]
    if endpoint.run_url:
        facts.append(f"- [the run that served it]({endpoint.run_url})")
    parts = [*_head(one), "\n".join(facts)]
    if one.plot is not None:
        parts.append(f"![States and latency of {endpoint.name}, last 24 hours]({data_uri(one.plot)})")
    if one.state not in DOWN:
        parts += [
            f"```sh\n{curl_line(endpoint, 'Hello?', folded=True)}\n```",
            f"```python\n{python_lines(endpoint, 'Hello?')}\n```",
        ]
    if one.revisions:
        parts += ["**Revisions**", _revisions(one)]
    if one.history.changes:
        rows = [
            [f"{change.at:%m-%d %H:%M:%S}", change.what, plain(change.why) if change.why else ""]
            for change in reversed(one.history.changes[-CHANGES:])
        ]
        parts += ["**Latest changes**", table(["when (UTC)", "what", "why"], rows)]
    return "\n\n".join(parts)


def _facts(endpoint: Endpoint) -> list[str]:
    return [
        f"- address: {endpoint.public_url}{_key_words(endpoint)}",
        f"- model: {plain(endpoint.model)} ({endpoint.variant} on {endpoint.runtime})",
        f"- revision {endpoint.revision or DASH}, started {endpoint.started}",
    ]


def _key_words(endpoint: Endpoint) -> str:
    """What a request needs besides the address; empty if nothing."""
    if endpoint.front and endpoint.front.guarded:
        return f" (needs a token: `issue-token` makes one; the lines below take it from `{endpoint.key_variable}`)"
    return f" (needs its key, from `{endpoint.key_variable}`)" if endpoint.key_variable else ""


def _last_check(history: History) -> str:
    """When it was and what came of it; real traffic may have stood for its question."""
    if not history.samples:
        return "none yet by the watcher"
    last = history.samples[-1]
    when = f"{datetime.fromtimestamp(last.at, UTC):%m-%d %H:%M:%S} UTC"
    if last.answered:
        return f"{when}, answered real traffic ({last.answered:,} since the check before), so it was not asked itself"
    return f"{when}, {'missed' if last.latency_s is None else f'answered in {1000 * last.latency_s:.0f} ms'}"


def _revisions(one: Shown) -> str:
    rows = []
    for revision in reversed(one.revisions):
        now = revision.number == one.endpoint.revision
        again = f"revision {revision.again} again" if revision.again else ""
        what = ", ".join(part for part in ("serves" if now and one.state not in DOWN else "", again) if part)
        number = f"**{revision.number}**" if now else str(revision.number)
        when = revision.promoted.replace("T", " ").removesuffix("+00:00")
        run = link("run", revision.run_url) if revision.run_url else DASH
        rows.append([number, when, f"`{_tail(revision.model_uri or revision.model_dir)}`", run, what])
    return table(["revision", "promoted (UTC)", "model", "by", ""], rows)


def _tail(path: str) -> str:
    """The end of a long path, which tells most; nothing in it can end the code it stands in."""
    path = path.replace("`", "'").replace("|", "¦").replace("\n", " ")
    return path if len(path) <= LONGEST_PATH else f"…{path[1 - LONGEST_PATH :]}"
