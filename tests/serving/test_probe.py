"""Probes against a small real HTTP server that can be told to fail."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.errors import ServingError, TransientError
from flows.serving import metrics, probe
from flows.serving.ask import ask
from flows.serving.checks import check
from flows.serving.endpoint import Endpoint, ProcessRecord
from flows.serving.history import History
from flows.serving.runtimes import process
from flows.serving.state import State
from tests.serving.world import NOON


def endpoint_at(url: str) -> Endpoint:
    """A record whose process is this one."""
    own = ProcessRecord(
        pid=os.getpid(), start_ticks=process._stat(os.getpid())[2], boot_id=process.boot_id(), log="/nowhere/log"
    )
    return Endpoint(
        name="fake",
        url=url,
        state=State.HEALTHY,
        model="/models/a",
        variant="transformers",
        runtime="process",
        process=own,
        port=1,
        ready_path="/health",
        settings="",
        started="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def server():
    answers = {
        "/health": (200, {}),
        "/v1/models": (200, {"data": [{"id": "/models/a"}]}),
        "/v1/chat/completions": (
            200,
            {"choices": [{"message": {"content": ""}, "finish_reason": "length"}], "usage": {"completion_tokens": 1}},
        ),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers[self.path]
            time.sleep(getattr(self.server, "delay", {}).get(self.path, 0))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self):
            self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.delay = answers, {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint(server):
    return endpoint_at(f"http://127.0.0.1:{server.server_port}/v1")


def test_a_thinking_model_that_says_nothing_yet_is_healthy(server, endpoint, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert probe.check(endpoint).state is State.HEALTHY
    assert (server.asked["model"], server.asked["max_tokens"], server.asked["temperature"]) == ("/models/a", 16, 0)


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        ("/health", (503, {}), "/health answered 503"),
        ("/v1/models", (200, {"data": [{"id": "/models/b"}]}), "It serves /models/b, not /models/a."),
        ("/v1/models", (200, {"data": []}), "It serves no model, not /models/a."),
        ("/v1/models", (200, ["x"]), "no list of models"),
        ("/v1/models", (200, {"data": ["x"]}), "no list of models"),
        ("/v1/chat/completions", (500, {"error": "cuda"}), 'answered 500: {"error": "cuda"}'),
        ("/v1/chat/completions", (200, {"error": "x"}), "no completion"),
        ("/v1/chat/completions", (200, {"choices": [{"message": {"content": None}}], "usage": None}), "single token"),
    ],
)
def test_a_server_that_lies_is_not_healthy(server, endpoint, path, answer, why):
    server.answers[path] = answer
    checked = probe.check(endpoint)
    assert checked.state is State.UNHEALTHY
    assert why in checked.why


DEEP = b"[" * 100_000


def counted(tokens):
    return {"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": tokens}}


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        *(("/v1/chat/completions", counted(tokens), "no completion") for tokens in ("many", [1], {"a": 1}, -1, 1e300)),
        ("/v1/chat/completions", counted(float("inf")), "no completion"),
        ("/v1/chat/completions", counted(float("nan")), "no completion"),
        ("/v1/chat/completions", {"choices": {"a": 1}}, "no completion"),
        ("/v1/chat/completions", {"error": "\ud800\x1b[31mred"}, "no completion"),
        ("/v1/chat/completions", DEEP, "no completion"),
        ("/v1/models", DEEP, "no list of models"),
        ("/v1/models", {"data": [{"id": "\ud800"}]}, "It serves , not /models/a."),
        ("/v1/models", {"data": [{"id": "x" * 9000}]}, f"It serves {'x' * 256}…, not /models/a."),
        ("/v1/models", {"data": [{"id": str(n)} for n in range(9)]}, "It serves 0, 1, 2, 3, 4 and 4 more, not"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_answer_of_the_wrong_type_is_a_bad_one_and_fit_to_be_written_down(server, endpoint, path, answer, why):
    server.answers[path] = (200, answer)
    checked = probe.check(endpoint)
    assert checked.state is State.UNHEALTHY
    assert why in checked.why
    assert "\x1b" not in checked.model_dump_json()
    assert check(endpoint, History(), NOON).error is not None


@pytest.mark.parametrize("name", ["", "a\x1b]0;title\x07", "two\nlines", "\ud800", "x" * 257])
def test_a_name_that_no_record_should_hold_is_not_learned(server, endpoint, name):
    nameless = endpoint.model_copy(update={"model": "", "identity": "none"})
    server.answers["/v1/models"] = (200, {"data": [{"id": name}]})
    with pytest.raises(probe.ProbeError, match="which is no name: name the model in the settings"):
        probe.identity(nameless)
    server.answers["/v1/models"] = (200, {"data": [{"id": "acme/term-2 (Korean: 무역)"}]})
    assert probe.identity(nameless) == "acme/term-2 (Korean: 무역)"


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e309"])
def test_counters_that_are_no_numbers_are_none(server, endpoint, value):
    text = f"vllm:num_requests_running {value}\nvllm:iteration_tokens_total_count 1\nvllm:request_success_total 1\n"
    server.answers["/metrics"] = (200, text.encode())
    counting = endpoint.model_copy(update={"metrics_path": "/metrics"})
    assert metrics.read(counting) is None
    server.answers["/metrics"] = (200, text.replace(value, "2").encode())
    assert metrics.read(counting) == (2, 1, 1)


def test_a_check_that_breaks_off_is_a_miss(endpoint, monkeypatch):
    monkeypatch.setattr(probe, "reachable", lambda endpoint: {}["nothing"])
    found = check(endpoint, History(), NOON)
    assert (found.sample.good, str(found.error)) == (False, "The look at it broke off (KeyError: 'nothing').")


def test_a_model_that_knows_no_chat_is_asked_to_go_on(server, endpoint):
    text = {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 16}}
    server.answers["/v1/completions"] = (200, text)
    for refused in [(404, {"detail": "Not Found"}), (400, {"error": "the tokenizer has no chat template"})]:
        server.answers["/v1/chat/completions"] = refused
        assert probe.check(endpoint).state is State.HEALTHY
        assert server.asked["prompt"]
    server.answers["/v1/completions"] = (200, {"choices": [{"text": ""}]})
    assert "/v1/completions answered without a single token" in probe.check(endpoint).why
    server.answers["/v1/chat/completions"] = (400, {"error": "bad request"})
    assert "/v1/chat/completions answered 400" in probe.check(endpoint).why


def test_the_right_name_for_another_folder_is_unhealthy(server, endpoint):
    rooted = endpoint.model_copy(update={"identity": "root", "root": "/models/a/v2"})
    for data, why in [
        ({"id": "/models/a", "root": "/models/a/v1"}, "Its model /models/a is /models/a/v1, not /models/a/v2."),
        ({"id": "/models/a"}, "Its model /models/a is unknown, not /models/a/v2."),
    ]:
        server.answers["/v1/models"] = (200, {"data": [data]})
        assert probe.check(endpoint).state is State.HEALTHY
        checked = probe.check(rooted)
        assert (checked.state, checked.why) == (State.UNHEALTHY, why)
    server.answers["/v1/models"] = (200, {"data": [{"id": "/models/a", "root": "/models/a/v2"}]})
    assert probe.check(rooted).state is State.HEALTHY


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ([{"id": "b"}, {"id": "/m"}], "/m"),
        ([{"id": "b"}, {"id": "c", "root": "/m"}], "c"),
        ([{"id": "b"}, {"id": "c"}], "b"),
    ],
)
def test_an_unknown_name_is_learned_and_then_kept_to(server, endpoint, listed, name):
    unknown = endpoint.model_copy(update={"identity": "none", "model": "", "model_dir": "/m"})
    server.answers["/v1/models"] = (200, {"data": listed})
    known = probe.check(unknown)
    assert (known.state, known.model, server.asked["model"]) == (State.HEALTHY, name, name)
    server.answers["/v1/models"] = (200, {"data": [{"id": "other"}]})
    assert probe.check(known).why == f"It serves other, not {name}."
    server.answers["/v1/models"] = (200, {"data": []})
    assert probe.check(unknown).why == "It serves no model, not any."


def test_a_server_without_a_list_is_asked_by_the_name_it_was_given(server, endpoint):
    server.answers["/v1/models"] = (404, {"detail": "Not Found"})
    assert probe.check(endpoint).state is State.UNHEALTHY
    assert probe.check(endpoint.model_copy(update={"identity": "none"})).state is State.HEALTHY
    nameless = probe.check(endpoint.model_copy(update={"identity": "none", "model": ""}))
    assert (nameless.state, "no list of models" in nameless.why) == (State.UNHEALTHY, True)


def test_an_endpoint_without_a_health_path_is_never_healthy(server, endpoint):
    unverified = endpoint.model_copy(update={"ready_path": ""})
    checked = probe.check(unverified)
    assert (checked.state, checked.model) == (State.UNVERIFIED, "/models/a")
    closed = probe.check(unverified.model_copy(update={"url": "http://127.0.0.1:9/v1"}))
    assert closed.state is State.UNHEALTHY
    assert "Nobody listens at 127.0.0.1:9" in closed.why
    dead = endpoint.process.model_copy(update={"start_ticks": 1})
    assert probe.check(unverified.model_copy(update={"process": dead})).state is State.FAILED


def test_ready_may_be_another_status(server, endpoint):
    ready = endpoint.model_copy(update={"ready_status": 204})
    assert "/health answered 200, not 204." in probe.check(ready).why
    server.answers["/health"] = (204, {})
    assert probe.check(endpoint).state is State.UNHEALTHY


def test_a_generation_that_does_not_come_is_degraded(server, endpoint, monkeypatch):
    server.delay["/v1/chat/completions"] = 1
    with pytest.raises(probe.SlowError, match=r"No answer within 0\.2 s"):
        probe.generation(endpoint, 0.2)
    with pytest.raises(probe.SlowError) as error:
        probe.verify(endpoint, 0.2)
    assert error.value.state is State.DEGRADED


def test_a_ready_path_that_hangs_is_unhealthy(server, endpoint, monkeypatch):
    server.delay["/health"] = 1
    checked = probe.check(endpoint.model_copy(update={"ready_timeout_s": 0.2}))
    assert checked.state is State.UNHEALTHY
    assert "No answer within 0.2 s" in checked.why


def test_a_dead_process_is_failed_whoever_answers_at_its_port(endpoint):
    dead = endpoint.process.model_copy(update={"start_ticks": 1})
    checked = probe.check(endpoint.model_copy(update={"process": dead}))
    assert checked.state is State.FAILED
    assert f"Process {os.getpid()} has ended" in checked.why


def test_asking_says_what_went_wrong_and_if_a_retry_can_help(server, endpoint):
    server.answers["/v1/chat/completions"] = (400, {"detail": "pinned"})
    with pytest.raises(ServingError, match=r"answered 400: .*pinned"):
        ask(endpoint, "Hi?", "Answer briefly.")
    assert server.asked["messages"] == [{"role": "user", "content": "Answer briefly.\nHi?"}]
    with pytest.raises(TransientError, match="fake does not answer"):
        ask(endpoint_at("http://127.0.0.1:9/v1"), "Hi?")


def test_asking_an_endpoint_whose_name_nobody_knows_asks_for_the_name_first(server, endpoint):
    nameless = endpoint.model_copy(update={"identity": "none", "model": "", "ready_path": ""})
    assert ask(nameless, "Hi?") == ""
    assert server.asked["model"] == "/models/a"
    server.answers["/v1/models"] = (404, {})
    with pytest.raises(ServingError, match="fake does not say which model to ask for"):
        ask(nameless, "Hi?")


@pytest.mark.parametrize(
    "answer", [{"choices": []}, b"<html>\x1b[2JWelcome</html>", ["x"], DEEP], ids=lambda a: repr(a)[:30]
)
def test_an_answer_to_a_question_that_is_no_completion_is_told_in_words(server, endpoint, answer):
    server.answers["/v1/chat/completions"] = (200, answer)
    with pytest.raises(ServingError, match=r"/v1/chat/completions answered no completion: .*\nIts log is") as error:
        ask(endpoint, "What?")
    assert "\x1b" not in str(error.value)
