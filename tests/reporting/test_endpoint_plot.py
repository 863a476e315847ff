from datetime import UTC, datetime, timedelta

from matplotlib.image import imread

from flows.reporting.endpoint_plot import COLOURS, Span, history_plot, spans
from flows.serving.history import Change, History, Sample
from flows.serving.state import State

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


def ago(minutes):
    return NOON - timedelta(minutes=minutes)


def history(*moves, checks=range(1440, -1, -1), state=None):
    """States at minutes ago, oldest first, and good checks."""
    changes, before = [], state
    for minutes, after in moves:
        what = after.value.lower()
        changes.append(Change(name="a", at=ago(minutes), what=what, before=before, after=after))
        before = after
    return History(state=before, changes=changes, samples=[Sample(ago(m).timestamp(), 0.1) for m in checks])


def test_states_follow_one_another():
    past = history((2000, State.HEALTHY), (60, State.UNHEALTHY), (30, State.HEALTHY))
    assert spans(past, NOON) == [
        Span(NOON - DAY, ago(60), State.HEALTHY),
        Span(ago(60), ago(30), State.UNHEALTHY),
        Span(ago(30), NOON, State.HEALTHY),
    ]


def test_what_has_not_changed_for_longer_than_it_is_remembered_has_one_state():
    assert spans(history(state=State.HEALTHY), NOON) == [Span(NOON - DAY, NOON, State.HEALTHY)]


def test_a_promotion_is_no_change_of_state():
    past = history(state=State.HEALTHY)
    past.change(Change(name="a", at=ago(60), what="promoted", before=State.HEALTHY, after=State.HEALTHY))
    assert spans(past, NOON) == [Span(NOON - DAY, NOON, State.HEALTHY)]


def test_where_nobody_checked_nothing_is_known():
    past = history((100, State.HEALTHY), checks=[*range(100, 60, -1), *range(20, -1, -1)])
    assert spans(past, NOON) == [
        Span(NOON - DAY, ago(100), None),
        Span(ago(100), ago(56), State.HEALTHY),
        Span(ago(56), ago(20), None),
        Span(ago(20), NOON, State.HEALTHY),
    ]


def test_what_was_stopped_needs_no_check():
    past = history((1500, State.HEALTHY), (60, State.STOPPED), checks=range(1440, 60, -1))
    assert spans(past, NOON) == [
        Span(NOON - DAY, ago(60), State.HEALTHY),
        Span(ago(60), NOON, State.STOPPED),
    ]


def test_the_picture_is_small_and_shows_the_states_colours(tmp_path):
    past = history((2000, State.HEALTHY), (720, State.UNHEALTHY))
    path = history_plot(past, NOON, tmp_path / "history.png")
    assert path.stat().st_size < 40_000
    pixels = imread(path)
    height, width = pixels.shape[:2]
    row = pixels[int(height * 0.235)]
    for state, place in ((State.HEALTHY, 0.3), (State.UNHEALTHY, 0.8)):
        seen = "#" + "".join(f"{round(255 * part):02X}" for part in row[int(width * place)][:3])
        assert seen == COLOURS[state]


def test_every_state_that_can_be_shown_has_a_colour():
    assert set(COLOURS) == set(State) - {State.PENDING}
