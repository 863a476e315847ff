"""What the runs have gained and what they cost, as a picture: one column a run, the oldest at the left."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from flows.cost.cost import Cost
from flows.reporting.plots import INK, RULE, SOFT
from flows.reporting.runs import LABELS, RunLine, Status
from flows.store.files import write_atomically

MOST = 40
SIZE = (9.0, 4.6)  # inches
DOTS_PER_INCH = 130
DOTS: dict[Status, str] = {"passed": "#10703C", "refused": "#C98A00", "failed": "#A8321A"}
PARTS = {"prepare": "#B6BDC6", "pretrain": "#7FB2E0", "finetune": "#1F6FB5", "evaluate": "#F2B134", "other": "#5B6675"}
LEFT, WIDTH = 0.085, 0.9


def runs_plot(runs: list[RunLine], path: Path) -> Path | None:
    """Draw the newest runs; returns the PNG's path, None if there are none."""
    if not runs:
        return None
    buffer = io.BytesIO()
    runs_figure(runs).savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return write_atomically(path, buffer.getvalue())


def runs_figure(runs: list[RunLine]) -> Figure:
    """The plot, not yet written."""
    shown = list(reversed(runs[:MOST]))
    figure = Figure(figsize=SIZE, facecolor="white")
    gain = figure.add_axes((LEFT, 0.545, WIDTH, 0.355))
    cost = figure.add_axes((LEFT, 0.135, WIDTH, 0.29))
    _gain(gain, shown)
    name, parts = _cost(cost, shown)
    for axes in (gain, cost):
        axes.set_xlim(-0.6, max(len(shown), 8) - 0.4)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    gain.set_xticks([])
    every = max(1, len(shown) // 10)
    places = range(0, len(shown), every)
    cost.set_xticks(places, [_day(shown[place].created) for place in places])
    figure.text(LEFT, 0.945, "change in SemScore, 95 % interval", size=10.5, color=INK, weight="bold")
    figure.text(LEFT, 0.46, f"cost, {name}", size=10.5, color=INK, weight="bold")
    there = {one.status for one in shown}
    dots = [Patch(color=DOTS[status], label=LABELS[status]) for status in DOTS if status in there]
    stages = [Patch(color=PARTS[part], label=part) for part in PARTS if part in parts]
    for handles, height in ((dots, 0.995), (stages, 0.51)):
        figure.legend(
            handles=handles, loc="upper right", bbox_to_anchor=(LEFT + WIDTH + 0.01, height), ncols=5, frameon=False,
            fontsize=9, handlelength=1.0, columnspacing=1.3, labelcolor=INK,
        )  # fmt: skip
    return figure


def _gain(axes: Axes, runs: list[RunLine]) -> None:
    axes.axhline(0, color=SOFT, linewidth=1, zorder=1)
    bottom = axes.get_xaxis_transform()
    for place, one in enumerate(runs):
        colour = DOTS[one.status]
        if one.delta is None or one.interval is None:
            axes.plot(place, 0.05, "x", color=colour, markersize=6, transform=bottom)
            continue
        axes.plot([place, place], one.interval, color=colour, linewidth=2, zorder=2)
        axes.plot(place, one.delta, "o", color=colour, markersize=6, zorder=3)


def _cost(axes: Axes, runs: list[RunLine]) -> tuple[str, set[str]]:
    """Bars of stages; says in which unit they are, and which stages there are."""
    name, unit = _unit(runs)
    present: set[str] = set()
    for place, one in enumerate(runs):
        below = 0.0
        for part in PARTS:
            height = sum(unit(cost) or 0.0 for stage, cost in one.stages.items() if _kind(stage) == part)
            if height:
                present.add(part)
                axes.bar(place, height, 0.72, bottom=below, color=PARTS[part], linewidth=0)
            below += height
        rest = (unit(one.cost) or 0.0) - below
        if rest > 1e-9 + 0.01 * below:  # a report of before the stages had a cost
            present.add("other")
            axes.bar(place, rest, 0.72, bottom=below, color=PARTS["other"], linewidth=0)
    axes.set_ylim(bottom=0)
    return name, present


def _unit(runs: list[RunLine]) -> tuple[str, Callable[[Cost], float | None]]:
    """Money if all have the same currency, else GPU-hours if there are any, else hours or minutes of work."""
    currencies = {one.currency for one in runs}
    if len(currencies) == 1 and (currency := currencies.pop()):
        return currency, lambda cost: cost.money
    if any(one.cost.gpu_hours for one in runs):
        return "GPU-hours", lambda cost: cost.gpu_hours
    if max(one.cost.seconds for one in runs) >= 3600:
        return "hours of work", lambda cost: cost.seconds / 3600
    return "minutes of work", lambda cost: cost.seconds / 60


def _kind(stage: str) -> str:
    """`finetune` of `finetune-wide`; what a person called otherwise is `other`."""
    kind = stage.partition("-")[0]
    return kind if kind in PARTS else "other"


def _day(created: str) -> str:
    try:
        return datetime.fromisoformat(created).strftime("%m-%d\n%H:%M")
    except ValueError:
        return ""
