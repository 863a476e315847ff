"""The watcher's own faults: killed in mid-pass, and a clock that is set anew under it."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from flows.serving import history, records
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.variants.common import CHECKOUT
from flows.serving.watch import watch

# A pass in a process of its own, which dies where it is told to.
PASS = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from flows.serving import history, watch

def die(*_):
    print("here", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[3] == "history":
    history.save = die
watch.watch(Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]))
"""


def pass_of_its_own(world, dies=""):
    world.now += timedelta(seconds=60)
    command = [sys.executable, "-c", PASS, str(world.folder), world.now.isoformat(), dies]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


@pytest.mark.fault(
    "kill -9 of the watcher",
    on="while it waits for an answer",
    expected="no change; the next pass goes on",
    action="nothing is lost but that check",
)
def test_killed_while_it_waits_for_an_answer(world, seen):
    endpoint = world.start()
    world.watch()
    before, probes = world.history, world.seen()["probes"]
    world.flags(delay_s=20)
    watcher = pass_of_its_own(world)
    deadline = time.monotonic() + 30
    while world.seen()["probes"] == probes:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seen.begin()
    watcher.kill()
    watcher.communicate()
    assert watcher.returncode == -signal.SIGKILL
    assert world.history == before
    world.flags()
    assert world.watch() == []
    assert world.state is State.HEALTHY
    seen(records.load(world.folder, "fake"), passes_s=60)
    assert records.load(world.folder, "fake") == endpoint
    assert len(world.history.samples) == len(before.samples) + 1


@pytest.mark.fault(
    "kill -9 of the watcher",
    on="when it has just started a server again",
    expected="the next pass adopts that server: HEALTHY, no second one",
    action="the pass after goes on from the record",
)
def test_killed_when_it_has_just_started_a_server_again(world, seen):
    world.start()
    world.watch()
    world.kill()
    assert world.watch() == ["failed"]
    watcher = pass_of_its_own(world, dies="history")
    assert watcher.communicate()[0] == "here\n"
    assert watcher.returncode == -signal.SIGKILL
    assert world.state is State.FAILED, "it could not write down what it did"
    started = records.load(world.folder, "fake")
    assert started.state is State.STARTING
    world.wait_for_server()
    assert world.watch() == ["healthy"]
    seen(world.history, passes_s=60)
    assert records.load(world.folder, "fake").process == started.process
    assert [record.pid for _, record in process.list_owned(world.folder)] == [started.process.pid]
    assert not list(world.folder.glob(".*.json.*")), "no half-written record is left"


def jump(hours, words):
    mark = pytest.mark.fault(
        "clock jump",
        on=f"2 h {words}, a start is under way",
        expected="STARTING: the jump is none of its startup budget",
        action="HEALTHY when it answers; FAILED when the budget is really over",
    )
    return pytest.param(3600 * hours, marks=mark, id=words)


@pytest.mark.parametrize("jump", [jump(2, "ahead"), jump(-2, "back")])
def test_a_clock_that_is_set_anew_neither_cuts_nor_stretches_a_startup_budget(world, jump, seen):
    world.start()
    world.watch()
    world.kill()
    world.watch()
    world.flags(health=503)
    assert world.watch() == ["starting"]
    world.wait_for_server()
    assert world.watch(jump) == []
    assert world.state is State.STARTING
    seen(world.history, passes_s=60)
    assert world.watch(29) == []
    assert world.watch(1) == ["failed"], "30 s, the budget, in which somebody looked"
    assert "not healthy within its startup budget" in world.history.why


def test_a_watcher_that_looks_seldom_ends_what_does_not_start_too(world):
    world.start()
    for seconds in (60, 1800, 1800):
        world.watch(seconds)
    world.kill()
    assert [world.watch(1800), world.watch(1800)] == [["failed"], ["starting"]]
    world.flags(health=503)
    world.wait_for_server()
    assert world.watch(1800) == ["failed"]
    assert "not healthy within its startup budget" in world.history.why


@pytest.mark.fault(
    "clock jump",
    on="2 h ahead",
    expected="HEALTHY, no change",
    action="the hours without checks are a gap in the bar, not a time of failure",
)
def test_a_clock_that_is_put_ahead_changes_nothing(world, seen):
    world.start()
    world.watch()
    assert world.watch(7200) == []
    seen(world.history, passes_s=60)
    assert world.state is State.HEALTHY
    assert world.history.uptime == 1
    assert [share for share in world.history.shares(world.now, 24) if share is not None] == [1, 1]


def test_a_pass_of_its_own_is_the_real_one(world):
    world.start()
    watcher = pass_of_its_own(world)
    assert watcher.wait(60) == 0
    assert history.load(world.folder, "fake").state is State.HEALTHY
    assert os.path.exists(world.folder / "fake" / "history.json")


@pytest.mark.fault(
    "disk full in the cache",
    on="the disk of the store",
    expected="FAILED at the next pass; the pass ends well though it can write nothing",
    action="started again at the pass after there is room",
)
def test_a_full_disk_of_the_store_ends_no_pass(small_disk, world, seen, caplog):
    world.folder = small_disk / "endpoints"
    world.start()
    assert world.watch() == ["promoted", "healthy"]
    world.kill()
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    for _ in range(3):
        assert world.watch() == ["failed"], "it cannot be written down, so it is told again"
    [change] = watch(world.folder, world.now)
    seen(f"{change.after.value}. {change.why}", passes_s=60)
    assert "its history could not be written ([Errno 28] No space left on device)" in caplog.text
    assert records.load(world.folder, "fake").state is State.HEALTHY, "the record is whole"
    with pytest.raises(OSError, match="No space left"):
        records.save(world.folder, records.load(world.folder, "fake").model_copy(update={"name": "more"}))
    assert not list(world.folder.rglob(".*.json.*")), "nothing half-written is left"
    filler.unlink()
    assert world.watch() == ["failed"]
    world.watch()
    world.wait_for_server()
    assert world.watch() == ["healthy"]


@pytest.mark.fault(
    "disk full in the cache",
    on="the disk of the store, a restart is due",
    expected="FAILED: it could not be started again, with the reason",
    action="tried again after the next pause; nothing runs meanwhile",
)
def test_a_restart_that_a_full_disk_prevents_is_told(small_disk, world, seen, monkeypatch):
    world.folder = small_disk / "endpoints"
    world.start()
    world.watch()
    world.kill()
    assert world.watch() == ["failed"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "save", full)
        assert world.watch() == []
    seen(world.history, passes_s=60)
    assert world.history.why.startswith("It could not be started again: [Errno 28] No space left on device. It is ")
    assert process.list_owned(world.folder) == []
    assert world.watch() == ["starting"]
    world.wait_for_server()
    assert world.watch() == ["healthy"]
