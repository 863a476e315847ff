"""The plots of a report: SemScore per rung, truthfulness histograms, training loss.

Drawn on figures of their own (no pyplot, so nothing global and no display), sized so that a phone of 375 px shows them
readably: 5.2 in wide, text of 10 pt and more. Base is grey and trained is blue: they differ in lightness too.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from matplotlib.transforms import blended_transform_factory

from flows.corpus.row import HELD_OUT_RUNGS
from flows.evaluation.results import Estimate, Metrics, RungSemScore, RungTruthfulness, Truthfulness
from flows.reporting import words
from flows.reporting.contract import TrainingReport, VariantReport
from flows.store.files import write_atomically

BASE, TRAINED = "#9AA3AF", "#1F6FB5"
INK, SOFT, RULE = "#1B2430", "#5B6675", "#DDE2E8"
FLOOR, CEILING = "#C2510C", "#3F4A59"
CHANGE_INK = {"better": TRAINED, "worse": FLOOR, "not proven": SOFT}
WIDTH = 5.2  # inches
DOTS_PER_INCH = 230
LEFT, RIGHT = 0.03, 0.97  # where text begins and ends, in parts of a figure's width
BLOCK = 1.3  # height of one rung in the SemScore plot, in units of its y axis


def semscore_plot(metrics: Metrics, path: Path) -> Path:
    """Draw base against trained for the three rungs, with 95 % whiskers, floor and ceiling; returns the PNG's path."""
    return _save(semscore_figure(metrics), path)


def truthfulness_plot(truthfulness: Truthfulness, path: Path) -> Path:
    """Draw how many replies got each score, base against trained, a panel a rung; returns the PNG's path."""
    return _save(truthfulness_figure(truthfulness), path)


def loss_plot(training: Sequence[TrainingReport], path: Path) -> Path:
    """Draw loss against step, a panel a training stage; returns the PNG's path."""
    return _save(loss_figure(training), path)


def variants_plot(variants: Sequence[VariantReport], path: Path) -> Path:
    """Draw the gain of each variant on the dev share, with its interval; returns the PNG's path."""
    return _save(variants_figure(variants), path)


def variants_figure(variants: Sequence[VariantReport]) -> Figure:
    """The plot of variants, not yet written."""
    height = 1.75 + 0.62 * len(variants)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = figure.add_axes((0.06, 0.62 / height, 0.88, 1 - 1.6 / height))
    axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
    style: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    }
    for place, one in enumerate(variants):
        colour = TRAINED if one.chosen else SOFT
        axes.text(0, place - 0.3, one.name, size=12, color=colour, weight="bold", **style)
        change = f"{words.signed(one.delta.mean)} ({words.signed_interval(one.delta)})" if one.delta else "failed"
        said = f"chosen: {change}" if one.chosen else change
        axes.text(1, place - 0.3, said, size=11, color=colour, ha="right", **style)
        if one.delta is not None:
            axes.plot(one.delta.ci95, [place, place], color=colour, linewidth=2, marker="|", markersize=8, zorder=2)
            axes.plot(one.delta.mean, place, color=colour, marker="o", markersize=8, zorder=3)
    axes.set_ylim(len(variants) - 0.5, -0.7)
    axes.set_yticks([])
    _plain(axes)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_xlabel("change in SemScore; whiskers: 95 % interval", size=11, color=SOFT)
    _title(figure, "Variants", f"reworded questions of the dev share, n = {max(one.n for one in variants):,}")
    return figure


