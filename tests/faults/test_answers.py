"""Servers that live and answer wrongly, late or only sometimes: what the watcher makes of them, a pass a minute."""

import pytest

from flows.serving import probe
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.thresholds import PASSES_AFTER_LAPSES
from tests.serving.world import World

LEFT = "it is left running: stop it, or roll it back"


def watched(world):
    world.start()
    assert world.watch() == ["promoted", "healthy"]
    return world


def until(world, state):
    """Passes a minute apart until the state is that; how long that took, by their clock."""
    for passes in range(1, 10):
        world.watch()
        if world.state is state:
            return 60 * passes
    raise AssertionError(f"{world.state} after {passes} passes: {world.history.why}")


@pytest.mark.fault(
    "200 with garbage", expected="UNHEALTHY at the second wrong answer", action=f"event endpoint.unhealthy; {LEFT}"
)
@pytest.mark.parametrize(
    "text", ["<html>Bad gateway</html>", '{"choices": []}', "\x00" * 40], ids=["a page", "no choice", "zeros"]
)
def test_garbage_is_no_answer(world, seen, text):
    watched(world).flags(text=text)
    seconds = until(world, State.UNHEALTHY)
    assert "answered no completion" in world.history.why
    seen(world.history, seconds)
    assert seconds == 120


@pytest.mark.fault(
    "429",
    expected="DEGRADED at the second pass, UNHEALTHY at the third",
    action="events endpoint.degraded and endpoint.unhealthy; it is left running",
)
def test_a_server_that_refuses_everybody_for_having_too_much_to_do(world, seen):
    watched(world).flags(chat=429)
    assert [world.watch(), world.watch(), world.watch()] == [[], ["degraded"], ["unhealthy"]]
    assert "/chat/completions answered 429" in world.history.why
    seen(world.history, 180)
    world.flags()
    assert until(world, State.HEALTHY) == 120


@pytest.mark.fault(
    "429",
    on="its engine is at work",
    expected="DEGRADED, never worse, for as long as that lasts",
    action="event endpoint.degraded",
)
def test_a_server_that_refuses_us_because_it_is_at_work_is_only_degraded(tmp_path, seen):
    world = World(tmp_path, metrics="/metrics")
    try:
        watched(world).flags(chat=429, running=3)
        assert world.watch() == ["degraded"]
        assert [world.watch() for _ in range(5)] == [[]] * 5
        assert world.history.why.startswith("Busy: running requests 3. POST ")
        seen(world.history, 60)
    finally:
        stop_endpoint("fake", world.folder)


@pytest.mark.fault(
    "500 in 1 of 5",
    expected="DEGRADED at the second such answer, and for as long as it lasts: no up and down",
    action="one event endpoint.degraded; HEALTHY again after 15 good checks",
)
def test_what_fails_once_in_five_times_is_degraded_and_does_not_flap(world, seen):
    watched(world).flags(chat=500, every=5)
    seconds = until(world, State.DEGRADED)
    assert seconds <= 600
    assert [world.watch() for _ in range(25)] == [[]] * 25
    assert world.history.why.startswith("It misses checks again and again, ")
    seen(world.history, seconds)
    assert sum(not sample.good for sample in world.history.samples) >= 5

    world.flags()
    while world.history.passes < PASSES_AFTER_LAPSES - 1:
        assert world.watch() == []
    assert world.watch() == ["healthy"]
    world.flags(chat=500, every=1)
    assert world.watch() == [], "what was mended has the usual patience again"


@pytest.mark.fault(
    "500 in 1 of 5",
    on="while others are answered",
    expected="DEGRADED for as long as it lasts: the other four answers do not hide it",
    action="one event endpoint.degraded",
)
def test_the_answers_that_others_get_do_not_hide_that_some_fail(tmp_path, seen):
    world = World(tmp_path, metrics="/metrics")
    try:
        watched(world).flags(chat=500, every=5)
        seconds = until(world, State.DEGRADED)
        probes = world.seen()["probes"]
        for _ in range(20):
            world.ask()
            assert world.watch() == []
        assert world.seen()["probes"] == probes + 20
        seen(world.history, seconds)
    finally:
        stop_endpoint("fake", world.folder)


@pytest.mark.fault(
    "an answer after 60 s",
    on="none within the check's limit",
    expected="DEGRADED at the second pass, UNHEALTHY at the third",
    action="events endpoint.degraded and endpoint.unhealthy; it is left running",
)
def test_an_answer_that_comes_too_late_is_none(world, seen, monkeypatch):
    monkeypatch.setattr(probe, "GENERATION_TIMEOUT_S", 0.2)
    watched(world).flags(delay_s=60)
    assert [world.watch(), world.watch(), world.watch()] == [[], ["degraded"], ["unhealthy"]]
    assert world.history.why.startswith("No answer within 0.2 s from ")
    seen(world.history, 180)


@pytest.mark.fault(
    "the wrong model behind the port",
    expected="UNHEALTHY at the next pass",
    action=f"event endpoint.unhealthy; {LEFT}",
)
def test_another_model_is_seen_at_once(world, seen):
    watched(world).flags(models="another")
    seen.begin()
    assert world.watch() == ["unhealthy"]
    seen(world.history, 60)
    assert world.history.why == "It serves another, not fake."
