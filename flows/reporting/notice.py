"""The message with the result of a run: what it says, as text, as HTML for an e-mail, and as JSON for a webhook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from flows.corpus.row import HELD_OUT_RUNGS
from flows.reporting import words
from flows.reporting.contract import CostReport, RunReport
from flows.reporting.html import is_web
from flows.reporting.markdown import verdict_line
from flows.reporting.notice_config import Event

LONGEST_LINE = 400  # characters of a cause: a message is no log
EVENT_WORDS: dict[Event, str] = {
    "succeeded": "done",
    "gate-failed": "the gate did not pass",
    "failed": "failed",
    "nothing-changed": "nothing has changed",
}


class Notice(BaseModel):
    """What a message says.

    Attributes:
        line: the result in one sentence, or the cause of a failure.
        details: label and words, in the order in which they are shown.
        report: the run's report, where there is one.
        plot: the picture that goes with it.
    """

    event: Event
    title: str
    run_id: str
    run_name: str
    run_url: str
    line: str
    details: list[tuple[str, str]] = []
    report: RunReport | None = None
    plot: Path | None = None

    @property
    def subject(self) -> str:
        """One line: the title and how the run ended."""
        verdict = "the gate passed" if self.event == "succeeded" and self.report else EVENT_WORDS[self.event]
        score = self.report.metrics.semscore.reworded if self.report and self.event != "failed" else None
        change = f" ({words.signed(score.delta.mean)})" if score else ""
        return " ".join(f"{self.title}: {verdict}{change}".split())

    @property
    def identity(self) -> str:
        """Two messages of one run with the same identity say the same."""
        return f"{self.event}: {self.line}" if self.event == "failed" else self.event


def of_report(report: RunReport, folder: Path) -> Notice:
    """The message of a run with a report, which lies in `folder`."""
    plot = folder / "truthfulness_result.png"
    reasons = "; ".join(reason.rstrip(".") for reason in report.gate.decisive)
    details = [*_scores(report), *_truthfulness(report), ("Gate", f"{words.gate_words(report)}: {reasons}.")]
    if report.endpoint is not None:
        details.append(("Served", f"{report.endpoint.name}, {report.endpoint.state}, at {report.endpoint.url}"))
    return Notice(
        event="succeeded" if report.gate.passed else "gate-failed",
        title=report.title,
        run_id=report.run_id,
        run_name=report.run_name,
        run_url=report.run_url,
        line=verdict_line(report),
        details=[*details, ("Cost", cost_words(report.cost)), ("Report", str(folder / "report.html"))],
        report=report,
        plot=plot if plot.exists() else None,
    )


def of_failure(title: str, run_id: str, run_name: str, run_url: str, message: str, report: RunReport | None) -> Notice:
    """The message of a run that failed: its cause in one line, and what had been measured before."""
    measured = [("Measured before", verdict_line(report))] if report else []
    return Notice(
        event="failed",
        title=title,
        run_id=run_id,
        run_name=run_name,
        run_url=run_url,
        line=cause(message),
        details=measured,
        report=report,
    )


def cause(message: str) -> str:
    """A message in one line: its first, and how many more there are."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["No reason was given."]
    if lines[0].endswith(":") and len(lines) > 1:  # only says that something follows
        lines = [f"{lines[0]} {lines[1]}", *lines[2:]]
    first = lines[0] if len(lines[0]) <= LONGEST_LINE else f"{lines[0][: LONGEST_LINE - 1]}…"
    rest = len(lines) - 1
    return f"{first} (and {rest} more {'line' if rest == 1 else 'lines'})" if rest else first


def cost_words(cost: CostReport) -> str:
    """What the run cost, as far as it is known."""
    parts = [words.duration(cost.seconds)]
    if cost.trained_tokens:
        parts.append(f"{cost.trained_tokens:,} tokens trained")
    if cost.gpu_hours:
        parts.append(f"{words.number(cost.gpu_hours)} GPU hours")
    if cost.currency:
        parts.append("money unknown" if cost.money is None else words.money(cost.money, cost.currency))
    if cost.energy_kwh is not None:
        parts.append(f"{words.number(cost.energy_kwh, 3)} kWh")
    return ", ".join(parts)


def as_text(notice: Notice) -> str:
    """Plain text, for chats and for mail programs that show no HTML."""
    lines = [notice.line, *(f"{label}: {text}" for label, text in notice.details)]
    lines.append(f"Run {notice.run_name}{': ' + notice.run_url if notice.run_url else ''}")
    return "\n".join(lines)


def as_html(notice: Notice, picture: str) -> str:
    """A page for an e-mail; `picture` is the address of the plot (`cid:...`), empty without one."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.tests["web"] = is_web
    page = environment.get_template("notice.html.j2")
    return page.render(notice=notice, picture=picture, good=notice.event in ("succeeded", "nothing-changed"))


def as_json(notice: Notice) -> dict[str, Any]:
    """For a webhook: the text that a chat shows (`text`), and the figures for programs."""
    body: dict[str, Any] = {
        "event": notice.event,
        "subject": notice.subject,
        "text": f"{notice.subject}\n{as_text(notice)}",
        "run": {"id": notice.run_id, "name": notice.run_name, "url": notice.run_url},
    }
    if notice.report is not None:
        measured = notice.report.model_dump(mode="json", include={"gate", "cost", "endpoint"})
        body |= {**measured, "semscore": notice.report.metrics.semscore.model_dump(mode="json")}
    return body


def _scores(report: RunReport) -> list[tuple[str, str]]:
    found = []
    for rung in HELD_OUT_RUNGS:
        score = getattr(report.metrics.semscore, rung)
        if score is not None:
            figures = f"{words.number(score.base.mean)} {words.ARROW} {words.number(score.trained.mean)}"
            interval = f"{words.signed(score.delta.mean)}, 95 % interval {words.signed_interval(score.delta)}"
            found.append((f"SemScore, {rung}", f"{figures} ({interval}, n = {score.n:,})"))
    return found


def _truthfulness(report: RunReport) -> list[tuple[str, str]]:
    """The means on the headline's rung, and who judged: a stand-in is called one."""
    truthfulness = report.metrics.truthfulness
    counts = truthfulness.reworded
    if counts is None:
        return []
    base, trained = words.mean_score(counts.base), words.mean_score(counts.trained)
    return [
        (
            "Truthfulness, reworded",
            f"{words.number(base)} {words.ARROW} {words.number(trained)} of 5, {words.judge(truthfulness)}",
        )
    ]
