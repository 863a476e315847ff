"""The front of a name through promotions, restarts, roll-backs and what else happens to the server behind it."""

import os
import signal
import threading

import httpx
import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, records, revisions, stop
from flows.serving.causes import StartError
from flows.serving.front import folder, following, lifecycle, traffic
from flows.serving.front.options import FrontOptions
from flows.serving.promotion import Promotion, start_endpoint
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.sweep import end_orphans
from tests.serving.world import World

FRONT = FrontOptions(enabled=True, drain_s=5)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.config = world.config.model_copy(update={"front": FRONT})
    yield world
    stop.stop_endpoint("fake", world.folder)
    if front := folder.load(world.folder, "fake"):
        lifecycle.stop(front)


def other(world, **changes):
    """Settings that take another server."""
    return world.config.model_copy(update={"environment": ["OTHER=1"], **changes})


def ask(endpoint, timeout=10.0):
    body = {"model": "fake", "messages": [{"role": "user", "content": "What is a bill of lading?"}]}
    return httpx.post(f"{endpoint.public_url}/chat/completions", json=body, timeout=timeout, trust_env=False)


def behind(endpoint):
    return folder.shares(endpoint.front.path)


def front_pid(world):
    return folder.running(folder.place(world.folder, "fake")).pid


def test_clients_are_told_the_front_and_probes_ask_the_server(world):
    endpoint = world.start()
    assert endpoint.public_url == endpoint.front.url != endpoint.url
    assert ask(endpoint).status_code == 200
    assert behind(endpoint) == {following.address(endpoint): 100}
    before = world.seen()
    assert world.watch() == ["promoted", "healthy"]
    assert traffic.statistics(endpoint.front)[following.address(endpoint)].requests == 1
    assert world.seen()["probes"] >= before["probes"]


def test_a_promotion_keeps_the_address_and_drops_nothing(world):
    world.flags(delay_s=1)
    old = world.start()
    got = []
    asking = threading.Thread(target=lambda: got.append(ask(old).status_code))
    asking.start()
    assert process.wait_until(lambda: traffic.statistics(old.front)[following.address(old)].sessions == 1, 5)
    new = start_endpoint(other(world), world.model, world.folder, silent)
    asking.join()
    assert got == [200]
    assert (new.public_url, new.revision) == (old.public_url, 2)
    assert new.url != old.url
    assert not process.alive(old.process)
    assert behind(new) == {following.address(new): 100}
    assert ask(new).status_code == 200


def test_a_candidate_that_fails_changes_nothing(world):
    old = world.start()
    pid = front_pid(world)
    world.file.write_text('{"die": true}')
    with pytest.raises(StartError):
        start_endpoint(
            other(world, front=FrontOptions(enabled=True, access="token")), world.model, world.folder, silent
        )
    assert records.load(world.folder, "fake") == old
    assert (front_pid(world), behind(old)) == (pid, {following.address(old): 100})
    assert ask(old).status_code == 200


def test_traffic_shared_with_a_candidate_goes_back_when_it_is_abandoned(world):
    old = world.start()
    with Promotion(other(world), world.model, world.folder) as promotion:
        candidate = promotion.start(silent)
        traffic.route(old.front, {following.address(old): 50, following.address(candidate): 50})
        assert {ask(old).status_code for _ in range(4)} == {200}
    assert behind(old) == {following.address(old): 100}
    assert not process.alive(candidate.process)
    assert ask(old).status_code == 200


def test_a_promotion_that_was_killed_with_shared_traffic_goes_back_at_the_next_look(world):
    old = world.start()
    promotion = Promotion(other(world), world.model, world.folder).__enter__()
    candidate = promotion.start(silent)
    traffic.route(old.front, {following.address(candidate): 100})
    promotion._held.close()  # as the kernel does for who is killed
    world.watch()
    assert not process.alive(candidate.process)
    assert behind(old) == {following.address(old): 100}
    assert records.names(world.folder) == ["fake"]


def test_a_first_start_that_fails_leaves_no_front(world):
    world.file.write_text('{"die": true}')
    with pytest.raises(StartError):
        world.start()
    assert folder.running(folder.place(world.folder, "fake")) is None
    assert process.list_owned(world.folder) == []


def test_a_port_that_is_taken_is_known_before_a_model_is_started(world):
    plain = world.start(name="plain", front=FrontOptions())
    with pytest.raises(ServingError, match="The front of fake did not start"):
        world.start(front=FrontOptions(enabled=True, port=plain.port))
    assert records.names(world.folder) == ["plain"]
    stop.stop_endpoint("plain", world.folder)


