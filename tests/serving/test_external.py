"""A server that somebody else runs, with a key: asked, watched, rolled back to, never ended."""

import json
import logging
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import history, listing, records, revisions
from flows.serving.__main__ import main
from flows.serving.ask import ask, curl_line
from flows.serving.causes import StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import process
from flows.serving.scale import scale
from flows.serving.start import problems
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.watch import watch
from tests.serving import fake_server

KEY = "sk-external-secret"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Gateway(BaseHTTPRequestHandler):
    """An OpenAI-compatible server below a path of its own, which wants a key; `down` makes it answer 503."""

    def answer(self, body):
        status = 200
        if self.headers["Authorization"] != f"Bearer {KEY}":
            status, body = 401, {"error": "who are you?"}
        elif self.server.down:
            status = 503
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        assert self.path == "/llm/v1/models"
        self.answer({"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, body["model"] in self.server.models) == ("/llm/v1/chat/completions", True)
        self.answer(fake_server.ANSWER)

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway(monkeypatch):
    monkeypatch.setenv("GATEWAY_API_KEY", KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.models, server.down = ["big", "small"], False
    server.url = f"http://127.0.0.1:{server.server_address[1]}/llm/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def config(gateway, **settings):
    external = {"url": gateway.url, "key_variable": "GATEWAY_API_KEY"} | settings.pop("external", {})
    return ServeConfig(name="theirs", runtime="external", external=external, **settings)


def written(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_it_is_healthy_once_it_has_answered_and_is_only_forgotten(gateway, tmp_path, capsys):
    folder = tmp_path / "endpoints"
    endpoint = start_endpoint(config(gateway, served_model_name="small"), Path(), folder, silent)
    assert (endpoint.state, endpoint.url, endpoint.model) == (State.HEALTHY, gateway.url, "small")
    assert (endpoint.model_dir, endpoint.log, endpoint.revision) == ("", "", 1)
    assert listing.list_records(folder) == [endpoint]
    assert ask(endpoint, "Hi?") == "yes"
    shown = subprocess.run(curl_line(endpoint, "Hi?"), shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == fake_server.ANSWER
    with pytest.raises(ServingError, match="theirs is a server at http.*, which somebody else runs"):
        scale("theirs", 2, folder)
    assert KEY not in written(folder) + curl_line(endpoint, "Hi?") + str(endpoint)
    assert start_endpoint(config(gateway, served_model_name="small"), Path(), folder, silent) == endpoint

    assert main(["stop", "theirs", "--store", str(tmp_path)]) == 0
    assert "Nothing was ended: the server at" in capsys.readouterr().out
    assert ask(endpoint, "Hi?") == "yes"
    assert [one.state for one in listing.list_records(folder)] == [State.STOPPED]


def test_the_first_of_its_models_is_taken_if_none_is_named(gateway, tmp_path):
    assert start_endpoint(config(gateway), Path(), tmp_path, silent).model == "big"


def test_a_name_moves_to_another_model_there_and_back(gateway, tmp_path):
    first = start_endpoint(config(gateway, served_model_name="small"), Path(), tmp_path, silent)
    second = start_endpoint(config(gateway, served_model_name="big"), Path(), tmp_path, silent)
    assert (second.model, second.revision) == ("big", 2)
    back = roll_back("theirs", tmp_path)
    assert (back.model, back.revision, revisions.load(tmp_path, "theirs", 3).again) == (first.model, 3, 1)
    assert records.names(tmp_path) == ["theirs"]


def test_the_watcher_sees_it_fall_and_rise_and_never_starts_it(gateway, tmp_path):
    start_endpoint(config(gateway), Path(), tmp_path, silent)

    def states(minutes):
        return [change.what for change in watch(tmp_path, NOON + timedelta(minutes=minutes))]

    assert states(0) == ["promoted", "healthy"]
    gateway.down = True
    assert states(1) == ["unhealthy"]
    gateway.shutdown()
    gateway.server_close()
    assert [states(minute) for minute in range(2, 8)] == [[]] * 6
    assert history.load(tmp_path, "theirs").state is State.UNHEALTHY
    assert "Connection refused" in history.load(tmp_path, "theirs").why


def test_a_key_that_is_missing_where_one_asks_is_said(gateway, tmp_path, monkeypatch):
    start_endpoint(config(gateway), Path(), tmp_path, silent)
    monkeypatch.delenv("GATEWAY_API_KEY")
    (endpoint,) = listing.list_records(tmp_path)
    assert endpoint.state is State.UNHEALTHY
    assert "the environment variable GATEWAY_API_KEY is not set" in endpoint.why
    with pytest.raises(ServingError, match="GATEWAY_API_KEY is not set"):
        ask(endpoint, "Hi?")


def test_who_does_not_answer_within_the_budget_is_given_up_in_words(gateway, tmp_path):
    gateway.down = True
    with pytest.raises(
        StartError, match=r"^The server at http://\S+ was not healthy within .*answered 503\.$"
    ) as error:
        start_endpoint(config(gateway, startup_budget_s=1), Path(), tmp_path, silent)
    assert "log" not in str(error.value)
    assert records.names(tmp_path) == []


@pytest.mark.parametrize("health_path", ["/v1/models", ""])
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_who_takes_no_connection_is_given_up_long_before_the_budget_is_over(tmp_path, host, health_path):
    url = f"http://{host}:{process.choose_port(0)}/v1"
    external = {"url": url, "health_path": health_path}
    settings = ServeConfig(name="theirs", runtime="external", startup_budget_s=600, external=external)
    with pytest.raises(StartError, match=rf"^The server at {url} takes no connection: .* its address is right\.$"):
        start_endpoint(settings, Path(), tmp_path, silent)
    assert records.names(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "say where the server is"),
        ("llm.example.org/v1", "is no address"),
        ("http://[::1", "is no address"),
        ("http://a..b/v1", "is no address"),
        (f"http://{'a' * 64}.example.org/v1", "is no address"),
        ("ftp://llm.example.org/v1", "is no address"),
        ("http://llm.example.org:99999/v1", "is no address"),
        ("https://llm.example.org", "give the base URL of the API, as https://llm.example.org/v1"),
        ("https://me:secret@llm.example.org/v1", "may hold no user"),
        ("https://llm.example.org/v1?key=secret", "may hold no user"),
        ("https://me:secret@llm example/v1", "is no address"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_repeating_a_secret(url, words):
    (problem,) = problems(ServeConfig(runtime="external", external={"url": url}))
    assert words in problem
    assert "secret" not in problem


def test_a_key_that_is_not_set_is_refused():
    options = {"url": "https://llm.example.org/v1", "key_variable": "NO_SUCH_API_KEY"}
    (problem,) = problems(ServeConfig(runtime="external", external=options))
    assert problem.startswith("serve.external.key_variable: NO_SUCH_API_KEY is not set")


def test_the_key_is_in_no_log(gateway, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    start_endpoint(config(gateway), Path(), tmp_path, silent)
    stop_endpoint("theirs", tmp_path)
    assert KEY not in caplog.text
