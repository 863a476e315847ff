"""Branches of a run that is being ended: what they have begun ends with it, here and in work pools."""

import contextlib
import logging
import signal
import threading
import time
from types import SimpleNamespace
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.states import Cancelled, Cancelling, Completed, Running

from flows.errors import TransientError
from flows.stages import placement, run_context
from flows.stages.make import make
from flows.stages.stage_task import _make, failing_in_words
from tests.stages.test_graph_run import pipeline_of, shell

TWO = [shell("a", command="sleep 60"), shell("b", command="sleep 60; true")]


class Server:
    """Stands for Prefect: children run until they are cancelled, for some seconds at most."""

    def __init__(self, ours=None):
        self.ours = ours or Cancelling()
        self.children = {}
        self.over = time.monotonic() + 8

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, run, call, refresh):
        child = SimpleNamespace(id=uuid4(), name=call.name, state=Running())
        self.children[child.id] = child
        return child

    def read_flow_run(self, run_id):
        if run_id not in self.children:
            return SimpleNamespace(state=self.ours)
        if time.monotonic() > self.over and self.children[run_id].state.is_running():
            self.children[run_id].state = Completed()
        return self.children[run_id]

    def set_flow_run_state(self, run_id, state):
        self.children[run_id].state = Cancelled() if state.is_cancelling() else state

    def states(self):
        return [child.state.name for child in self.children.values()]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(run_context, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(run_context, "ProgressArtifact", lambda stage: lambda *report, **figures: None)


def interrupted_when(there):
    """What a signal does: an exception in the main thread, and in no other."""

    def look():
        deadline = time.monotonic() + 30
        while not there() and time.monotonic() < deadline:
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=look, daemon=True).start()


def elsewhere(monkeypatch, server):
    monkeypatch.setattr(placement, "get_client", lambda sync_client: server)
    monkeypatch.setattr(placement, "_submit", server.submit)

    def run_elsewhere(run, call):
        run.run_id = str(UUID(int=1))
        return placement.make_elsewhere(run, call, refresh=False)

    return run_elsewhere


@pytest.mark.parametrize(("state", "children"), [(Cancelling(), "Cancelled"), (Running(), "Running")])
def test_runs_in_work_pools_end_with_a_cancelled_run_and_outlive_a_crash(tmp_path, monkeypatch, state, children):
    server = Server(state)
    interrupted_when(lambda: len(server.children) == 2)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pipeline_of(TWO, tmp_path, elsewhere(monkeypatch, server))
    assert server.states() == [children, children]
    assert time.monotonic() - began < 7


def test_what_waits_for_its_turn_is_not_begun(tmp_path, monkeypatch):
    server = Server()
    interrupted_when(lambda: server.children)
    with pytest.raises(KeyboardInterrupt):
        pipeline_of(TWO, tmp_path, elsewhere(monkeypatch, server), at_once=1)
    time.sleep(0.2)
    assert server.states() == ["Cancelled"]


def test_children_here_end_with_the_run(tmp_path):
    found = []

    def here(run, call):
        return make(run, call, refresh=False, waiting=lambda why: None)

    def commands():
        with contextlib.suppress(psutil.Error):
            found[:] = [one for one in psutil.Process().children(recursive=True) if one.name() == "sleep"]
        return len(found) == 2

    interrupted_when(commands)
    with pytest.raises(KeyboardInterrupt):
        pipeline_of(TWO, tmp_path, here)
    assert len(found) == 2
    assert time.time() - found[0].create_time() < 30
    _, alive = psutil.wait_procs(found, timeout=5)
    assert not alive


def test_a_child_that_was_killed_with_the_run_is_not_started_again(tmp_path):
    ended = []

    def killed(run, call):
        run.ending.set()
        ended.append(failing_in_words(run, call.name, lambda: _make(run, call)))
        raise TransientError("The child was killed.")

    pipeline_of([shell("a")], tmp_path, killed)
    assert (ended[0].message, ended[0].data) == ("The run is being ended.", {"retryable": False})
