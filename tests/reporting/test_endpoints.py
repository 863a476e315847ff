from datetime import UTC, datetime, timedelta

from flows.reporting.endpoints import Shown, count_line, endpoints_markdown, uptime_bar
from flows.serving.history import Change, History, Sample
from flows.serving.state import State
from tests.serving.test_probe import endpoint_at

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def a_day(now, good):
    """A check a minute for 24 hours, good where `good(minutes ago)` is."""
    return [
        Sample((now - timedelta(minutes=ago)).timestamp(), 0.2 if good(ago) else None) for ago in range(1439, -1, -1)
    ]


def shown(name="demo", state=State.HEALTHY, why="", history=None, revisions=()):
    endpoint = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"name": name, "revision": 3})
    return Shown(endpoint, state, why, history or History(), list(revisions))


def test_the_bar_is_a_day_in_half_hours():
    assert uptime_bar(History(), NOON) == "·" * 48
    assert uptime_bar(History(samples=a_day(NOON, lambda ago: True)), NOON) == "█" * 48
    last_hour = History(samples=a_day(NOON, lambda ago: ago >= 60))
    assert uptime_bar(last_hour, NOON) == "█" * 46 + "▁" * 2
    half = History(samples=a_day(NOON, lambda ago: ago % 2 == 0))
    assert set(uptime_bar(half, NOON)) == {"▄"}
    later = NOON + timedelta(hours=12)
    assert uptime_bar(last_hour, later) == "█" * 22 + "▁" * 2 + "·" * 24


def test_a_single_miss_is_seen():
    history = History(samples=a_day(NOON, lambda ago: ago != 5))
    assert uptime_bar(history, NOON) == "█" * 47 + "▇"
    assert round(history.uptime, 5) == round(1439 / 1440, 5)


def test_a_day_is_all_that_is_kept():
    history = History(samples=a_day(NOON, lambda ago: True))
    history.add(Sample((NOON + timedelta(hours=1)).timestamp(), 0.5))
    assert len(history.samples) == 1440 - 60 + 1
    for _ in range(300):
        history.change(Change(name="a", at=NOON, what="failed", before=None, after=State.FAILED))
    assert len(history.changes) == 200


def test_the_page_has_all_that_a_person_needs():
    history = History(state=State.HEALTHY, since=NOON, samples=a_day(NOON, lambda ago: ago < 720))
    history.change(Change(name="demo", at=NOON, what="failed", before=None, after=State.FAILED, why="<b> | gone"))
    page = endpoints_markdown([shown(history=history, revisions=[1, 2, 3])], NOON)
    assert "1 endpoint: 1 HEALTHY, 2026-01-02 12:00:00 UTC." in page
    assert f"| **demo** | HEALTHY | 01-02 12:00 | `{'▁' * 24}{'█' * 24}` | 50.0 % | 200 ms | 3 |" in page
    assert "can be rolled back to 1, 2" in page
    assert "curl -s http://127.0.0.1:9/v1/chat/completions" in page
    assert "| 01-02 12:00:00 | failed | &lt;b&gt; \\| gone |" in page


def test_what_is_down_has_no_line_to_ask_it():
    page = endpoints_markdown([shown(state=State.FAILED, why="Process 1 has ended.")], NOON)
    assert "curl" not in page
    assert "**FAILED**: Its process ended without being asked to. Process 1 has ended." in page
    assert "| – |" in page


def test_states_are_counted_in_their_order():
    assert count_line([]) == "0 endpoints"
    three = [shown("a", State.STOPPED), shown("b"), shown("c")]
    assert count_line(three) == "3 endpoints: 2 HEALTHY, 1 STOPPED"
    assert "# Endpoints" in endpoints_markdown([], NOON)
