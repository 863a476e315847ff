"""The watcher: real server processes, real faults, and a clock that is only a number."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from flows.errors import ServingError
from flows.serving import listing, records, revisions
from flows.serving.restarts import MOST_RESTARTS, backoff
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import process
from flows.serving.start import restart
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.watch import watch
from flows.serving.watch_options import WatchOptions
from tests.serving.world import NOON, World

watch_module = sys.modules["flows.serving.watch"]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    stop_endpoint("fake", world.folder)


def test_nothing_to_watch_is_no_change(tmp_path):
    assert watch(tmp_path / "none", NOON) == []


def test_an_endpoint_is_adopted_and_quiet_passes_change_nothing_but_its_samples(world):
    endpoint = world.start()
    [promoted, healthy] = watch(world.folder, world.now)
    assert (promoted.what, promoted.revision, healthy.what, healthy.before) == ("promoted", 1, "healthy", None)
    assert world.watch() == []
    assert world.watch() == []
    assert records.load(world.folder, "fake") == endpoint
    assert [sample.at for sample in world.history.samples] == [NOON.timestamp() + 60 * n for n in range(3)]
    assert world.history.uptime == 1
    assert 0 < world.history.latency_s < 5


def test_what_happened_before_a_pass_has_its_own_time(world):
    world.start()
    stop_endpoint("fake", world.folder)
    stopped = records.stopped_at(world.folder, "fake") / 1e9
    world.now = datetime.now(UTC) + timedelta(hours=1)
    assert world.watch() == ["promoted", "stopped"]
    moved, ended = world.history.changes
    assert moved.at == datetime.fromisoformat(revisions.load(world.folder, "fake", 1).promoted)
    assert (ended.at, world.history.since) == (datetime.fromtimestamp(stopped, UTC),) * 2


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        ({"health": 500}, ["HEALTHY", "DEGRADED", "UNHEALTHY", "UNHEALTHY"]),
        ({"chat": 500}, ["HEALTHY", "UNHEALTHY"]),
        ({"health": 503}, ["UNHEALTHY"]),
        ({"models": "another"}, ["UNHEALTHY"]),
    ],
    ids=str,
)
def test_misses_are_counted_and_two_good_checks_make_it_good_again(world, fault, states):
    world.start()
    world.watch()
    world.flags(**fault)
    seen = []
    for _ in states:
        world.watch()
        seen.append(world.state.value)
    assert seen == states
    assert world.history.samples[-1].latency_s is None
    world.flags()
    assert world.watch() == []
    assert "one more good check" in world.history.why
    assert world.watch() == ["healthy"]
    assert world.history.why == ""


def test_looks_that_break_off_are_misses_until_it_is_unhealthy(world, monkeypatch):
    world.start()
    world.watch()
    monkeypatch.setattr("flows.serving.watch._heal_front", lambda *_: {}["nothing"])
    assert [world.watch() for _ in range(4)] == [[], ["degraded"], ["unhealthy"], []]
    assert world.history.why == "The look at it broke off (KeyError: 'nothing')."
    assert len(world.history.samples) == 5
    monkeypatch.undo()
    assert world.watch() + world.watch() == ["healthy"]


def test_a_look_that_hangs_or_breaks_keeps_no_change_of_another_back(world, monkeypatch, caplog):
    world.start()
    for name in ("broken", "hung"):
        records.save(world.folder, records.load(world.folder, "fake").model_copy(update={"name": name}))
    look, free = watch_module._watch_one, threading.Event()
    odd = {"hung": free.wait, "broken": lambda: int("many")}
    monkeypatch.setattr(watch_module, "_watch_one", lambda *a: odd[a[3]]() if a[3] in odd else look(*a))
    monkeypatch.setattr(watch_module, "LONGEST_LOOK_S", 2)
    try:
        assert world.watch() == ["promoted", "healthy"]
    finally:
        free.set()
    assert "hung: the look at it did not end in 2 s" in caplog.text
    assert "broken: the look at it broke off (invalid literal" in caplog.text
    for name in odd:
        records.delete(world.folder, name)


def test_one_good_check_ends_a_degradation(world):
    world.start()
    world.watch()
    world.flags(health=500)
    assert world.watch() == []
    assert "Check missed 1 of 3 times: GET" in world.history.why
    assert world.watch() == ["degraded"]
    world.flags()
    assert world.watch() == ["healthy"]


@pytest.mark.fault(
    "flapping endpoint",
    expected="UNHEALTHY and held so after 4 changes in 10 minutes, for 30 s, 60 s ... 300 s",
    action="no further events until then; HEALTHY again when it answers after the hold",
)
def test_what_goes_up_and_down_is_held_down(world, seen):
    world.start()
    world.watch()
    for what in (["unhealthy"], ["healthy"], ["unhealthy"], ["healthy"]):
        world.flags(**({"health": 503} if what == ["unhealthy"] else {}))
        world.watch(10)
        if what == ["healthy"]:
            world.watch(10)
        assert world.state.value.lower() == what[0]
    world.flags(health=503)
    assert world.watch(10) == ["unhealthy"]
    assert "up and down more than 4 times" in world.history.why
    seen(world.history, passes_s=70)
    world.flags()
    assert world.watch(10) == world.watch(10) == []
    assert world.state is State.UNHEALTHY
    assert world.watch(11) == ["healthy"]


def test_a_failed_server_is_started_again_with_longer_and_longer_pauses_until_it_is_given_up(world):
    first = world.start()
    world.watch()
    world.file.write_text('{"die": true}')
    world.kill()
    pauses = []
    for number in range(1, MOST_RESTARTS + 1):
        assert world.watch(1) == ["failed"]
        pauses.append((world.history.restart_at - world.now).total_seconds())
        assert f"It is started again in {pauses[-1]:.0f} s." in world.history.why
        assert world.watch(pauses[-1] - 1) == []
        assert world.watch(1) == ["starting"]
        assert world.history.restarts == number
        world.wait_for_server()
    assert pauses == [10, 20, 40, 80, 160]
    assert world.watch(1) == ["failed"]
    assert world.history.why.startswith("Gave up after 5 restarts. Serve it again")
    assert "Cause: out of memory" in world.history.why
    assert world.watch(3600) == []
    assert world.state is State.FAILED
    assert not process.port_served(first.port)

    # A person starts it again: all is as new.
    world.flags()
    world.start()
    assert world.watch() == ["healthy"]
    assert world.history.restarts == 0


def test_pauses_are_capped():
    assert [backoff(n).total_seconds() for n in (1, 2, 5, 6, 20)] == [10, 20, 160, 300, 300]


@pytest.mark.fault(
    "kill -9 of the server",
    on="a process",
    expected="FAILED at the next pass",
    action="started again after 10 s, 20 s ... 160 s, same address and revision; given up after 5",
)
def test_a_restarted_server_has_its_address_its_revision_and_after_ten_good_minutes_a_clean_slate(world, seen):
    first = world.start()
    world.watch()
    world.kill()
    assert world.watch() == ["failed"]
    seen(world.history, passes_s=60)
    assert listing.list_records(world.folder)[0].state is State.FAILED
    assert world.watch() == ["starting"]
    world.wait_for_server()
    assert [e.state for e in listing.list_records(world.folder)] == [State.HEALTHY]
    assert world.watch() == ["healthy"]
    again = records.load(world.folder, "fake")
    assert (again.url, again.revision, again.state, again.model) == (first.url, 1, State.HEALTHY, "fake")
    assert again.process != first.process
    world.watch(599)
    assert world.history.restarts == 1
    world.watch(1)
    assert world.history.restarts == 0


def test_a_server_that_does_not_answer_within_its_budget_has_failed_and_is_ended(world):
    world.start()
    world.watch()
    world.kill()
    world.watch()
    world.flags(health=503)
    assert world.watch() == ["starting"]
    world.wait_for_server()
    assert world.watch(29) == []
    assert listing.list_records(world.folder)[0].state is State.STARTING
    assert world.watch(1) == ["failed"]
    assert "not healthy within its startup budget" in world.history.why
    assert not process.alive(records.load(world.folder, "fake").process)


def test_a_model_that_is_gone_is_told_at_every_try(world):
    world.start()
    world.watch()
    world.kill()
    world.model.rmdir()
    world.watch()
    assert world.watch() == []
    assert f"It could not be started again: Cannot serve {world.model}" in world.history.why
    assert world.history.restarts == 1
    for _ in range(MOST_RESTARTS):
        world.watch(300)
    assert world.history.why.startswith("Gave up")


def test_a_stopped_endpoint_stays_stopped(world):
    endpoint = world.start()
    world.watch()
    stop_endpoint("fake", world.folder)
    assert world.watch() == ["stopped"]
    assert world.watch(3600) == []
    assert not process.port_served(endpoint.port)
    assert len(world.history.samples) == 1


def test_a_failed_one_that_a_person_stops_is_not_started_again(world):
    world.start()
    world.watch()
    world.kill()
    assert world.watch(1) == ["failed"]
    stop_endpoint("fake", world.folder)
    assert world.watch() == ["stopped"]
    assert world.watch() == []


def test_a_stop_that_was_killed_is_finished(world):
    endpoint = world.start()
    world.watch()
    records.save(world.folder, endpoint.model_copy(update={"state": State.DRAINING}))
    with records.starting(world.folder, "fake"):
        assert world.watch() == ["draining"]
    assert process.alive(endpoint.process)
    assert world.watch() == ["stopped"]
    assert not process.alive(endpoint.process)


@pytest.mark.fault(
    "machine restart",
    expected="FAILED at the first pass, with that reason",
    action="started again 10 s later; a process that has the old pid by now is not touched",
)
def test_after_a_restart_of_the_machine_all_servers_are_started_again(world, seen):
    endpoint = world.start()
    world.watch()
    old = endpoint.process.model_copy(update={"boot_id": "another-boot"})
    stop_endpoint("fake", world.folder)
    records.save(world.folder, endpoint.model_copy(update={"process": old}))
    assert world.watch() == ["failed"]
    assert "The machine was started again since." in world.history.why
    seen(world.history, passes_s=60)
    assert world.watch() == ["starting"]
    world.wait_for_server()
    assert world.watch() == ["healthy"]


@pytest.mark.fault(
    "clock jump",
    on="2 h back, a restart is due",
    expected="STARTING at the next pass: the restart does not wait 2 h",
    action="samples from the future are dropped",
)
def test_a_clock_that_was_put_back_delays_nothing(world, seen):
    world.start()
    world.watch()
    world.kill()
    world.watch()
    assert world.watch(-7200) == ["starting"]
    seen(world.history, passes_s=60)
    world.wait_for_server()
    world.watch()
    assert all(sample.at <= world.now.timestamp() for sample in world.history.samples)


def test_a_watcher_that_lost_its_memory_adopts_what_it_finds(world):
    world.start()
    world.watch()
    world.kill()
    world.watch()
    assert world.watch() == ["starting"]
    (world.folder / "fake" / "history.json").write_text("torn")
    world.wait_for_server()
    assert world.watch() == ["promoted", "healthy"]


def test_a_promotion_between_two_passes_is_told(world):
    world.start()
    world.watch()
    world.start(threads=2)
    assert world.watch() == ["promoted", "healthy"]
    assert world.history.revision == 2


def test_what_a_killed_start_left_is_swept_and_one_under_way_is_not(world):
    serving = world.start()
    code = "import time; time.sleep(600)"
    orphan = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    own = {"pid": orphan.pid, "start_ticks": process._stat(orphan.pid)[2], "log": f"{serving.log}.next"}
    record = serving.process.model_copy(update=own)  # every start has a log of its own
    left = serving.model_copy(update={"name": "fake.next", "state": State.STARTING, "process": record})
    records.save(world.folder, left)
    records.save(world.folder, left.model_copy(update={"name": "gone.next", "port": 9, "process": record}))
    with records.promoting(world.folder, "fake"), records.starting(world.folder, "gone"):
        world.watch()
        assert records.names(world.folder) == ["fake", "fake.next", "gone.next"]
    orphan.kill()
    orphan.wait()
    world.watch()
    assert records.names(world.folder) == ["fake"]
    assert process.alive(serving.process)


def test_a_damaged_record_is_told_once_and_does_not_end_the_pass(world):
    world.start()
    (world.folder / "broken.json").write_text("{}")
    changes = watch(world.folder, NOON)
    assert [(change.name, change.what) for change in changes] == [
        ("broken", "failed"),
        ("fake", "promoted"),
        ("fake", "healthy"),
    ]
    assert "is no endpoint record" in changes[0].why
    assert world.watch() == []


def test_a_record_that_changed_under_the_check_is_left_for_the_next_pass(world):
    """A stop or a promotion while the watcher waits for an answer must not be taken for a failure."""
    endpoint = world.start()
    world.watch()
    world.flags(delay_s=1)
    watcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from datetime import *; from flows.serving.watch import watch\n"
            f"print([c.what for c in watch(Path({str(world.folder)!r}), datetime.now(UTC))])",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not connections(endpoint.process.pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    stop_endpoint("fake", world.folder)
    assert watcher.communicate()[0] == "[]\n"
    assert world.watch() == ["stopped"]


def connections(pid):
    return [c for c in psutil.Process(pid).net_connections("tcp") if c.status == "ESTABLISHED"]


def test_restart_needs_a_revision(world):
    endpoint = world.start()
    (world.folder / "fake" / "revisions" / "1.json").unlink()
    with pytest.raises(ServingError, match=r"Revision 1 of fake is not kept\. Kept are: none\."):
        restart(endpoint, world.folder)


def test_a_pass_ends_what_runs_without_a_record(world):
    endpoint = world.start()
    world.watch()
    records.delete(world.folder, "fake")
    with records.starting(world.folder, "fake"):
        world.watch()
        assert process.alive(endpoint.process)
    world.watch()
    assert not process.alive(endpoint.process)


def hang(world):
    """The server stops where it is, as a hung engine does: it lives, its port is open, nobody answers."""
    endpoint = records.load(world.folder, "fake")
    records.save(world.folder, endpoint.model_copy(update={"ready_timeout_s": 0.2}))
    os.kill(endpoint.process.pid, signal.SIGSTOP)
    return endpoint


def watched(**options):
    return {"watch": WatchOptions(**options)}


def test_what_hangs_is_left_alone_unless_its_settings_say_otherwise(world):
    world.start()
    world.watch()
    endpoint = hang(world)
    for _ in range(3):
        world.watch()
    assert world.state is State.UNHEALTHY
    assert world.watch(86400) == []
    assert process.alive(endpoint.process)
    os.kill(endpoint.process.pid, signal.SIGCONT)  # so that it ends at once


def test_what_hangs_for_too_long_is_ended_and_started_again(world):
    world.start(**watched(restart_unhealthy_after_s=120))
    world.watch()
    endpoint = hang(world)
    assert [world.watch(), world.watch(), world.watch()] == [[], ["degraded"], ["unhealthy"]]
    assert world.watch(119) == []
    assert process.alive(endpoint.process)
    assert world.watch(1) == ["failed"]
    assert not process.alive(endpoint.process)
    assert world.watch(10) == ["starting"]
    world.wait_for_server()
    assert world.watch() == ["healthy"]


def test_what_is_unhealthy_again_and_again_is_started_again_with_pauses_until_it_is_given_up(world):
    world.start(**watched(restart_unhealthy_after_s=120))
    world.watch()
    for restarts in range(MOST_RESTARTS + 1):
        world.flags(health=503)
        assert world.watch() == ["unhealthy"]
        assert world.watch(119) == []
        assert world.watch(1) == ["failed"]
        if restarts == MOST_RESTARTS:
            break
        assert world.history.why.startswith("It lived but was UNHEALTHY for 120 s (serve.watch.restart_unhealthy_")
        assert (world.history.restart_at - world.now).total_seconds() == 10 * 2**restarts
        assert world.watch(10 * 2**restarts) == ["starting"]
        world.flags()
        world.wait_for_server()
        assert world.watch() == ["healthy"]
    assert world.history.why.startswith("Gave up after 5 restarts.")
    assert world.history.changes[-1].gave_up
    assert not world.history.changes[-1].roll_back
    assert world.watch(3600) == []


def test_how_it_is_watched_can_be_changed_without_a_restart(world):
    first = world.start()
    again = world.start(**watched(restart_unhealthy_after_s=60))
    assert (again.process, again.revision) == (first.process, 1)
    assert records.load(world.folder, "fake").watch.restart_unhealthy_after_s == 60
    world.watch()
    world.kill()
    world.watch()
    assert world.watch() == ["starting"]
    assert records.load(world.folder, "fake").watch.restart_unhealthy_after_s == 60


@pytest.mark.parametrize(
    ("starts", "back"),
    [
        ([watched(roll_back_when_given_up=True)], False),
        ([{}, watched(roll_back_when_given_up=True) | {"threads": 2}], True),
        ([watched(roll_back_when_given_up=True), {"threads": 2}], False),
    ],
    ids=["no revision before", "one before", "switched off"],
)
def test_giving_up_asks_for_the_revision_before_if_there_is_one_and_the_settings_say_so(world, starts, back):
    for changes in starts:
        world.start(**changes)
    world.watch()
    assert give_up(world).roll_back is back


def give_up(world):
    """The server ends and so do all that are started for it; the last change."""
    world.file.write_text('{"die": true}')
    world.kill()
    for _ in range(MOST_RESTARTS):
        world.watch(300)
        world.watch(300)
        world.wait_for_server()
    world.watch(300)
    last = world.history.changes[-1]
    assert last.gave_up
    return last


def test_a_roll_back_that_fails_too_asks_for_none(world):
    world.start(**watched(roll_back_when_given_up=True))
    world.start(**watched(roll_back_when_given_up=True), threads=2)
    world.watch()
    assert give_up(world).roll_back
    world.file.unlink()
    roll_back("fake", world.folder)
    assert world.watch() == ["rolled-back", "healthy"]
    assert world.history.revision == 3
    assert not give_up(world).roll_back, "two bad revisions must not take turns"
