"""The report as Markdown, for the artifact page of the Prefect UI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flows.corpus.row import HELD_OUT_RUNGS
from flows.evaluation.results import Example
from flows.reporting import words
from flows.reporting.contract import RunReport
from flows.reporting.html import data_uri, is_web

MOST = 600  # characters of a question or reply; the whole text stands in report.html and predictions.parquet


def summary_markdown(report: RunReport, semscore_png: Path | None) -> str:
    """Verdict, SemScore plot, metrics, before and after, stages and links; texts of users show as they were typed."""
    parts = [f"# {plain(report.title)}", f"**{plain(verdict_line(report))}**"]
    parts += ["\n".join(f"- {plain(reason)}" for reason in report.gate.reasons)]
    if semscore_png is not None:
        parts.append(f"![SemScore, base against trained]({data_uri(semscore_png)})")
    parts += [_semscore(report), _truthfulness(report)]
    parts += ["## Before and after", *(_example(example) for example in report.examples)]
    if report.variants:
        parts += ["## Variants", _variants(report)]
    parts += ["## Stages", _stages(report), "## What it cost", _cost(report), "## Links", _links(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict_line(report: RunReport) -> str:
    """The run in one sentence: the gate's verdict and the headline figure; the reasons stand beside it."""
    return f"{words.gate_words(report)}: {words.headline(report.metrics.semscore.reworded)}."


def plain(text: str | None) -> str:
    """Text in one line, clipped, in which nothing is Markdown or HTML; a dash for none."""
    line = " ".join(words.or_dash(text).split())
    line = line if len(line) <= MOST else f"{line[: MOST - 1]}…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", line)


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _semscore(report: RunReport) -> str:
    rows: list[list[Any]] = []
    for rung in HELD_OUT_RUNGS:
        score = getattr(report.metrics.semscore, rung)
        if score is None:
            rows.append([rung, *[words.DASH] * 5, "no rows", *[words.DASH] * 2])
            continue
        base, trained, delta = score.base, score.trained, score.delta
        rows.append(
            [
                rung,
                f"{score.n:,}",
                f"{words.number(base.mean)} ({words.interval(base)})",
                f"{words.number(trained.mean)} ({words.interval(trained)})",
                f"**{words.signed(delta.mean)}**",
                words.signed_interval(delta),
                words.change(delta),
                words.number(score.floor),
                words.number(score.ceiling),
            ]
        )
    head = ["SemScore", "n", "base (95 %)", "trained (95 %)", "change", "95 % interval", "proven", "floor", "ceiling"]
    return table(head, rows)


def _variants(report: RunReport) -> str:
    rows: list[list[Any]] = []
    for one in report.variants:
        change = f"**{words.signed(one.delta.mean)}** ({words.signed_interval(one.delta)})" if one.delta else words.DASH
        verdict = "chosen" if one.chosen else plain(one.why)
        rows.append([plain(one.name), plain(", ".join(one.overrides)), change, words.duration(one.seconds), verdict])
    head = ["variant", "otherwise", "change on dev (95 %)", "time", "verdict"]
    return table(head, rows)


def _truthfulness(report: RunReport) -> str:
    rows: list[list[Any]] = []
    for rung in HELD_OUT_RUNGS:
        counts = getattr(report.metrics.truthfulness, rung)
        if counts is None:
            rows.append([rung, *[words.DASH] * 3, "no rows"])
            continue
        base, trained = counts.base, counts.trained
        groups = [("1", "2"), ("4", "5"), ("unparsed",)]
        pairs = [f"{words.judged(base, *keys):,} → {words.judged(trained, *keys):,}" for keys in groups]
        means = f"{words.number(words.mean_score(base))} → {words.number(words.mean_score(trained))}"
        rows.append([rung, *pairs, means])
    judge = plain(words.judge(report.metrics.truthfulness))
    return table([f"Truthfulness, {judge}", "scores 1–2", "scores 4–5", "unparsed", "mean"], rows)


def _example(example: Example) -> str:
    rows = [
        ["target", plain(example.target), ""],
        ["base", plain(example.base_reply), words.number(example.base_score)],
        ["trained", plain(example.trained_reply), f"**{words.number(example.trained_score)}**"],
    ]
    return f"**{plain(example.question)}** ({plain(example.rung)})\n\n{table(['', 'text', 'SemScore'], rows)}"


def _stages(report: RunReport) -> str:
    rows = [
        [
            plain(stage.name),
            stage.status,
            words.DASH if stage.status == "skipped" else words.duration(stage.seconds),
            plain(stage.why),
            link(stage.from_run, stage.from_run_url),
        ]
        for stage in report.stages
    ]
    return table(["stage", "status", "time", "why", "from run"], rows)


def _cost(report: RunReport) -> str:
    rows: list[list[Any]] = []
    cost = report.cost
    for stage in report.stages:
        if stage.cost is not None:
            rows.append([plain(stage.name), *(plain(cell) for cell in words.cost_cells(stage.cost, cost.currency)), ""])
        elif stage.saved is not None:
            saved = words.saved_words(stage.saved, cost.currency)
            rows.append([plain(stage.name), *[words.DASH] * (len(words.COST_HEAD)), saved])
    line = f"The run itself: {words.cost_line(cost)}."
    head = ["stage", *words.COST_HEAD, "cached"]
    return f"{plain(line)}\n\n{table(head, rows)}" if rows else plain(line)


def _links(report: RunReport) -> str:
    lines = [
        f"- run: {link(report.run_name, report.run_url)}",
        f"- base model: {plain(report.base_model)}",
        f"- trained model: {plain(report.trained_model_uri)}",
    ]
    if report.endpoint is not None:
        endpoint = report.endpoint
        lines.append(f"- endpoint {plain(endpoint.name)}, {plain(endpoint.state)}: {link(endpoint.url, endpoint.url)}")
        if endpoint.page_url:
            lines.append(f"- {link('all endpoints', endpoint.page_url)}: state, last 24 hours, how to ask them")
    return "\n".join(lines)


def link(text: str | None, url: str | None) -> str:
    """The text as a link, if the address is one that may become a link."""
    return f"[{plain(text)}](<{url}>)" if is_web(url) and not set("<>\n") & set(str(url)) else plain(text)
