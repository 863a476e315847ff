"""What Prefect is told of endpoints, and that it need not be there for what was done."""

import logging
from datetime import UTC, datetime

import pytest

from flows import watch_endpoints as watching
from flows.errors import ServingError
from flows.list_endpoints import list_endpoints
from flows.serving import records
from flows.serving.history import Change
from flows.serving.state import State
from flows.stages import endpoints
from flows.stop_endpoint import stop_endpoint
from tests.stages.test_endpoint_target import endpoint


@pytest.fixture
def away(monkeypatch):
    """A Prefect that answers nothing; what was written before is lost."""

    def away(*_, **__):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(endpoints, "get_run_logger", lambda: logging.getLogger("run"))
    for name in ("set", "unset"):
        monkeypatch.setattr(endpoints.Variable, name, away)
    monkeypatch.setattr(endpoints, "create_markdown_artifact", away)


def test_what_serves_or_was_stopped_is_so_even_if_prefect_cannot_be_told(away, caplog):
    endpoints.remember(endpoint(name="demo"))
    endpoints.forget("demo")
    assert [one.message for one in caplog.records] == [
        "The Variable of demo could not be written: nobody answers",
        "The Variable of demo could not be deleted: nobody answers",
    ]


def test_the_watcher_sends_every_event_before_it_writes_anything_down(tmp_path, monkeypatch):
    done = []
    now = datetime.now(UTC)
    names = ("a", "b")
    for name in names:
        records.save(tmp_path / "endpoints", endpoint(name=name))
    changes = [Change(name=name, at=now, what="healthy", before=None, after=State.HEALTHY) for name in names]
    monkeypatch.setattr(watching, "watch", lambda *_: changes)
    monkeypatch.setattr(watching, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(watching, "emit", lambda change, *_: done.append(f"event of {change.name}"))
    monkeypatch.setattr(watching, "remember", lambda one: done.append(f"variable of {one.name}"))
    monkeypatch.setattr(watching, "show_page", lambda *_, **__: "2 endpoints")
    monkeypatch.setattr(watching, "tell_watched", lambda *_: None)
    watching.watch_endpoints.fn(str(tmp_path))
    assert done == ["event of a", "event of b", "variable of a", "variable of b"]


def test_a_message_of_megabytes_is_cut_in_its_middle(monkeypatch):
    shown = {}
    monkeypatch.setattr(endpoints, "create_markdown_artifact", lambda text, **more: shown.update(text=text))
    state = endpoints.failed(ServingError("beginning " + "x" * 10_000_000 + " end"))
    assert state.message.startswith("beginning x")
    assert state.message.endswith("\n" + "x" * 9996 + " end")
    assert "(9980014 characters are left out here)" in state.message
    assert state.message in shown["text"]
    assert endpoints.failed(ServingError("short")).message == "short"


@pytest.mark.parametrize("run", [list_endpoints, watching.watch_endpoints, stop_endpoint])
def test_a_store_that_can_be_none_is_told_in_words(monkeypatch, run):
    monkeypatch.setattr(endpoints, "create_markdown_artifact", lambda *_, **__: None)
    state = run.fn(store="/etc/passwd", **({"name": "demo"} if run is stop_endpoint else {}))
    assert (state.is_failed(), state.message) == (True, "store: '/etc/passwd' is no folder. Give the path of one.")
