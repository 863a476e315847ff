"""Who may ask: every path, every way to send a token, and what is kept of one."""

import json
import os
import signal
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flows.errors import ServingError
from flows.serving import records
from flows.serving.__main__ import main
from flows.serving.endpoint import Endpoint, ProcessRecord
from flows.serving.front import folder, haproxy, lifecycle, runtime_api, tokens, traffic
from flows.serving.runtimes import process
from flows.serving.state import State

PATHS = [
    "/v1/models",
    "/metrics",
    "/tokenize",
    "/health",
    "/",
    "/v1/chat/completions?x=1",
    "//v1/models",
    "/%2e%2e/metrics",
]

REFUSED = "401 from the front at once; the server sees nothing"
NONE = "none"


@pytest.fixture
def front(start, endpoints, servers):
    front = start(access="token")
    record = ProcessRecord(pid=1, start_ticks=1, boot_id="b", log="/tmp/log")
    known = {"url": f"http://{servers[0].address}/v1", "state": State.HEALTHY, "model": "m", "port": 9}
    more = {"variant": "command", "runtime": "process", "process": record, "ready_path": "", "settings": "s"}
    records.save(endpoints, Endpoint(name="terms", **known, **more, started="now", front=front))
    traffic.route(front, {servers[0].address: 1})
    return front


@pytest.fixture
def issue(front, endpoints):
    return lambda name="nightly", days=90: tokens.issue(endpoints, "terms", name, days)


def status(client, front, token="", path="/v1/models", header="Authorization", scheme="Bearer "):
    headers = {header: f"{scheme}{token}"} if token else {}
    return client.get(front.url.removesuffix("/v1") + path, headers=headers).status_code


@pytest.mark.parametrize("path", PATHS)
def test_every_path_asks_for_a_token(front, issue, client, servers, path):
    token = issue()
    assert (status(client, front, path=path), servers[0].seen) == (401, [])
    assert status(client, front, token, path=path) == 200


@pytest.mark.parametrize("scheme", ["Bearer ", "BackendAI ", "bearer ", "Bearer   "])
def test_both_schemes_open_it(front, issue, client, scheme):
    assert status(client, front, issue(), scheme=scheme) == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_every_method_asks_for_a_token(front, client, servers, method):
    assert client.request(method, f"{front.url}/models").status_code == 401
    assert servers[0].seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": "TOKEN"},
        {"Api-Key": "TOKEN"},
        {"Proxy-Authorization": "Bearer TOKEN"},
        {"Cookie": "Authorization=Bearer TOKEN"},
        {"Authorization": "TOKEN"},
        {"Authorization": "Basic TOKEN"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer TOKENx"},
        {"Authorization": "Bearer TOKEN x"},
        {"Authorization": "Bearer  TOKEN  x y"},
        {"Authorization": "Bearer x, Bearer TOKEN"},
    ],
    ids=lambda headers: " ".join([*headers, *headers.values()]),
)
def test_a_token_elsewhere_opens_nothing(front, issue, client, headers):
    token = issue()
    sent = {name: value.replace("TOKEN", token) for name, value in headers.items()}
    assert client.get(f"{front.url}/models", headers=sent).status_code == 401
    query = {"token": token, "api_key": token, "access_token": token}
    assert client.get(f"{front.url}/models", params=query).status_code == 401


@pytest.mark.fault("token: in another header", expected=REFUSED, action=NONE)
def test_a_token_in_another_header_is_told_where_it_belongs(front, issue, client, servers, seen):
    seen.begin()
    answer = client.get(f"{front.url}/models", headers={"X-Api-Key": issue()})
    seen(f"{answer.status_code}: {answer.json()['error']['message']}")
    assert (answer.status_code, servers[0].seen) == (401, [])


def test_two_headers_open_nothing(front, issue, client):
    both = [("Authorization", f"Bearer {issue()}"), ("Authorization", "Bearer other")]
    assert client.get(f"{front.url}/models", headers=both).status_code == 401


