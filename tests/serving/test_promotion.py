"""What happens to a name while it is being moved: its servers die, a person stops it, the disk is full."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import promotion as promotions
from flows.serving import records, revisions
from flows.serving.promotion import Promotion
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from tests.serving.world import World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    stop_endpoint("fake", world.folder)
    assert process.list_owned(world.folder) == []


def moving(world):
    """A promotion of another server."""
    return Promotion(world.config.model_copy(update={"environment": ["OTHER=1"]}), world.model, world.folder)


def kill(endpoint):
    os.kill(endpoint.process.pid, signal.SIGKILL)
    assert process.wait_until(
        lambda: not process.alive(endpoint.process) and not process.port_served(endpoint.port), 10
    )


def test_a_candidate_that_died_while_it_was_checked_does_not_get_the_name(world):
    current = world.start()
    with moving(world) as promotion:
        kill(promotion.start(silent))
        with pytest.raises(ServingError, match="The candidate does not answer any more, so the name stays."):
            promotion.commit()
    assert records.names(world.folder) == ["fake"]
    assert records.load(world.folder, "fake") == current
    assert revisions.numbers(world.folder, "fake") == [1]
    assert process.alive(current.process)


def test_what_is_stopped_meanwhile_stays_stopped(world):
    world.start()
    with moving(world) as promotion:
        candidate = promotion.start(silent)
        assert stop_endpoint("fake", world.folder).state is State.STOPPED
        with pytest.raises(ServingError, match="fake was stopped while its candidate was checked"):
            promotion.commit()
    assert not process.alive(candidate.process)
    assert records.load(world.folder, "fake").state is State.STOPPED
    assert world.watch() == ["promoted", "stopped"]


def test_a_stop_ends_the_start_that_waits_for_another_too(world):
    with ThreadPoolExecutor() as pool:
        with moving(world) as promotion:
            promotion.start(silent)
            waiting = pool.submit(world.start)
            lock = world.folder / ".fake.promotion.lock"
            opened = lambda: [one for one in Path("/proc/self/fd").iterdir() if one.exists() and one.samefile(lock)]  # noqa: E731
            assert process.wait_until(lambda: len(opened()) == 2, 10)
            stop_endpoint("fake", world.folder)
        with pytest.raises(ServingError, match="fake was stopped meanwhile, so this start of it was given up"):
            waiting.result(30)
    assert records.names(world.folder) == []
    assert process.list_owned(world.folder) == []


def test_a_start_that_a_stop_ended_says_so(world):
    def stop(*_, **__):
        stop_endpoint("fake", world.folder)

    told = "^fake was stopped meanwhile, so this start of it was given up"
    with pytest.raises(ServingError, match=told), moving(world) as promotion:
        promotion.start(stop)
    assert world.start().revision == 1


def test_the_current_one_is_started_again_while_a_candidate_waits_and_replaced_by_it(world):
    first = world.start()
    world.watch()
    with moving(world) as promotion:
        candidate = promotion.start(silent)
        world.kill()
        assert world.watch() == ["failed"]
        assert world.watch() == ["starting"]
        world.wait_for_server()
        again = records.load(world.folder, "fake")
        assert again.process != first.process
        assert records.names(world.folder) == ["fake", "fake.next"], "the candidate is no leftover"
        serving = promotion.commit()
    assert (serving.process, serving.revision) == (candidate.process, 2)
    assert not process.alive(again.process)
    assert records.names(world.folder) == ["fake"]


def test_a_disk_that_is_full_at_the_last_moment_leaves_the_name_and_its_revisions(world, monkeypatch):
    current = world.start()
    real = records.save

    def save(folder, endpoint):
        if endpoint.name == "fake":
            raise OSError(28, "No space left on device")
        real(folder, endpoint)

    with moving(world) as promotion:
        promotion.start(silent)
        with monkeypatch.context() as patch:
            patch.setattr(promotions.records, "save", save)
            with pytest.raises(OSError, match="No space left"):
                promotion.commit()
    assert records.load(world.folder, "fake") == current
    assert revisions.numbers(world.folder, "fake") == [1]
    world.watch()
    assert records.names(world.folder) == ["fake"]
    assert process.alive(current.process)


def test_an_old_server_that_will_not_end_does_not_undo_the_move(world, monkeypatch):
    first = world.start()

    def stuck(*_, **__):
        raise ServingError("it does not end")

    with moving(world) as promotion:
        candidate = promotion.start(silent)
        with monkeypatch.context() as patch:
            patch.setattr(promotions, "end_leftovers", stuck)
            assert promotion.commit().process == candidate.process
    assert records.names(world.folder) == ["fake", "fake.previous"]
    world.watch()
    assert records.names(world.folder) == ["fake"]
    assert not process.alive(first.process)


def test_a_roll_back_of_a_revision_that_serves_no_more_does_nothing(world):
    world.start()
    world.start(environment=["OTHER=1"])
    third = world.start(environment=["OTHER=2"])
    with pytest.raises(ServingError, match="fake serves revision 3 by now, not 2 any more: nothing is rolled back"):
        roll_back("fake", world.folder, instead_of=2)
    assert records.load(world.folder, "fake") == third
    assert roll_back("fake", world.folder, instead_of=3).revision == 4


def test_the_same_model_with_settings_that_take_no_other_server_amends_its_revision(world):
    first = world.start()
    assert world.start(startup_budget_s=77) == first
    assert revisions.load(world.folder, "fake", 1).config.startup_budget_s == 77
