import contextlib
import threading
from collections import Counter

import httpx
import pytest

from flows.errors import ServingError
from flows.serving.front import folder, runtime_api, traffic
from flows.serving.runtimes import process


def ask(client, front, path="/models"):
    answer = client.get(front.url + path)
    return answer.status_code, answer.text


@pytest.fixture
def front(start):
    return start()


def running(front, address):
    return traffic.statistics(front)[address].sessions


class Slow(threading.Thread):
    """A request that takes two seconds; `text` is what came."""

    def __init__(self, client, front):
        super().__init__()
        self.client, self.front, self.text = client, front, ""
        self.start()

    def run(self):
        self.text = ask(self.client, self.front, "/slow")[1]


ALL_BITS = "".join(f"{bit:02d}" for bit in range(20))


def test_without_a_server_the_answer_is_503_as_the_openai_api_words_it(front, client):
    status, text = ask(client, front)
    assert status == 503
    assert client.get(f"{front.url}/models").json()["error"] == {
        "message": "No model serves here at the moment. Try again later.",
        "type": "server_error",
        "param": None,
        "code": None,
    }


def test_requests_go_to_exactly_the_named_servers_by_their_weights(front, servers, client):
    old, new = servers
    traffic.route(front, {old.address: 90, new.address: 10})
    assert Counter(ask(client, front)[1] for _ in range(100)) == {str(old.server_port): 90, str(new.server_port): 10}
    traffic.route(front, {new.address: 100})
    assert {ask(client, front)[1] for _ in range(10)} == {str(new.server_port)}
    traffic.route(front, {old.address: 100, new.address: 0})
    assert {ask(client, front)[1] for _ in range(10)} == {str(old.server_port)}
    traffic.route(front, {})
    assert ask(client, front)[0] == 503


def test_at_no_moment_of_a_change_is_nobody_there(front, servers, client, monkeypatch):
    old, new = servers
    traffic.route(front, {old.address: 100})
    order, seen = runtime_api.order, []

    def order_and_look(folder, words, answer=""):
        order(folder, words, answer)
        seen.append((words, traffic.current(front)))

    monkeypatch.setattr(runtime_api, "order", order_and_look)
    for shares in ({old.address: 0, new.address: 100}, {old.address: 100, new.address: 0}, {new.address: 100}):
        traffic.route(front, shares)
    assert len(seen) > 6
    assert [words for words, current in seen if not current] == []


def test_a_change_that_failed_half_way_can_be_told_and_mended(front, servers, client, monkeypatch):
    old, new = servers
    traffic.route(front, {old.address: 90})
    order = runtime_api.order

    def refuse_weights(folder, words, answer=""):
        if words.endswith("weight 30"):
            raise ServingError("The front does not answer.")
        order(folder, words, answer)

    wished = {new.address: 70, old.address: 30}
    with monkeypatch.context() as broken:
        broken.setattr(runtime_api, "order", refuse_weights)
        with pytest.raises(ServingError, match="does not answer"):
            traffic.route(front, wished)
    assert folder.shares(front.path) == wished
    assert traffic.current(front) == {new.address: 70, old.address: 90}
    traffic.route(front, wished)
    assert traffic.current(front) == wished


def test_who_gets_no_new_requests_is_none_of_the_current_servers(front, servers, client):
    old, new = servers
    traffic.route(front, {old.address: 1, new.address: 0})
    assert traffic.current(front) == {old.address: 1}
    slow = Slow(client, front)
    assert process.wait_until(lambda: running(front, old.address) == 1, 5)
    traffic.route(front, {new.address: 7})
    assert traffic.current(front) == {new.address: 7}
    slow.join()
    traffic.route(front, {})
    assert traffic.current(front) == {}


