"""All runs of a store, from what each has left there: for the artifact `runs` of the Prefect UI and for `runs.html`."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from flows.cost.cost import Cost
from flows.reporting import words
from flows.reporting.html import data_uri, environment
from flows.reporting.markdown import link, plain, table
from flows.store.files import read_json

Status = Literal["passed", "refused", "failed"]
SIGNS: dict[Status, str] = {"passed": "🟢", "refused": "🟡", "failed": "🔴"}
LABELS: dict[Status, str] = {"passed": "passed", "refused": "did not pass", "failed": "failed"}
MEANINGS: dict[Status, str] = {
    "passed": "the gate passed",
    "refused": "the gate did not pass",
    "failed": "it ended with an error",
}
MOST = 100  # lines of the artifact; the page has all
LONGEST_CAUSE = 160  # characters
SCRIPT = Path(__file__).parent / "runs.js"


@dataclass(frozen=True)
class RunLine:
    """One run. `delta` is the change of the reworded SemScore, with its 95 % interval; None where it is not known."""

    run_id: str
    name: str
    url: str
    line: str
    title: str
    created: str
    status: Status
    delta: float | None
    interval: tuple[float, float] | None
    cost: Cost
    currency: str
    stages: dict[str, Cost]
    seconds: float | None
    cause: str
    report: str

    @property
    def when(self) -> str:
        """When it ended, to the minute."""
        return words.moment(self.created)

    @property
    def score(self) -> str:
        """`+0.17 (+0.12 to +0.22)`, or a dash."""
        if self.delta is None or self.interval is None:
            return words.DASH
        low, high = self.interval
        return f"{words.signed(self.delta)} ({words.signed(low)} to {words.signed(high)})"

    @property
    def spent(self) -> str:
        """Money where there are prices, else GPU-hours where there are cards, else time of work."""
        if self.currency:
            return words.money(self.cost.money, self.currency)
        return words.gpu_time(self.cost.gpu_hours) if self.cost.gpu_hours else words.duration(self.cost.seconds)


def read_runs(*folders: Path) -> list[RunLine]:
    """The runs in a store's folders of runs that have ended with a report or a failure, the newest first.

    Of a run that is in several of them, as one that was started again elsewhere, the latest end counts; of equal ones
    that of the first folder.
    """
    found: dict[str, RunLine] = {}
    for line in (line for folder in folders for run in folder.glob("*") if (line := _read(run)) is not None):
        former = found.get(line.run_id)
        if former is None or _time(line.created) > _time(former.created):
            found[line.run_id] = line
    return sorted(found.values(), key=lambda one: _time(one.created), reverse=True)


def count_line(runs: list[RunLine]) -> str:
    """How many there are, as `3 runs: 2 passed, 1 failed`."""
    counts = {status: sum(one.status == status for one in runs) for status in SIGNS}
    said = ", ".join(f"{count} {LABELS[status]}" for status, count in counts.items() if count)
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}" + (f": {said}" if said else "")


def runs_markdown(runs: list[RunLine], plot: Path | None, page: Path) -> str:
    """A table of the newest runs, and the plot of what they gained and cost."""
    parts = ["# Runs", f"{plain(count_line(runs))}. Sortable, with all of them: {plain(str(page))}"]
    if plot is not None:
        parts.append(f"![Gain and cost of each run]({data_uri(plot)})")
    head = ["run", "line", "ended", "change (95 %)", "gate", "cost", "duration", "status"]
    if runs:
        parts.append(table(head, [_row(one) for one in runs[:MOST]]))
    if len(runs) > MOST:
        parts.append(f"The newest {MOST} of {len(runs):,}.")
    return "\n\n".join(parts) + "\n"


def runs_html(runs: list[RunLine], plot: Path | None) -> str:
    """The same as a page that needs no network, whose table is sorted by a click on its head."""
    script = SCRIPT.read_text("utf-8")
    page = environment().get_template("runs.html.j2")
    return page.render(
        runs=runs,
        count=count_line(runs),
        labels=LABELS,
        meanings=MEANINGS,
        plot=data_uri(plot) if plot else None,
        script=script,
        # The page may run this script and no other.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        words=words,
    )


def _row(one: RunLine) -> list[Any]:
    gate = words.DASH if one.status == "failed" else LABELS[one.status]
    status = f"{SIGNS[one.status]}\N{NO-BREAK SPACE}{LABELS[one.status]}"
    cause = f": {plain(_short(one.cause))}" if one.cause else ""
    cells = [plain(one.line), plain(one.when), plain(one.score), gate, plain(one.spent), words.duration(one.seconds)]
    return [link(one.name, one.url), *cells, f"{status}{cause}"]


def _short(cause: str) -> str:
    line = " ".join(cause.split())
    return line if len(line) <= LONGEST_CAUSE else f"{line[: LONGEST_CAUSE - 1]}…"


def _read(folder: Path) -> RunLine | None:
    """A run that was started again may have left both: the later one counts. Reports of older versions lack fields."""
    report, failure = read_json(folder / "report.json"), read_json(folder / "failure.json")
    ended_badly = isinstance(failure, dict) and not (
        isinstance(report, dict)
        and _told_at(report, folder / "report.json") > _told_at(failure, folder / "failure.json")
    )
    told = {**(report if isinstance(report, dict) else {}), **(failure if ended_badly else {})}
    if not told:
        return None
    score = _part(_part(_part(told, "metrics"), "semscore"), "reworded")
    delta = _part(score, "delta")
    gate = _part(told, "gate")
    cost = _part(told, "cost")
    status: Status = "failed" if ended_badly else "passed" if gate.get("passed") else "refused"
    seconds = cost.get("seconds")
    return RunLine(
        run_id=folder.name,
        name=str(told.get("run_name") or folder.name[:8]),
        url=str(told.get("run_url") or ""),
        line=str(told.get("line") or ""),
        title=str(told.get("title") or ""),
        created=str(told.get("created") or _stamp(folder / ("failure.json" if ended_badly else "report.json"))),
        status=status,
        delta=delta.get("mean"),
        interval=tuple(delta["ci95"]) if delta.get("ci95") else None,
        cost=_cost({**cost, "seconds": cost.get("work_seconds", seconds) or 0}),
        currency=str(cost.get("currency") or ""),
        stages={
            str(stage.get("name")): _cost(_part(stage, "cost"))
            for stage in told.get("stages") or []
            if isinstance(stage, dict) and stage.get("cost")
        },
        seconds=seconds,
        cause=_cause(told) if ended_badly else _against(gate) if status == "refused" else "",
        report=str(folder / "report.html") if (folder / "report.html").exists() else "",
    )


def _against(gate: dict[str, Any]) -> str:
    """What kept the gate from passing; older reports do not tell that from the checks that passed."""
    return "; ".join(gate.get("failed") or gate.get("reasons") or [])


def _cause(failure: dict[str, Any]) -> str:
    lines = str(failure.get("message") or "").splitlines()
    return lines[0] if lines else "it does not say why"


def _cost(figures: dict[str, Any]) -> Cost:
    return Cost.model_validate({name: figures[name] for name in Cost.model_fields if figures.get(name) is not None})


def _part(whole: dict[str, Any], name: str) -> dict[str, Any]:
    found = whole.get(name)
    return found if isinstance(found, dict) else {}


def _told_at(told: dict[str, Any], file: Path) -> tuple[float, float]:
    """When, as it says itself: in a bucket all files of a run are written anew each time it shares them."""
    return _time(str(told.get("created"))) or _changed(file), _changed(file)


def _changed(file: Path) -> float:
    return file.stat().st_mtime


def _stamp(file: Path) -> str:
    return datetime.fromtimestamp(_changed(file)).astimezone().isoformat(timespec="seconds")


def _time(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
