"""An endpoint's last 24 hours as a picture: a band of its states, and below it how long its answers took."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, HourLocator, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flows.reporting.plots import INK, RULE, SOFT
from flows.serving.history import KEPT, History
from flows.serving.state import State
from flows.store.files import write_atomically

COLOURS = {
    State.HEALTHY: "#1F6FB5",
    State.UNVERIFIED: "#7FB2E0",
    State.STARTING: "#C9D9EA",
    State.DEGRADED: "#F2B134",
    State.UNHEALTHY: "#D9541E",
    State.FAILED: "#8C1C13",
    State.DRAINING: "#B6BDC6",
    State.STOPPED: "#B6BDC6",
}
UNWATCHED = timedelta(minutes=5)  # without a check for longer nobody knows what it was
SEEN = timedelta(minutes=8)  # what was bad for a shorter time is drawn as long as that
SIZE = (9.0, 2.1)  # inches
DOTS_PER_INCH = 110


class Span(NamedTuple):
    """A time in which an endpoint was in one state; None: nobody checked."""

    begin: datetime
    end: datetime
    state: State | None


def history_plot(history: History, now: datetime, path: Path) -> Path:
    """Draw it; returns the PNG's path. States of which nobody checked are left white."""
    buffer = io.BytesIO()
    figure = history_figure(history, now)
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return write_atomically(path, buffer.getvalue())


def history_figure(history: History, now: datetime) -> Figure:
    """The plot, not yet written."""
    found = spans(history, now)
    figure = Figure(figsize=SIZE, facecolor="white")
    band = figure.add_axes((0.055, 0.68, 0.93, 0.14))
    # Short ones last and wide enough to be seen.
    for span in sorted(found, key=lambda one: one.begin - one.end):
        if span.state is not None:
            right = max(span.end, span.begin + (timedelta(0) if span.state is State.HEALTHY else SEEN))
            band.axvspan(date2num(span.begin), date2num(right), color=COLOURS.get(span.state, RULE), linewidth=0)
    band.set_yticks([])
    latency = figure.add_axes((0.055, 0.13, 0.93, 0.49))
    _latency(latency, history)
    for axes in (band, latency):
        axes.set_xlim(date2num(now - KEPT), date2num(now))
        axes.spines[:].set_visible(False)
    band.set_xticks([])
    band.set_facecolor("#F4F6F8")
    shown = [state for state in COLOURS if any(span.state is state for span in found)]
    handles = [Patch(color=COLOURS[state], label=state.value) for state in shown]
    if any(span.state is None for span in found):
        handles.append(Patch(facecolor="#F4F6F8", edgecolor=RULE, label="not watched"))
    figure.text(0.985, 0.93, "last 24 h, UTC; latency in ms", size=9, color=SOFT, ha="right", va="center")
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.043, 1.03), ncols=9, frameon=False, fontsize=9,
        handlelength=1.1, columnspacing=1.4, labelcolor=INK,
    )  # fmt: skip
    return figure


def spans(history: History, now: datetime) -> list[Span]:
    """The last 24 hours up to `now` in pieces of one state each, oldest first, from changes and checks."""
    begin = now - KEPT
    moves = [change for change in history.changes if change.what not in ("promoted", "rolled-back")]
    state = moves[0].before if moves else history.state
    at = [begin]
    states = [state]
    for move in moves:
        if move.at <= begin:
            states[0] = move.after
        elif move.at < now:
            at.append(move.at)
            states.append(move.after)
    pieces = [Span(*pair, state) for pair, state in zip(pairwise([*at, now]), states, strict=True)]
    gaps = _gaps(history, begin, now)
    cut = [part for piece in pieces for part in _cut(piece, [] if piece.state is State.STOPPED else gaps)]
    return [part for part in cut if part.begin < part.end]


def _gaps(history: History, begin: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
    """Times of which nothing is known: they begin a while after a check, or where the 24 hours do."""
    checks = [datetime.fromtimestamp(sample.at, UTC) for sample in history.samples]
    first = checks[0] if checks else now
    gaps = [(begin, first)] if first - begin > UNWATCHED else []
    return gaps + [(left + UNWATCHED, right) for left, right in pairwise([*checks, now]) if right - left > UNWATCHED]


def _cut(span: Span, gaps: list[tuple[datetime, datetime]]) -> list[Span]:
    """The span with what lies in gaps marked as unknown."""
    parts, begin = [], span.begin
    for gap in gaps:
        left, right = max(gap[0], begin), min(gap[1], span.end)
        if left < right:
            parts += [Span(begin, left, span.state), Span(left, right, None)]
            begin = right
    return [*parts, Span(begin, span.end, span.state)]


def _latency(axes: Axes, history: History) -> None:
    """Milliseconds of each answered check as dots; misses as ticks at the top."""
    good = [(sample.at, 1000 * sample.latency_s) for sample in history.samples if sample.latency_s is not None]
    times = [date2num(datetime.fromtimestamp(at, UTC)) for at, _ in good]
    axes.plot(times, [ms for _, ms in good], ".", markersize=2.5, color=COLOURS[State.HEALTHY])
    missed = [date2num(datetime.fromtimestamp(one.at, UTC)) for one in history.samples if not one.good]
    top = axes.get_xaxis_transform()
    axes.plot(missed, [0.97] * len(missed), "|", markersize=7, color=COLOURS[State.UNHEALTHY], transform=top)
    axes.set_ylim(0, 1.15 * max((ms for _, ms in good), default=1.0))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.xaxis.set_major_locator(HourLocator(byhour=range(0, 24, 3)))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