def test_a_server_no_longer_named_finishes_what_it_has(front, servers, client):
    old, new = servers
    traffic.route(front, {old.address: 1})
    slow = Slow(client, front)
    assert process.wait_until(lambda: running(front, old.address) == 1, 5)
    traffic.route(front, {new.address: 1})
    assert not traffic.drained(front, old.address)
    assert ask(client, front) == (200, str(new.server_port))
    assert traffic.wait_drained(front, old.address)
    slow.join()
    assert slow.text == ALL_BITS
    traffic.route(front, {new.address: 1})
    assert list(traffic.statistics(front)) == [new.address]


def test_draining_is_waited_for_no_longer_than_drain_s(start, servers, client):
    old, new = servers
    front = start(drain_s=1)
    traffic.route(front, {old.address: 1})
    slow = Slow(client, front)
    assert process.wait_until(lambda: running(front, old.address) == 1, 5)
    traffic.route(front, {new.address: 1})
    assert not traffic.wait_drained(front, old.address)
    slow.join()


def test_one_that_drains_is_named_again(front, servers, client):
    old, new = servers
    traffic.route(front, {old.address: 1})
    slow = Slow(client, front)
    assert process.wait_until(lambda: running(front, old.address) == 1, 5)
    traffic.route(front, {new.address: 1})
    traffic.route(front, {old.address: 1})
    assert ask(client, front) == (200, str(old.server_port))
    slow.join()


@pytest.mark.parametrize("first", [True, False], ids=["first request", "later request"])
@pytest.mark.parametrize("path", ["/500", "/gone", "/cut"])
def test_each_kind_of_error_counts_as_one(front, servers, client, path, first):
    model = servers[0]
    traffic.route(front, {model.address: 1})
    if not first:
        ask(client, front)
    with contextlib.suppress(httpx.RemoteProtocolError):  # the client's word for a connection that was closed
        assert ask(client, front, path)[0] in (500, 502)
    stats = traffic.statistics(front)[model.address]
    assert (stats.requests, stats.errors, stats.sessions) == (1 if first else 2, 1, 0)


def test_a_server_that_refuses_connections_counts_and_the_other_one_is_asked(front, servers, client):
    dead, model = f"127.0.0.1:{process.choose_port(0)}", servers[0]
    traffic.route(front, {dead: 50, model.address: 50})
    assert {ask(client, front) for _ in range(4)} == {(200, str(model.server_port))}
    traffic.route(front, {dead: 1})
    assert ask(client, front)[0] == 503
    assert traffic.statistics(front)[dead].errors >= 1


def test_figures_begin_anew_with_a_server_that_was_forgotten(front, servers, client):
    old, new = servers
    traffic.route(front, {old.address: 1})
    ask(client, front, "/500")
    assert traffic.statistics(front)[old.address].errors == 1
    traffic.route(front, {new.address: 1})
    traffic.route(front, {old.address: 1})
    assert traffic.statistics(front)[old.address] == (0, 0, 0, 0, 0)


def test_two_hundred_changes_under_load_drop_nothing(front, servers):
    one, two = (server.address for server in servers)
    traffic.route(front, {one: 1})
    stop, answers = threading.Event(), Counter()

    def ask_on():
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not stop.is_set():
                answers[ask(client, front)[0]] += 1

    threads = [threading.Thread(target=ask_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        traffic.route(front, ({one: 1}, {one: 50, two: 50}, {two: 1}, {two: 90, one: 10})[number % 4])
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}


@pytest.mark.parametrize("shares", [{"127.0.0.1:1; show env": 1}, {"127.0.0.1:1": 300}, {"localhost:1": 1}])
def test_what_is_no_address_or_weight_is_refused(front, shares):
    with pytest.raises(ServingError, match="A front cannot give the share"):
        traffic.route(front, shares)
    assert folder.shares(front.path) == {}


def test_a_client_that_goes_away_is_no_error_and_ends_its_request(front, servers, client):
    model = servers[0]
    traffic.route(front, {model.address: 1})
    with client.stream("GET", f"{front.url}/slow") as answer:
        next(answer.iter_raw())
    assert process.wait_until(lambda: running(front, model.address) == 0, 1)
    assert traffic.statistics(front)[model.address].errors == 0
