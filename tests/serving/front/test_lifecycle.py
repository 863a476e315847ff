import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from flows.errors import ServingError
from flows.serving.config import ServeConfig
from flows.serving.front import folder, haproxy, lifecycle, options, traffic
from flows.serving.runtimes import process


def pid(front):
    return folder.running(front.path).pid


def answer(client, front):
    return client.get(f"{front.url}/models").text


def test_it_is_found_again_and_not_started_twice(start, endpoints):
    front = start()
    assert start() == front == folder.load(endpoints, "terms")
    assert front.url == f"http://127.0.0.1:{front.port}/v1"
    assert pid(front) == pid(start())
    assert not lifecycle.revive(front)


def test_it_leads_a_session_of_its_own_and_shows_nothing_in_its_command(start):
    running = folder.running(start().path)
    assert process.members(running) == [running.pid]
    words = Path(f"/proc/{running.pid}/cmdline").read_text().split("\0")
    assert words[1:3] == ["-db", "-C"]
    assert os.stat(start().path).st_mode & 0o777 == 0o700
    assert os.stat(start().path / haproxy.SOCKET).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_died_or_hangs_is_started_on_its_port_with_its_shares(start, servers, client, how, monkeypatch):
    monkeypatch.setattr("flows.serving.front.runtime_api.TIMEOUT_S", 0.3)
    front = start()
    traffic.route(front, {servers[0].address: 30, servers[1].address: 70})
    before = folder.running(front.path)
    os.kill(before.pid, how)
    assert process.wait_until(lambda: not folder.alive(front), 5)
    assert lifecycle.revive(front)
    assert not process.alive(before)
    assert {answer(client, front) for _ in range(10)} == {str(model.server_port) for model in servers}
    assert start().port == front.port


def test_stopped_and_started_again_it_has_its_port_and_no_servers(start, servers, client):
    front = start()
    traffic.route(front, {servers[0].address: 1})
    assert lifecycle.stop(front)
    assert not process.port_served(front.port)
    assert not lifecycle.stop(front)
    assert start() == front
    assert client.get(f"{front.url}/models").status_code == 503


def test_a_stop_ends_it_though_nothing_can_be_written(start):
    front = start()
    running = folder.running(front.path)
    (front.path / "lock").unlink()
    (front.path / "lock").mkdir()
    with pytest.raises(IsADirectoryError):
        lifecycle.stop(front)
    assert not process.alive(running)
    (front.path / "lock").rmdir()


def test_a_stop_lets_running_requests_finish(start, servers, client):
    front = start()
    traffic.route(front, {servers[0].address: 1})
    got = []
    asking = threading.Thread(target=lambda: got.append(client.get(f"{front.url}/slow").text))
    asking.start()
    assert process.wait_until(lambda: traffic.statistics(front)[servers[0].address].sessions == 1, 5)
    lifecycle.stop(front)
    asking.join()
    assert len(got[0]) == 40


def test_other_options_replace_it_and_nothing_is_dropped(start, servers, client):
    front = start(drain_s=3)
    traffic.route(front, {servers[0].address: 1})
    before, got = pid(front), []
    asking = threading.Thread(target=lambda: got.append(client.get(f"{front.url}/slow").text))
    asking.start()
    assert process.wait_until(lambda: traffic.statistics(front)[servers[0].address].sessions == 1, 5)
    new = start(drain_s=4)
    assert (pid(new) != before, new.port) == (True, front.port)
    assert answer(client, new) == str(servers[0].server_port)
    asking.join()
    assert len(got[0]) == 40


def test_another_port_moves_it(start, servers, client):
    front = start()
    traffic.route(front, {servers[0].address: 1})
    wanted = process.choose_port(0)
    new = start(port=wanted)
    assert (new.port, answer(client, new)) == (wanted, str(servers[0].server_port))
    assert process.wait_until(lambda: not process.port_served(front.port), 5)


def test_two_endpoints_have_fronts_of_their_own(start, servers, client):
    one, two = start("one"), start("two")
    traffic.route(one, {servers[0].address: 1})
    traffic.route(two, {servers[1].address: 1})
    assert [answer(client, front) for front in (one, two)] == [str(model.server_port) for model in servers]
    lifecycle.stop(one)
    assert answer(client, two) == str(servers[1].server_port)


def test_a_port_that_somebody_has_is_named_with_its_owner(start, endpoints):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        taken_by = rf"did not start on 127.0.0.1:{port}. It is taken by process {os.getpid()} "
        with pytest.raises(ServingError, match=taken_by) as error:
            start(port=port)
    assert "choose another serve.front.port, or give 0" in str(error.value)
    assert "ALERT" not in str(error.value)
    assert folder.running(endpoints / "terms/front") is None
    assert process.list_owned(endpoints) == []
    assert start().port != port


def test_options_that_cannot_work_leave_the_former_front_as_it_is(start, endpoints, servers, client):
    front = start()
    traffic.route(front, {servers[0].address: 1})
    before = pid(front)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServingError, match="did not start"):
            start(port=taken.getsockname()[1], access="token")
    assert (pid(front), folder.load(endpoints, "terms")) == (before, front)
    assert {answer(client, front) for _ in range(5)} == {str(servers[0].server_port)}
    traffic.route(front, {servers[1].address: 1})
    assert answer(client, start()) == str(servers[1].server_port)
    assert (pid(front), process.members(folder.running(front.path))) == (before, [before])


def test_a_folder_with_a_long_name(servers, client, tmp_path):
    place = tmp_path / ("long" * 30) / "endpoints"
    front = lifecycle.ensure(ServeConfig(name="terms", front={"enabled": True}), place)
    try:
        traffic.route(front, {servers[0].address: 1})
        assert answer(client, front) == str(servers[0].server_port)
    finally:
        lifecycle.stop(front)


def test_what_cannot_work_is_told_before_anything_starts(tmp_path, monkeypatch):
    def told(runtime="process", port=0, **changes):
        return options.problems(options.FrontOptions(**{"enabled": True, **changes}), runtime, port)

    assert told() == []
    assert told(enabled=False, tls_certificate="/nowhere.pem") == []
    assert "runtime kubernetes has its own stable address" in told("kubernetes")[0]
    both = options.FrontOptions(enabled=True, port=8000)
    assert "8000 is serve.port too" in options.problems(both, "process", 8000)[0]
    assert told(tls_certificate="/nowhere.pem") == ["serve.front.tls_certificate: there is no file /nowhere.pem."]
    (tmp_path / "bad.pem").write_text("no certificate")
    assert "is no PEM file with a certificate" in told(tls_certificate=str(tmp_path / "bad.pem"))[0]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(haproxy, "PLACES", str(tmp_path))
    assert told()[0].startswith("serve.front.enabled: HAProxy is not installed. Install it (Debian, Ubuntu: apt-get ")
    old = tmp_path / "haproxy"
    old.write_text("#!/bin/sh\necho 'HAProxy version 2.4.22 2023/02/14'\n")
    old.chmod(0o755)
    assert "must be HAProxy 2.6 or newer" in told()[0]
