"""Several servers of one model behind one address: started, shared, mended, scaled, moved and ended together."""

import os
import signal
from collections import Counter

import httpx
import pytest
from pydantic import ValidationError

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import records, replicas, revisions, stop
from flows.serving.front import folder, following, lifecycle
from flows.serving.front.options import FrontOptions, problems
from flows.serving.promotion import Promotion
from flows.serving.runtimes import process
from flows.serving.scale import scale
from flows.serving.start import _for_replica
from flows.serving.state import State
from tests.serving.world import World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.config = world.config.model_copy(update={"front": FrontOptions(enabled=True, drain_s=5, replicas=2)})
    yield world
    stop.stop_endpoint("fake", world.folder)
    if front := folder.load(world.folder, "fake"):
        lifecycle.stop(front)
    assert process.list_owned(world.folder) == []


def servers(world):
    """Addresses that get requests."""
    return set(folder.shares(folder.place(world.folder, "fake")))


def addresses(world):
    """Of the endpoint and its replicas, as recorded."""
    return {following.address(records.load(world.folder, name)) for name in records.names(world.folder)}


def ask(endpoint, times):
    """How many of so many questions got which status."""
    body = {"model": "fake", "messages": [{"role": "user", "content": "What is a bill of lading?"}]}
    url = f"{endpoint.public_url}/chat/completions"
    return Counter(httpx.post(url, json=body, timeout=10, trust_env=False).status_code for _ in range(times))


def test_they_share_the_requests_of_one_address(world):
    endpoint = world.start()
    assert records.names(world.folder) == ["fake", "fake.2"]
    assert servers(world) == addresses(world)
    assert ask(endpoint, 8) == {200: 8}
    seen = [
        httpx.get(f"{records.load(world.folder, name).url}/seen", trust_env=False).json()["others"]
        for name in ("fake", "fake.2")
    ]
    assert seen == [4, 4]
    assert world.start() == endpoint
    assert world.watch() == ["promoted", "healthy"]


def test_one_that_dies_gets_no_requests_and_is_started_again_after_a_while(world, monkeypatch):
    endpoint = world.start()
    world.watch()
    second = records.load(world.folder, "fake.2")
    os.kill(second.process.pid, signal.SIGKILL)
    assert process.wait_until(lambda: not process.port_served(second.port), 10)
    assert world.watch() == ["degraded"]
    assert world.history.why.startswith("1 of 2 replicas answer. Replica 2 is FAILED.")
    assert servers(world) == {following.address(endpoint)}
    assert ask(endpoint, 4) == {200: 4}
    assert world.watch() == [], "not started again at once"

    monkeypatch.setattr(replicas, "PAUSE", replicas.timedelta())
    world.watch()
    new = records.load(world.folder, "fake.2")
    assert new.process != second.process
    assert process.wait_until(lambda: process.port_served(new.port), 20)
    assert world.watch() == ["healthy"]
    assert servers(world) == addresses(world)


def test_the_others_serve_on_while_the_first_is_started_again(world):
    endpoint = world.start()
    world.watch()
    world.kill()
    assert world.watch(1) == ["failed"]
    (left,) = servers(world)
    assert left == following.address(records.load(world.folder, "fake.2"))
    assert ask(endpoint, 4) == {200: 4}
    assert world.watch(10) == ["starting"]
    world.wait_for_server()
    assert world.watch() == ["healthy"]
    world.watch()
    assert servers(world) == addresses(world)


def test_scaled_while_it_serves(world):
    endpoint = world.start()
    new, found = scale("fake", 3, world.folder)
    assert (new.front.options.replicas, found.answering, found.complete) == (3, 2, True)
    assert records.names(world.folder) == ["fake", "fake.2", "fake.3"]
    assert servers(world) == addresses(world)
    assert len(servers(world)) == 3
    scale("fake", 1, world.folder)
    assert records.names(world.folder) == ["fake"]
    assert servers(world) == {following.address(endpoint)}
    assert len(process.list_owned(world.folder)) == 2, "one server and the front"
    assert ask(endpoint, 2) == {200: 2}
    assert records.load(world.folder, "fake").process == endpoint.process


def test_a_promotion_replaces_all_of_them_and_drops_nothing(world):
    first = world.start()
    before = addresses(world)
    world.config = world.config.model_copy(update={"environment": ["OTHER=1"]})
    second = world.start()
    assert (second.revision, second.public_url) == (2, first.public_url)
    assert servers(world) == addresses(world)
    assert len(addresses(world)) == 2
    assert not addresses(world) & before
    assert len(process.list_owned(world.folder)) == 3