def semscore_figure(metrics: Metrics) -> Figure:
    """The SemScore plot, not yet written."""
    found = [(rung, getattr(metrics.semscore, rung)) for rung in HELD_OUT_RUNGS]
    scores = [score for _, score in found if score is not None]
    figure = Figure(figsize=(WIDTH, 6.7), facecolor="white")
    axes = figure.add_axes((0.17, 0.095, 0.735, 0.785))
    lowest = min([0.0, *(min(s.floor, s.base.ci95[0], s.trained.ci95[0]) for s in scores)])
    axes.set_xlim(lowest, max([1.0, *(s.ceiling for s in scores)]))
    axes.set_ylim(-BLOCK * len(found) + 0.08, 0.1)
    ticks: dict[float, str] = {}
    for place, (rung, score) in enumerate(found):
        top = -BLOCK * place
        _rung_heading(axes, top, rung, score)
        if score is None:
            axes.text(
                0.5, top - 0.75, "no rows", transform=axes.get_yaxis_transform(), ha="center", size=12, color=SOFT
            )
            continue
        _controls(axes, top, score)
        for name, colour, estimate, y in (
            ("base", BASE, score.base, top - 0.68),
            ("trained", TRAINED, score.trained, top - 0.94),
        ):
            ticks[y] = name
            _bar(axes, y, colour, estimate)
    axes.set_yticks(list(ticks), list(ticks.values()))
    _plain(axes)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("SemScore (1 is best); whiskers: 95 % interval", size=11, color=SOFT)
    _title(figure, "SemScore, base against trained", f"embedder: {_tail(words.embedders(metrics.semscore))}")
    return figure


def _rung_heading(axes: Axes, top: float, rung: str, score: RungSemScore | None) -> None:
    across = blended_transform_factory(axes.figure.transFigure, axes.transData)

    def write(x: float, below: float, text: str, size: float, colour: str, weight: str = "normal") -> None:
        side = "left" if x == LEFT else "right"
        axes.text(x, top - below, text, transform=across, ha=side, va="center", size=size, color=colour, weight=weight)

    write(LEFT, 0.08, rung, 13, INK, "bold")
    write(LEFT, 0.28, words.RUNG_FACTS[rung], 10.5, SOFT)
    if score is not None:
        verdict = words.change(score.delta)
        change = f"{words.signed(score.delta.mean)} ({words.signed_interval(score.delta)})"
        write(RIGHT, 0.08, change, 12.5, CHANGE_INK[verdict], "bold")
        write(RIGHT, 0.28, f"{verdict}, n = {score.n:,}", 10.5, SOFT)


def _controls(axes: Axes, top: float, score: RungSemScore) -> None:
    """Floor and ceiling as thin lines through the rung's bars, name and value above; grid lines behind."""
    low, high = axes.get_xlim()
    axes.vlines(axes.get_xticks(), top - 1.1, top - 0.53, color=RULE, linewidth=0.8, zorder=0)
    for name, value, colour in (("floor", score.floor, FLOOR), ("ceiling", score.ceiling, CEILING)):
        axes.vlines(
            value, top - 1.1, top - 0.53, color=colour, linewidth=1.6, linestyle=(0, (3, 2)), zorder=4, clip_on=False
        )
        side = "center" if name == "ceiling" else "left" if (value - low) / (high - low) < 0.35 else "right"
        axes.text(value, top - 0.46, f"{name} {words.number(value)}", ha=side, va="center", size=10, color=colour)


def _bar(axes: Axes, y: float, colour: str, estimate: Estimate) -> None:
    low, high = estimate.ci95
    axes.barh(y, estimate.mean, height=0.22, color=colour, zorder=2)
    axes.plot([low, high], [y, y], color=INK, linewidth=1.6, marker="|", markersize=8, markeredgewidth=1.6, zorder=5)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
    label = words.number(estimate.mean)
    axes.annotate(
        label,
        (max(high, 0.0), y),
        (6, 0),
        textcoords="offset points",
        va="center",
        size=12,
        color=INK,
        bbox=box,
        zorder=6,
    )


