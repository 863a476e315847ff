"""Busy is not stuck, and who has just answered others is not asked: told by what the engine counts of itself."""

import threading

import pytest

from flows.serving import metrics, probe, real_traffic
from flows.serving.history import History, Sample
from flows.serving.metrics import Counters
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from tests.serving.test_probe import endpoint_at
from tests.serving.world import NOON, World

VLLM = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 40.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 40.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 900.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 4.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 100.0
vllm:request_success_total{engine="0",finished_reason="error",model_name="m"} 100.0
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "GENERATION_TIMEOUT_S", 0.4)
    world = World(tmp_path, metrics="/metrics")
    yield world
    stop_endpoint("fake", world.folder)


def test_counters_are_read_by_vllms_names_and_summed_over_its_engines():
    assert metrics.parse(VLLM) == Counters(running=5, steps=40, succeeded=9)
    assert metrics.parse("# TYPE up gauge\nup 1\n") is None
    with pytest.raises(ValueError, match="could not convert"):
        metrics.parse("vllm:num_requests_running many")
    assert metrics.read(endpoint_at("http://127.0.0.1:9/v1")) is None
    deaf = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"metrics_path": "/metrics"})
    assert metrics.read(deaf) is None


@pytest.mark.parametrize(
    ("history", "total", "succeeded"),
    [
        (History(), 9, 0),
        (History(answered=7, samples=[Sample(NOON.timestamp() - 60, 0.1)]), 9, 2),
        (History(answered=9, samples=[Sample(NOON.timestamp() - 60, 0.1)]), 9, 0),
        (History(answered=20, samples=[Sample(NOON.timestamp() - 60, 0.1)]), 9, 0),
        (History(answered=7, samples=[Sample(NOON.timestamp() - 600, 0.1)]), 9, 0),
        (History(answered=7, samples=[Sample(NOON.timestamp() + 60, 0.1)]), 9, 0),
        (History(answered=7, samples=[Sample(NOON.timestamp() - 60, 0.1)]), None, 0),
    ],
    ids=["first check", "two", "none", "server began anew", "too long ago", "clock put back", "not counted"],
)
def test_traffic_counts_only_since_a_check_of_just_now(history, total, succeeded):
    counters = None if total is None else Counters(0, 0, total)
    assert real_traffic.succeeded_since(history, counters, NOON) == succeeded


def test_what_works_on_other_requests_is_degraded_and_never_unhealthy(world):
    world.start()
    world.watch()
    world.flags(delay_s=2, steps=50)
    assert world.watch() == ["degraded"]
    assert "Busy, not stuck: running requests 1, steps of its engine meanwhile 50." in world.history.why
    for _ in range(4):
        assert world.watch() == []
    assert (world.state, world.history.misses) == (State.DEGRADED, 0)
    world.flags()
    assert world.watch() == ["healthy"]


def test_what_is_busy_now_and_then_is_not_held_for_flapping(world):
    world.start()
    world.watch()
    seen = []
    for busy in [True, False] * 4:
        world.flags(**({"delay_s": 0.6, "steps": 50} if busy else {}))
        seen += world.watch(10)
    assert seen == ["degraded", "healthy"] * 4


def test_an_engine_that_stands_still_with_requests_is_unhealthy_at_the_threshold(world):
    world.start()
    world.watch()
    world.flags(delay_s=2)
    assert [world.watch(), world.watch(), world.watch()] == [[], ["degraded"], ["unhealthy"]]
    assert world.history.why.startswith("Stuck, not busy: running requests 3, steps of its engine meanwhile 0.")


def test_without_metrics_a_late_answer_is_a_miss_as_before(world):
    world.config = world.config.model_copy(
        update={"command": world.config.command.model_copy(update={"metrics_path": ""})}
    )
    world.start()
    world.watch()
    world.flags(delay_s=2, steps=50)
    assert [world.watch(), world.watch(), world.watch()] == [[], ["degraded"], ["unhealthy"]]
    assert "Busy" not in world.history.why


def test_under_load_no_question_of_the_watcher_is_sent(world):
    world.start()
    world.watch()
    probes = world.seen()["probes"]
    over = threading.Event()

    def load():
        while not over.is_set():
            world.ask()

    users = [threading.Thread(target=load) for _ in range(8)]
    for user in users:
        user.start()
    try:
        for _ in range(5):
            others = world.seen()["good"]
            while world.seen()["good"] == others:
                pass
            assert world.watch() == []
    finally:
        over.set()
        for user in users:
            user.join()
    assert world.seen()["probes"] == probes
    assert world.state is State.HEALTHY
    assert all(sample.answered > 0 and sample.latency_s is None for sample in world.history.samples[1:])
    assert world.history.uptime == 1

    world.watch()  # counts what came after the pass before
    world.watch()
    assert world.seen()["probes"] == probes + 1, "without traffic it is asked again"
    assert world.history.samples[-1].tokens_per_s > 0


def test_its_own_questions_are_not_taken_for_traffic(world):
    world.start()
    for _ in range(4):
        world.watch()
    assert world.seen()["probes"] == 2 + 4, "the start's, the last before its name moves, and one a pass"


def test_the_cheap_questions_are_asked_though_others_were_answered(world):
    world.start()
    world.watch()
    world.ask()
    world.flags(health=503)
    assert world.watch() == ["unhealthy"]
    world.flags()
    probes = world.seen()["probes"]
    world.ask()
    assert world.watch() == []
    assert world.seen()["probes"] == probes + 1, "what was unhealthy must answer us"
    world.ask()
    assert world.watch() == ["healthy"]
