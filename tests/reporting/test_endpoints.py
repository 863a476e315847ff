import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.reporting.endpoints import Shown, count_line, endpoints_markdown, uptime_bar
from flows.serving.config import ServeConfig
from flows.serving.front.record import FrontRecord
from flows.serving.history import Change, History, Sample
from flows.serving.listing import recorded
from flows.serving.revisions import Revision
from flows.serving.state import State
from tests.serving.test_probe import endpoint_at

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def a_day(now, good):
    """A check a minute for 24 hours, good where `good(minutes ago)` is."""
    times = [((now - timedelta(minutes=ago)).timestamp(), good(ago)) for ago in range(1439, -1, -1)]
    return [Sample(at, 0.2, 40.0) if answered else Sample(at, None) for at, answered in times]


def shown(name="demo", state=State.HEALTHY, why="", history=None, revisions=(), plot=None):
    endpoint = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"name": name, "revision": 3})
    return Shown(endpoint, state, why, history or History(), list(revisions), plot)


def revision(number, again=0, run_url=""):
    model = f"/store/artifacts/model/{'0123456789abcdef' * 4}"
    return Revision(
        number=number, promoted="2026-01-01T10:00:00+00:00", model_dir=model, config=ServeConfig(), again=again,
        run_url=run_url,
    )  # fmt: skip


def test_the_bar_is_a_day_in_hours():
    assert uptime_bar(History(), NOON) == "·" * 24
    assert uptime_bar(History(samples=a_day(NOON, lambda ago: True)), NOON) == "█" * 24
    last_hour = History(samples=a_day(NOON, lambda ago: ago >= 60))
    assert uptime_bar(last_hour, NOON) == "█" * 23 + "▁"
    half = History(samples=a_day(NOON, lambda ago: ago % 2 == 0))
    assert set(uptime_bar(half, NOON)) == {"▄"}
    later = NOON + timedelta(hours=12)
    assert uptime_bar(last_hour, later) == "█" * 11 + "▁" + "·" * 12


def test_a_single_miss_is_seen():
    history = History(samples=a_day(NOON, lambda ago: ago != 5))
    assert uptime_bar(history, NOON) == "█" * 23 + "▇"
    assert round(history.uptime, 5) == round(1439 / 1440, 5)


def test_a_day_is_all_that_is_kept():
    history = History(samples=a_day(NOON, lambda ago: True))
    history.add(Sample((NOON + timedelta(hours=1)).timestamp(), 0.5))
    assert len(history.samples) == 1440 - 60 + 1
    for _ in range(300):
        history.change(Change(name="a", at=NOON, what="failed", before=None, after=State.FAILED))
    assert len(history.changes) == 200


def test_the_page_has_all_that_a_person_needs(tmp_path):
    history = History(state=State.HEALTHY, since=NOON, samples=a_day(NOON, lambda ago: ago < 720))
    history.change(Change(name="demo", at=NOON, what="failed", before=None, after=State.FAILED, why="<b> | gone"))
    plot = tmp_path / "history.png"
    plot.write_bytes(b"png")
    kept = [revision(1), revision(2, run_url="http://ui/runs/flow-run/7"), revision(3, again=1)]
    page = endpoints_markdown([shown(history=history, revisions=kept, plot=plot)], NOON)
    assert "1 endpoint: 1 HEALTHY, 2026-01-02 12:00:00 UTC." in page
    bar = "▁" * 12 + "█" * 12
    assert f"| **demo** | 🟢\N{NO-BREAK SPACE}HEALTHY | `{bar}` | 50.0 % | 200 ms | 40.0 | 3 |" in page
    assert "**HEALTHY** since 01-02 12:00 UTC: " in page
    assert "- last check: 01-02 12:00:00 UTC, answered in 200 ms" in page
    assert "![States and latency of demo, last 24 hours](data:image/png;base64,cG5n)" in page
    assert "curl -s http://127.0.0.1:9/v1/chat/completions \\\n  -H " in page
    assert 'base_url="http://127.0.0.1:9/v1",\n    api_key="none",' in page
    tail = f"`…{revision(1).model_dir[-47:]}`"
    rows = [
        f"| **3** | 2026-01-01 10:00:00 | {tail} | – | serves, revision 1 again |",
        f"| 2 | 2026-01-01 10:00:00 | {tail} | [run](<http://ui/runs/flow-run/7>) |  |",
        f"| 1 | 2026-01-01 10:00:00 | {tail} | – |  |",
    ]
    assert "\n".join(rows) in page
    assert "| 01-02 12:00:00 | failed | &lt;b&gt; \\| gone |" in page