@pytest.mark.fault("token: wrong", expected=REFUSED, action=NONE)
def test_refusals_are_worded_as_the_openai_api_words_its_own(front, issue, client, seen):
    seen.begin()
    answer = client.get(f"{front.url}/models", headers={"Authorization": "Bearer wrong"})
    seen(f"{answer.status_code}: {answer.json()['error']['message']}")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {
        "error": {
            "message": "This is no token of this endpoint, or it was revoked.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
    assert "Give a token of this endpoint in one header" in client.get(f"{front.url}/models").text


@pytest.mark.fault("token: revoked", expected="401 from the next request on; other tokens hold", action=NONE)
def test_several_tokens_each_revoked_for_itself_at_once(front, issue, endpoints, client, seen):
    one, two = issue("one"), issue("two")
    assert (status(client, front, one), status(client, front, two)) == (200, 200)
    seen.begin()
    tokens.revoke(endpoints, "terms", "one")
    answer = client.get(f"{front.url}/models", headers={"Authorization": f"Bearer {one}"})
    seen(f"{answer.status_code}: {answer.json()['error']['message']}")
    assert (status(client, front, one), status(client, front, two)) == (401, 200)
    first = tokens.revoke(endpoints, "terms", "one")
    assert [one.state(datetime.now(UTC)) for one in tokens.load(endpoints, "terms")] == ["revoked", "valid"]
    assert tokens.revoke(endpoints, "terms", "one") == first


@pytest.mark.fault("token: expired", expected="401 as soon as its time is over", action=NONE)
def test_a_token_expires_by_the_clock_alone(front, issue, endpoints, client, seen):
    token = issue(days=1)
    [kept] = tokens.load(endpoints, "terms")
    life = datetime.fromisoformat(kept.expires) - datetime.fromisoformat(kept.created)
    assert life == timedelta(days=1)
    until = int(time.time()) + 2
    runtime_api.order(front.path, f"set map {haproxy.TOKENS} {kept.sha256} {until}")
    assert status(client, front, token) == 200
    assert process.wait_until(lambda: status(client, front, token) == 401, 10)
    assert time.time() >= until
    answer = client.get(f"{front.url}/models", headers={"Authorization": f"Bearer {token}"})
    seen(f"{answer.status_code}: {answer.json()['error']['message']}")
    assert answer.json()["error"]["code"] == "token_expired"
    assert kept.state(datetime.now(UTC) + timedelta(days=2)) == "expired"


def test_tokens_hold_after_a_restart_of_the_front(front, issue, endpoints, client):
    good, bad, forever = issue("good"), issue("bad"), issue("forever", 0)
    tokens.revoke(endpoints, "terms", "bad")
    lifecycle.stop(front)
    lifecycle.revive(front)
    traffic.route(front, folder.shares(front.path))
    assert [status(client, front, token) for token in (good, bad, forever)] == [503, 401, 503]


def test_nothing_of_a_token_but_its_hash_is_anywhere(front, issue, client, servers, endpoints):
    token = issue()
    status(client, front, token)
    [(_, headers)] = servers[0].seen
    assert "authorization" not in headers
    status(client, front, token, path=f"/v1/models?key={token}", scheme="Basic ")
    pid = folder.running(front.path).pid
    for place in (f"/proc/{pid}/cmdline", f"/proc/{pid}/environ"):
        assert token not in Path(place).read_text()
    files = [path for path in endpoints.rglob("*") if path.is_file()]
    assert not [path for path in files if token in path.read_text()]
    holders = [path.name for path in files if tokens.sha256(token) in path.read_text()]
    assert sorted(holders) == ["tokens.json", "tokens.map"]
    assert {os.stat(front.path / name).st_mode & 0o777 for name in holders} == {0o600}


def test_a_token_of_a_megabyte_is_refused_and_does_no_harm(front, issue, client):
    token = issue()
    for size, expected in ((1000, 401), (1100, 431), (14_000, 431), (2**20, 400)):
        answer = httpx.get(f"{front.url}/models", headers={"Authorization": "Bearer " + "x" * size}, trust_env=False)
        assert answer.status_code == expected
        if expected == 431:
            words = "This header is longer than 1024 characters, and so is no token."
            assert answer.json()["error"]["message"] == words
    assert status(client, front, token) == 200


def test_what_is_no_http_is_refused(front):
    with socket.create_connection(("127.0.0.1", front.port), timeout=5) as connection:
        connection.sendall(b"\0\1\2 nonsense\r\n\r\n")
        assert connection.recv(4000).startswith(b"HTTP/1.1 400 Bad ")


def test_names_that_are_taken_unknown_or_none(issue, endpoints):
    issue("one")
    with pytest.raises(ServingError, match="terms has a valid token 'one'. Revoke it first"):
        issue("one")
    tokens.revoke(endpoints, "terms", "one")
    assert issue("one").startswith("pft-")
    assert len(tokens.load(endpoints, "terms")) == 1
    with pytest.raises(ServingError, match="terms has no token 'two'. It has: one."):
        tokens.revoke(endpoints, "terms", "two")
    for name in ("", "a b", "../x", "ключ", "a" * 64):
        with pytest.raises(ServingError, match="The token's name"):
            issue(name)
    with pytest.raises(ServingError, match="There is no endpoint 'nobody'"):
        tokens.issue(endpoints, "nobody", "one", 1)
    (endpoints / "terms/front/tokens.json").write_text("half")
    with pytest.raises(ServingError, match="holds no tokens. Delete it"):
        issue("three")


def test_open_and_token_are_switched_without_a_restart(front, start, client):
    running = folder.running(front.path)
    assert status(client, start(access="open")) == 200
    assert status(client, start(access="token")) == 401
    assert folder.running(front.path) == running


def test_a_front_that_is_open_passes_a_header_on(start, servers, client):
    front = start(access="open")
    traffic.route(front, {servers[0].address: 1})
    assert status(client, front, "theirs") == 200
    assert servers[0].seen[0][1]["authorization"] == "Bearer theirs"


def test_by_the_command_line_it_is_printed_once(front, endpoints, client, capsys):
    def run(*words):
        code = main(["token", *words, "--store", str(endpoints.parent)])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, err = run("issue", "terms", "nightly", "--days", "7")
    token = out.strip()
    assert (code, err) == (0, "Token 'nightly' of terms, valid for 7 days; it cannot be shown again:\n")
    assert status(client, front, token) == 200
    code, out, _ = run("list", "terms")
    assert [line.split()[:2] for line in out.splitlines()] == [["TOKEN", "STATE"], ["nightly", "valid"]]
    assert token not in out
    assert run("revoke", "terms", "nightly")[0] == 0
    assert status(client, front, token) == 401
    assert "revoked" in run("list", "terms")[1]
    assert run("list", "nobody")[0] == 1


def test_a_front_that_does_not_answer_takes_over_nothing_and_says_so(front, issue, endpoints, client, monkeypatch):
    token = issue()
    monkeypatch.setattr(runtime_api, "TIMEOUT_S", 0.3)
    pid = folder.running(front.path).pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ServingError, match="does not answer"):
        issue("lost")
    assert [one.name for one in tokens.load(endpoints, "terms")] == ["nightly"]
    assert (front.path / haproxy.TOKENS).read_text().splitlines() == [f"{tokens.sha256(token)} {ends(endpoints)}"]
    with pytest.raises(ServingError, match="does not answer"):
        tokens.revoke(endpoints, "terms", "nightly")
    os.kill(pid, signal.SIGCONT)
    tokens.revoke(endpoints, "terms", "nightly")
    assert status(client, front, token) == 401
    assert json.loads((front.path / "tokens.json").read_text())[0]["revoked"]
    assert status(client, front, issue("lost")) == 200


def ends(endpoints):
    return int(datetime.fromisoformat(tokens.load(endpoints, "terms")[0].expires).timestamp())