def truthfulness_figure(truthfulness: Truthfulness) -> Figure:
    """The truthfulness plot, not yet written."""
    found = [(rung, counts) for rung in HELD_OUT_RUNGS if (counts := getattr(truthfulness, rung)) is not None]
    unparsed = any(words.judged(counts, "unparsed") for _, pair in found for counts in (pair.base, pair.trained))
    scores = [*words.SCORES, "unparsed"] if unparsed else [*words.SCORES]
    panels = max(1, len(found))
    height = 1.75 + 2.0 * panels
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    grid = {"left": LEFT, "right": RIGHT, "top": 1 - 1.42 / height, "bottom": 0.55 / height, "hspace": 0.62}
    axes = [panel for row in figure.subplots(panels, 1, squeeze=False, gridspec_kw=grid) for panel in row]
    for panel, (rung, counts) in zip(axes, found, strict=False):
        _histogram(panel, rung, counts, scores)
    if not found:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "no rows", ha="center", va="center", size=12, color=SOFT)
    axes[-1].set_xlabel("score: 1 is wrong, 5 is right", size=11, color=SOFT)
    title = f"Truthfulness: {_tail(words.judge(truthfulness), 24)}"
    below = "how many replies got each score"
    if truthfulness.stand_in:
        title = f"Truthfulness ({words.STAND_IN})"
        below = "no LLM judged: the cosine, scaled from floor (1) to ceiling (5)"
    _title(figure, title, below)
    keys = [Patch(color=BASE, label="base"), Patch(color=TRAINED, label="trained")]
    style = {"ncols": 2, "frameon": False, "fontsize": 11, "handlelength": 1, "handleheight": 1, "borderaxespad": 0}
    figure.legend(handles=keys, loc="center left", bbox_to_anchor=(LEFT - 0.012, 1 - 0.9 / height), **style)
    return figure


def _histogram(axes: Axes, rung: str, counts: RungTruthfulness, scores: Sequence[str]) -> None:
    for side, colour, of_side in ((-1, BASE, counts.base), (1, TRAINED, counts.trained)):
        values = [of_side.get(score, 0) for score in scores]
        places = [place + side * 0.2 for place in range(len(scores))]
        bars = axes.bar(places, values, width=0.38, color=colour, zorder=2)
        axes.bar_label(bars, [f"{value:,}" for value in values], size=10.5, color=INK, padding=2)
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set_yticks([])
    axes.set_ylim(0, 1.18 * max(1, *counts.base.values(), *counts.trained.values()))
    _plain(axes)
    axes.spines["left"].set_visible(False)
    means = f"mean {words.number(words.mean_score(counts.base))} {words.ARROW} "
    means += words.number(words.mean_score(counts.trained))
    axes.set_title(rung, loc="left", size=13, weight="bold", color=INK)
    axes.set_title(f"{means}, n = {sum(counts.trained.values()):,}", loc="right", size=10.5, color=SOFT)


def loss_figure(training: Sequence[TrainingReport]) -> Figure:
    """The loss plot, not yet written."""
    panels = max(1, len(training))
    height = 1.15 + 2.2 * panels
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    grid = {"left": 0.14, "right": RIGHT, "top": 1 - 0.8 / height, "bottom": 0.62 / height, "hspace": 0.55}
    axes = [panel for row in figure.subplots(panels, 1, squeeze=False, gridspec_kw=grid) for panel in row]
    for panel, stage in zip(axes, training, strict=False):
        _loss_curve(panel, stage)
    axes[-1].set_xlabel("step", size=11, color=SOFT)
    _title(figure, "Training loss", "")
    return figure


def _loss_curve(axes: Axes, stage: TrainingReport) -> None:
    _plain(axes)
    axes.set_title(stage.stage, loc="left", size=13, weight="bold", color=INK)
    axes.set_title(f"{stage.steps:,} steps, {words.duration(stage.seconds)}", loc="right", size=10.5, color=SOFT)
    if not stage.loss:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no loss was logged", transform=axes.transAxes, ha="center", size=12, color=SOFT)
        return
    steps, losses = zip(*stage.loss, strict=True)
    axes.plot(steps, losses, color=TRAINED, linewidth=2, marker="o" if len(steps) <= 30 else "", markersize=4)
    axes.grid(color=RULE, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))


def _title(figure: Figure, title: str, below: str) -> None:
    height = figure.get_figheight()
    figure.text(LEFT, 1 - 0.3 / height, title, size=15, weight="bold", color=INK, va="center")
    figure.text(LEFT, 1 - 0.58 / height, below, size=10.5, color=SOFT, va="center")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(length=0, labelsize=11, labelcolor=INK)
    axes.set_axisbelow(True)


def _tail(text: str, most: int = 50) -> str:
    """The end of a long name (of a path it tells most)."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return write_atomically(path, buffer.getvalue())