def test_what_answered_others_says_so():
    history = History(samples=[Sample(NOON.timestamp(), None, answered=1234)])
    page = endpoints_markdown([shown(history=history)], NOON)
    assert "- last check: 01-02 12:00:00 UTC, answered real traffic (1,234 since the check before)" in page
    assert "| 100.0 % | – | – |" in page
    assert "UTC, missed" in endpoints_markdown([shown(history=History(samples=[Sample(NOON.timestamp(), None)]))], NOON)


def test_what_is_down_has_no_line_to_ask_it():
    page = endpoints_markdown([shown(state=State.FAILED, why="Process 1 has ended.")], NOON)
    assert "curl" not in page
    assert "**FAILED**: Its process ended without being asked to. Process 1 has ended." in page
    assert "| – |" in page


def test_what_serves_comes_first_and_what_was_stopped_last_and_short():
    states = {"a": State.STOPPED, "b": State.FAILED, "c": State.HEALTHY, "d": State.STOPPED, "e": State.UNHEALTHY}
    page = endpoints_markdown([shown(name, state, revisions=[revision(1)]) for name, state in states.items()], NOON)
    assert re.findall("^## (.)$", page, re.MULTILINE) == ["c", "e", "b", "a", "d"]
    assert re.findall(r"^\| \*\*(.)\*\*", page, re.MULTILINE) == ["c", "e", "b", "a", "d"]
    stopped = page.partition("## a\n")[2].partition("## d\n")[0].strip()
    assert stopped == (
        "**STOPPED**: It was stopped on request.\n\n- revision 3 was /models/a, started 2026-01-01T00:00:00+00:00\n"
        "- kept revisions: 1"
    )


@pytest.mark.parametrize(
    ("state", "minutes", "told"),
    [
        (State.HEALTHY, None, True),
        (State.HEALTHY, 11, True),
        (State.FAILED, 11, True),
        (State.HEALTHY, 10, False),
        (State.STOPPED, None, False),
    ],
)
def test_what_nobody_checks_is_told_with_the_way_to_change_it(state, minutes, told):
    samples = [] if minutes is None else [Sample((NOON - timedelta(minutes=minutes)).timestamp(), 0.2)]
    page = endpoints_markdown([shown(state=state, history=History(samples=samples))], NOON)
    words = "**Not checked in the last 10 minutes:** demo. If nobody watches, switch on the schedule of the deployment"
    assert (words in page) is told


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ("open", ""),
        (
            "token",
            " (needs a token: `issue-token` makes one; the lines below take it from `FINETUNE_ENDPOINT_API_KEY`)",
        ),
    ],
)
def test_that_a_token_is_needed_is_told_beside_the_address(access, words):
    front = FrontRecord(name="demo", folder="/f", port=8080, options={"enabled": True, "access": access})
    one = shown()
    one = replace(one, endpoint=one.endpoint.model_copy(update={"front": front}))
    assert f"- address: http://127.0.0.1:8080/v1{words}\n" in endpoints_markdown([one], NOON)


def test_of_a_damaged_record_only_the_reason_is_told(tmp_path):
    (tmp_path / "demo.json").write_text("{")
    endpoint = recorded(tmp_path, "demo")
    page = endpoints_markdown([Shown(endpoint, endpoint.state, endpoint.why, History(), [])], NOON)
    assert "demo.json is no endpoint record (Invalid JSON" in page
    assert "- last check: none yet by the watcher" in page
    for fact in ("Not checked", "- address", "- model", "- revision", "curl"):
        assert fact not in page


def test_states_are_counted_in_their_order():
    assert count_line([]) == "0 endpoints"
    three = [shown("a", State.STOPPED), shown("b"), shown("c")]
    assert count_line(three) == "3 endpoints: 2 HEALTHY, 1 STOPPED"
    assert "# Endpoints" in endpoints_markdown([], NOON)
