"""The table itself: rows of real answers, in the order of the list, and no fault forgotten."""

import json

import pytest

from tests.faults import report, table

TESTS = """
import pytest
from flows.serving.history import History
from flows.serving.state import State

@pytest.mark.fault("clock jump", on="back", expected="HEALTHY", action="none")
def test_noted(seen):
    seen(History(state=State.HEALTHY, why="It\\nanswers."), passes_s=60)

@pytest.mark.fault("wrong path", expected="refused", action="none")
def test_first_in_the_list(seen):
    seen.begin()
    seen(ValueError("no /such\\nLast 1 lines of the log:\\n  | x"))

@pytest.mark.fault("429", expected="DEGRADED", action="none")
@pytest.mark.skip(reason="not here")
def test_skipped(seen):
    seen("never")
"""


@pytest.fixture
def session(pytester, monkeypatch):
    """Runs tests with the option; what ended how, and the rows."""

    def run(tests, *words, faults=("wrong path", "429", "clock jump")):
        monkeypatch.setattr(report, "FAULTS", faults)
        pytester.makeini("[pytest]\ntestpaths = .\nmarkers = fault")
        pytester.makepyfile(tests)
        done = pytester.inline_run("-p", "tests.faults.report", "--faults", "made/faults.json", *words)
        return done.ret, json.loads((pytester.path / "made" / "faults.json").read_text())

    return run


def test_rows_are_what_was_seen_in_the_order_of_the_list(session):
    code, rows = session(TESTS)
    assert code == pytest.ExitCode.OK
    assert [row["fault"] for row in rows] == ["wrong path", "429", "clock jump"]
    first, skipped, last = rows
    assert (first["seen"], first["clock"], first["holds"], first["on"]) == ("no /such", "real", True, "")
    assert {row["part"] for row in (first, skipped)} == {"serving"}
    assert 0 <= first["seconds_to_see"] < 60
    assert (skipped["holds"], skipped["skipped"], skipped["seen"]) == (False, "Skipped: not here", "")
    assert (last["seen"], last["seconds_to_see"], last["clock"]) == ("HEALTHY. It answers.", 60, "passes")
    assert last["test"].endswith("::test_noted")


def test_rows_come_from_other_processes_too(session):
    code, rows = session(TESTS, "-n", "2")
    assert code == pytest.ExitCode.OK
    assert [(row["fault"], row["seen"]) for row in rows] == [
        ("wrong path", "no /such"),
        ("429", ""),
        ("clock jump", "HEALTHY. It answers."),
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [((), pytest.ExitCode.TESTS_FAILED), (("-k", "noted or first or skipped"), pytest.ExitCode.OK)],
    ids=["all collected", "a choice"],
)
def test_a_fault_without_a_test_fails_the_session_if_all_were_collected(session, words, code):
    assert session(TESTS, *words, faults=("wrong path", "429", "flapping endpoint", "clock jump"))[0] == code


def test_a_fault_of_which_nothing_was_noted_fails(session):
    marked = 'import pytest\n@pytest.mark.fault("429", expected="x", action="y")\ndef test_silent(): pass\n'
    code, [row] = session(marked, faults=("429",))
    assert (code, row["holds"], row["seen"]) == (pytest.ExitCode.TESTS_FAILED, False, "")


def test_the_table_for_people_says_what_was_seen_and_what_was_not_run():
    row = {
        "fault": "429",
        "on": "a|b",
        "expected": "DEGRADED",
        "action": "none",
        "test": "t",
        "skipped": "",
        "holds": True,
    }
    seen = row | {"seen": "Log: /tmp/pytest-of-root/pytest-1/x0/endpoints/logs/a.log.", "clock": "real"}
    rows = [
        seen | {"seconds_to_see": 1.234},
        seen | {"seconds_to_see": 0.001, "holds": False},
        seen | {"seen": "word " * 99, "seconds_to_see": 120, "clock": "passes"},
        seen | {"seen": "", "seconds_to_see": None, "skipped": "no engine"},
    ]
    begin, end = "| 429 (a\\|b) | DEGRADED | ", " | none |"
    assert table.markdown(rows).splitlines()[2:] == [
        f"{begin}Log: …/a.log. | 1.2 s{end}",
        f"{begin}**failed** Log: …/a.log. | at once{end}",
        f"{begin}{'word ' * 56}… | 120 s *{end}",
        f"{begin}not run: no engine | {end}",
    ]


def test_the_list_is_that_of_the_table_and_no_name_twice():
    assert len(set(report.FAULTS)) == len(report.FAULTS) == 36