def test_a_front_is_switched_on_and_off_without_a_new_server(world):
    plain = world.start(front=FrontOptions())
    assert plain.front is None
    fronted = world.start()
    assert (fronted.process, fronted.revision) == (plain.process, 1)
    assert ask(fronted).status_code == 200
    assert revisions.load(world.folder, "fake", 1).config.front.enabled
    kept = world.start(front=FrontOptions())
    assert kept.public_url == fronted.public_url, "nothing was said of it"
    again = world.start(front=FrontOptions(enabled=False))
    assert (again.front, again.process) == (None, plain.process)
    assert process.list_owned(world.folder) == [("fake", plain.process)]


def test_a_name_loses_its_token_check_only_by_a_stop(world):
    guarded = world.start(front=FrontOptions(enabled=True, access="token"))
    with pytest.raises(ServingError, match="would be open to whoever"):
        world.start(front=FrontOptions(enabled=False))
    assert httpx.get(guarded.public_url + "/models").status_code == 401
    kept = start_endpoint(other(world, front=FrontOptions()), world.model, world.folder, silent)
    assert (kept.public_url, kept.revision) == (guarded.public_url, 2)
    assert httpx.get(guarded.public_url + "/models").status_code == 401


def test_a_roll_back_keeps_the_address_even_to_a_revision_without_a_front(world):
    world.start(front=FrontOptions())
    fronted = start_endpoint(other(world), world.model, world.folder, silent)
    back = roll_back("fake", world.folder)
    assert back.public_url == fronted.public_url
    assert ask(back).status_code == 200


def test_stopping_ends_the_front_too_and_the_next_start_has_its_address(world):
    first = world.start()
    stopped = stop.stop_endpoint("fake", world.folder)
    assert (stopped.state, stopped.public_url) == (State.STOPPED, first.public_url)
    assert process.list_owned(world.folder) == []
    assert world.watch()[-1] == "stopped"
    assert process.list_owned(world.folder) == []
    assert world.start().public_url == first.public_url


def test_the_watcher_heals_a_killed_front(world):
    endpoint = world.start()
    os.kill(front_pid(world), signal.SIGKILL)
    assert process.wait_until(lambda: not folder.alive(endpoint.front), 5)
    shown = listing.current(world.folder, endpoint)
    assert (shown.state, shown.why[:23]) == (State.UNHEALTHY, "Its front does not run,")
    world.watch()
    assert world.state is State.HEALTHY
    assert ask(endpoint).status_code == 200
    assert records.load(world.folder, "fake") == endpoint


def test_the_watcher_heals_it_in_mid_promotion_and_leaves_the_shares_alone(world):
    old = world.start()
    with Promotion(other(world), world.model, world.folder) as promotion:
        candidate = promotion.start(silent)
        shares = {following.address(old): 90, following.address(candidate): 10}
        traffic.route(old.front, shares)
        os.kill(front_pid(world), signal.SIGKILL)
        assert process.wait_until(lambda: not folder.alive(old.front), 5)
        world.watch()
        assert (folder.alive(old.front), folder.shares(old.front.path)) == (True, shares)


def test_a_front_that_cannot_come_back_makes_the_endpoint_unhealthy(world):
    endpoint = world.start()
    lifecycle.stop(endpoint.front)
    plain = world.start(name="plain", port=endpoint.front.port, front=FrontOptions())
    world.watch()
    assert world.state is State.UNHEALTHY
    assert "Its front does not work: The front of fake did not start" in world.history.why
    stop.stop_endpoint("plain", world.folder)
    world.watch()
    assert ask(endpoint).status_code == 200
    assert plain.front is None


def test_a_server_started_again_elsewhere_is_found_by_its_front(world):
    endpoint = world.start()
    world.kill()
    world.watch(1)
    taken = world.start(name="plain", port=endpoint.port, front=FrontOptions())
    world.watch(15)
    moved = records.load(world.folder, "fake")
    assert (moved.port != endpoint.port, moved.front) == (True, endpoint.front)
    world.wait_for_server()
    assert behind(moved) == {following.address(moved): 100}
    assert ask(moved).status_code == 200
    assert taken.front is None
    stop.stop_endpoint("plain", world.folder)


def test_the_sweep_knows_fronts_and_ends_one_without_a_record(world):
    endpoint = world.start()
    assert end_orphans(world.folder) == []
    running = folder.running(endpoint.front.path)
    folder.save_running(endpoint.front.path, None)
    assert end_orphans(world.folder) == [f"process {running.pid} of fake.front"]
    assert not process.alive(running)