def test_stop_ends_all_of_them(world):
    world.start()
    stopped = stop.stop_endpoint("fake", world.folder)
    assert stopped.state is State.STOPPED
    assert records.names(world.folder) == ["fake"]
    assert process.list_owned(world.folder) == []


def test_without_a_front_there_is_one_server(world):
    assert problems(FrontOptions(replicas=2), "process", 0) == [
        "serve.front.replicas: replicas share their requests through the front. Switch serve.front.enabled on."
    ]
    world.start(front=FrontOptions())
    with pytest.raises(ServingError, match=r"one replica. Several replicas on one machine need the front"):
        scale("fake", 2, world.folder)


def test_each_gets_its_gpus(world):
    options = FrontOptions(enabled=True, replicas=2, replica_devices=["0,1", "2,3"])
    config = world.config.model_copy(update={"front": options, "environment": ["A=b"]})
    assert _for_replica(config, 2).environment == ["A=b", "CUDA_VISIBLE_DEVICES=2,3"]
    assert problems(options, "docker", 0)[0].startswith("serve.front.replica_devices: only replicas of the runtime")
    few = options.model_copy(update={"replicas": 3})
    assert problems(few, "process", 0)[0].startswith("serve.front.replica_devices: 2 entries for 3 replicas.")
    with pytest.raises(ValidationError, match="replica_devices"):
        FrontOptions(replica_devices=["all"])


def test_a_canary_takes_its_share_from_all_of_them(world):
    endpoint = world.start()
    both = sorted(addresses(world))
    world.config = world.config.model_copy(update={"environment": ["OTHER=1"]})
    with Promotion(world.config, world.model, world.folder) as promotion:
        candidate = following.address(promotion.start(silent))
        promotion.share(20)
        place = folder.place(world.folder, "fake")
        assert folder.shares(place) == {both[0]: 40, both[1]: 40, candidate: 20}
        ask(endpoint, 10)
        assert {who: stats.requests for who, stats in promotion.statistics().items()} == {"candidate": 2, "current": 8}
        promotion.share(100)
        assert folder.shares(place) == {both[0]: 0, both[1]: 0, candidate: 100}
    assert folder.shares(place) == dict.fromkeys(both, 100)


def test_replicas_of_another_revision_get_nothing(world):
    endpoint = world.start()
    old = records.load(world.folder, "fake.2").model_copy(update={"revision": 0})
    assert following.servers(endpoint, [old]) == [following.address(endpoint)]


def test_a_front_that_is_switched_off_leaves_one_server(world):
    world.start()
    endpoint = world.start(front=FrontOptions(enabled=False))
    assert (endpoint.front, records.names(world.folder)) == (None, ["fake"])
    assert len(process.list_owned(world.folder)) == 1


def test_a_port_of_ones_choice_is_the_first_server_s(world):
    port = process.choose_port(0)
    for environment in ([], ["OTHER=1"], ["OTHER=2"]):
        world.start(port=port, environment=environment)
        ports = [records.load(world.folder, name).port for name in records.names(world.folder)]
        assert len(set(ports)) == 2
        assert ports[1] != port


def test_more_replicas_than_there_may_be_are_refused_before_anything_is_written(world):
    endpoint = world.start()
    before = revisions.load(world.folder, "fake", 1)
    with pytest.raises(
        ServingError, match=r"^serve\.front\.replicas: 65\. Input should be less than or equal to 64\.$"
    ):
        scale("fake", 65, world.folder)
    assert records.load(world.folder, "fake") == endpoint
    assert revisions.load(world.folder, "fake", 1) == before


def test_a_name_that_is_being_moved_is_not_scaled(world):
    world.start()
    with records.promoting(world.folder, "fake"), pytest.raises(ServingError, match="is being moved to another model"):
        scale("fake", 3, world.folder)


def test_while_a_candidate_has_a_share_the_watcher_leaves_the_shares_alone(world):
    world.start()
    world.watch()
    world.config = world.config.model_copy(update={"environment": ["OTHER=1"]})
    with Promotion(world.config, world.model, world.folder) as promotion:
        promotion.start(silent)
        promotion.share(20)
        shares = folder.shares(folder.place(world.folder, "fake"))
        world.watch()
        assert folder.shares(folder.place(world.folder, "fake")) == shares
    world.watch()
    assert servers(world) == addresses(world)


def test_stopped_in_mid_promotion_nothing_comes_back(world):
    world.start()
    world.config = world.config.model_copy(update={"environment": ["OTHER=1"]})
    with Promotion(world.config, world.model, world.folder) as promotion:
        promotion.start(silent)
        stop.stop_endpoint("fake", world.folder)
    assert records.names(world.folder) == ["fake"]
    assert process.list_owned(world.folder) == []
