"""The table of faults: what each must become, what it really became, how soon that was seen, and what was done.

A test of a fault says what is expected, and notes what the code really answered:

    @pytest.mark.fault("port taken", expected="refused before anything starts", action="nothing is started")
    def test_a_taken_port(seen):
        ...
        seen(error)  # an exception, an endpoint, a history, or words that the code gave

`pytest --faults=build/faults.json` writes a row a test; a fault of the list below without a row fails the session
when everything was collected. Rows are in the order of the list.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

WIDTHS = (34, 50, 60, 13)
PARTS = {
    "serving": (
        "wrong path",
        "impossible option",
        "port taken",
        "out of memory",
        "disk full in the cache",
        "download that stalls",
        "SIGSTOP of the engine",
        "kill -9 of the engine",
        "kill -9 of the server",
        "kill -9 of the watcher",
        "kill -9 of the Prefect worker",
        "kill -9 of the flow in mid-promotion",
        "TERM while starting",
        "the wrong model behind the port",
        "200 with garbage",
        "429",
        "500 in 1 of 5",
        "an answer after 60 s",
        "token: wrong",
        "token: expired",
        "token: revoked",
        "token: in another header",
        "100 start/stop cycles",
        "two promotions at once",
        "clock jump",
        "machine restart",
        "flapping endpoint",
        "Prefect server down",
    ),
    "kills": (
        "training child killed",
        "flow-run process killed",
        "worker killed",
        "Prefect server killed",
        "all killed at once (power loss)",
        "run cancelled",
        "run cancelled that has outlived its worker",
        "called dead while it works",
    ),
}
FAULTS = tuple(fault for faults in PARTS.values() for fault in faults)


@dataclass
class Row:
    """One fault in one place.

    Attributes:
        part: of the project, as PARTS has them.
        fault: a name of that part.
        on: what it happened to, as `container`; empty if there is one place only.
        expected, action: the state or the refusal that is right, and what must be done, or is told to do.
        seen: what the code answered.
        seconds_to_see: from the fault to that answer; None if it was not measured.
        clock: `real`, or `passes` for times of the watcher's passes, which tests choose (a minute apart unless said).
        holds: whether the test passed.
        skipped: why it did not run.
        test: its id.
    """

    part: str
    fault: str
    on: str
    expected: str
    action: str
    test: str
    seen: str = ""
    seconds_to_see: float | None = None
    clock: str = "real"
    holds: bool = False
    skipped: str = ""


class Seen:
    """Notes of one test: `begin()` at the fault, then call it with what the code answered."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.began: float | None = None

    def begin(self) -> None:
        """The fault happens now."""
        self.began = time.monotonic()

    def __call__(self, answer: object, passes_s: float | None = None, fault: str = "") -> None:
        """Note an answer of the code.

        Args:
            answer: an exception, an endpoint or a history (its state and why), or words.
            passes_s: seconds by the watcher's passes; else they are counted from `begin`.
            fault: which one, for a test of several.
        """
        if not self.rows:  # a case of the test that is no row of the table
            return
        [row] = [row for row in self.rows if fault in ("", row.fault)]
        row.seen = _words(answer)
        if passes_s is not None:
            row.seconds_to_see, row.clock = passes_s, "passes"
        elif self.began is not None:
            row.seconds_to_see = round(time.monotonic() - self.began, 2)


def _words(answer: object) -> str:
    if state := getattr(answer, "state", None):
        answer = f"{state.value}. {getattr(answer, 'why', '')}"
    text = " ".join(str(answer).partition("\nLast ")[0].split())
    assert text, "nothing was seen"
    return text


class Table:
    """All rows of a session."""

    def __init__(self, config: pytest.Config) -> None:
        self.file: str | None = config.getoption("--faults")
        self.rows: dict[str, list[Row]] = {}
        # Whole: started without files or -k, so that what lacks a row lacks a test.
        whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        self.whole = whole and not config.getoption("keyword") and not config.getoption("collectonly")

    def of(self, item: pytest.Item) -> list[Row]:
        """The rows of a test, in the order of its marks from the top."""
        marks = reversed(list(item.iter_markers("fault")))
        return self.rows.setdefault(item.nodeid, [_row(mark, item) for mark in marks])

    @property
    def sorted_rows(self) -> list[Row]:
        """In the order of the list."""
        rows = [row for rows in self.rows.values() for row in rows]
        return sorted(rows, key=lambda row: (FAULTS.index(row.fault), row.on, row.test))

    @property
    def missing(self) -> list[str]:
        """Faults of the list that no test is about."""
        found = {row.fault for row in self.sorted_rows}
        return [fault for fault in FAULTS if fault not in found]


def _row(mark: pytest.Mark, item: pytest.Item) -> Row:
    [fault], given = mark.args, mark.kwargs
    if fault not in FAULTS:
        raise pytest.UsageError(f"{item.nodeid}: there is no fault '{fault}' in tests/faults/report.py")
    case = item.callspec.id if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ""
    [part] = [part for part, faults in PARTS.items() if fault in faults]
    return Row(part, fault, given.get("on", case), given["expected"], given["action"], item.nodeid)


TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", help="write the table of faults to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    table = config.stash[TABLE] = Table(config)
    config.pluginmanager.register(OfOtherProcesses(table))


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Seen:
    """Where a test of a fault notes what the code answered."""
    return Seen(request.config.stash[TABLE].of(request.node))


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        if item.get_closest_marker("fault"):
            session.config.stash[TABLE].of(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    done = yield
    unseen = [row.fault for row in item.config.stash[TABLE].rows.get(item.nodeid, []) if not row.seen]
    if unseen:
        pytest.fail(f"what became of {', '.join(unseen)} was not noted through the fixture `seen`", pytrace=False)
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    for row in item.config.stash[TABLE].rows.get(item.nodeid, []):
        if report.skipped:
            row.skipped = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if report.when == "call":
            row.holds = report.passed
        row.holds &= not report.failed
    report.fault_rows = [asdict(row) for row in item.config.stash[TABLE].rows.get(item.nodeid, [])]
    return report


class OfOtherProcesses:
    """With `-n` tests run in processes of their own, and their rows come with their reports."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        rows = getattr(report, "fault_rows", [])
        if rows and hasattr(report, "node"):  # it was sent by another process
            self.table.rows[report.nodeid] = [Row(**row) for row in rows]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    table = session.config.stash[TABLE]
    if not table.file or hasattr(session.config, "workerinput"):
        return
    file = Path(table.file)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(row) for row in table.sorted_rows], indent=1, ensure_ascii=False) + "\n")
    if table.whole and table.missing and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if not table.file:
        return
    terminalreporter.section("faults")
    terminalreporter.line(_line("fault", "expected", "seen", "seconds", ""))
    for row in table.sorted_rows:
        mark = "" if row.holds else f"skipped: {row.skipped}" if row.skipped else "FAILED"
        seconds = (
            "" if row.seconds_to_see is None else f"{row.seconds_to_see:g}{' in passes' * (row.clock == 'passes')}"
        )
        fault = f"{row.fault} ({row.on})" if row.on else row.fault
        terminalreporter.line(_line(fault, row.expected, row.seen, seconds, mark))
    if table.whole and table.missing:
        terminalreporter.line(f"No test is about: {', '.join(table.missing)}", red=True)


def _line(*cells: str) -> str:
    *fixed, last = cells
    return (
        "  ".join(f"{cell[:width]:{width}}" for cell, width in zip(fixed, WIDTHS, strict=True)) + f"  {last}".rstrip()
    )
