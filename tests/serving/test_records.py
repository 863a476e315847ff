import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from flows.errors import ServingError
from flows.serving import listing, records
from flows.serving.__main__ import main
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import end_leftovers, stop_endpoint
from flows.serving.sweep import end_orphans
from tests.serving.test_probe import endpoint_at
from tests.serving.test_process import run


@pytest.fixture
def sleeper(tmp_path):
    """An endpoint with a process of its own that serves nothing."""
    record = run("import time; time.sleep(600)", tmp_path / "log")
    yield endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"process": record, "port": 9})
    if process.alive(record):
        os.kill(record.pid, signal.SIGKILL)


def test_a_record_is_read_back_as_written_and_nothing_lies_beside_it(tmp_path):
    endpoint = endpoint_at("http://127.0.0.1:9/v1")
    records.save(tmp_path / "endpoints", endpoint)
    records.save(tmp_path / "endpoints", endpoint)
    assert records.load(tmp_path / "endpoints", "fake") == endpoint
    assert os.listdir(tmp_path / "endpoints") == ["fake.json"]
    held = json.loads((tmp_path / "endpoints" / "fake.json").read_text())
    assert (held["name"], held["url"], held["state"]) == ("fake", "http://127.0.0.1:9/v1", "HEALTHY")
    records.delete(tmp_path / "endpoints", "fake")
    records.delete(tmp_path / "endpoints", "fake")
    assert records.load(tmp_path / "endpoints", "fake") is None


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "broken.json").write_text('{"name": "broken"}')
    with pytest.raises(ServingError, match=r"broken\.json is no endpoint record \(url: Field required\)"):
        records.load(tmp_path, "broken")


def test_no_folder_is_no_endpoints(tmp_path):
    assert listing.list_records(tmp_path / "none") == []
    assert stop_endpoint("nobody", tmp_path / "none") is None


def test_a_record_that_says_healthy_is_not_believed(tmp_path, sleeper):
    records.save(tmp_path, sleeper)
    assert [e.state for e in listing.list_records(tmp_path)] == [State.UNHEALTHY]
    os.kill(sleeper.process.pid, signal.SIGKILL)
    while process.alive(sleeper.process):
        pass
    (shown,) = listing.list_records(tmp_path)
    assert shown.state is State.FAILED
    assert f"Process {sleeper.process.pid} has ended" in shown.why


def test_stopping_says_what_was_ended_and_twice_is_no_error(tmp_path, sleeper):
    records.save(tmp_path, sleeper)
    stopped = stop_endpoint("fake", tmp_path)
    assert stopped is not None
    assert (stopped.state, stopped.why) == (State.STOPPED, f"Ended process {sleeper.process.pid}.")
    assert stop_endpoint("fake", tmp_path) == stopped
    assert listing.list_records(tmp_path) == [stopped]
    assert not process.alive(sleeper.process)


def test_a_port_that_answers_though_nothing_could_be_ended_is_told(tmp_path, sleeper):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        serving = sleeper.model_copy(update={"port": held.getsockname()[1], "state": State.DRAINING})
        process.stop(serving.process, 0)
        records.save(tmp_path, serving)
        for _ in range(2):
            with pytest.raises(ServingError, match=f"had ended before, but port {serving.port} still answers: process"):
                stop_endpoint("fake", tmp_path)
        records.save(tmp_path, serving.model_copy(update={"name": "other"}))
        assert stop_endpoint("fake", tmp_path).state is State.STOPPED, "the port is another endpoint's by now"


def test_what_writes_to_the_log_of_a_stopped_endpoint_is_ended_by_the_watcher(tmp_path):
    folder = tmp_path / "endpoints"
    server = run("import time; time.sleep(600)", folder / "logs" / "fake-20260101T120000-000000.log")
    endpoint = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"process": server, "port": 9})
    try:
        records.save(folder, endpoint)
        assert end_orphans(folder) == []
        records.save(folder, endpoint.model_copy(update={"state": State.STOPPED}))
        assert end_orphans(folder) == [f"process {server.pid} of fake"]
    finally:
        process.stop(server, 0)


@pytest.mark.parametrize(("blocked", "code"), [("fake.lock", 0), ("fake.json.written", 1)])
def test_a_store_that_cannot_be_written_keeps_no_server_running(tmp_path, sleeper, capsys, monkeypatch, blocked, code):
    monkeypatch.setattr("flows.store.files.name_beside", lambda path: path.with_name(f".{path.name}.written"))
    folder = tmp_path / "endpoints"
    records.save(folder, sleeper)
    replica = run("import time; time.sleep(600)", tmp_path / "replica.log")
    records.save(folder, sleeper.model_copy(update={"name": "fake.2", "process": replica}))
    at = folder / f".{blocked}"
    at.mkdir()  # where a file would be opened
    assert main(["stop", "fake", "--store", str(tmp_path)]) == code
    told = f"fake: Ended process {sleeper.process.pid}, and 1 replicas. But that could not be written below {folder}"
    assert capsys.readouterr().err.startswith(told if code else "")
    assert not process.alive(sleeper.process)
    assert not process.alive(replica)

    at.rmdir()
    assert stop_endpoint("fake", folder).state is State.STOPPED
    assert records.names(folder) == ["fake"]


def test_an_error_of_the_store_is_told_in_words(tmp_path, capsys, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "names", full)
    assert main(["list", "--store", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"[Errno 28] No space left on device. Look at the store in {tmp_path}.\n"


def test_an_endpoint_being_started_is_starting_only_while_its_starter_lives(tmp_path, sleeper):
    name = "fake" + records.NEXT
    records.save(tmp_path, sleeper.model_copy(update={"name": name, "state": State.STARTING}))
    # Another process: locks of one's own do not show what a killed starter leaves.
    code = (
        "import sys, time; from pathlib import Path; from flows.serving import records\n"
        f"with records.promoting(Path({str(tmp_path)!r}), 'fake'): print('held', flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    assert starter.stdout.readline() == "held\n"
    assert [e.state for e in listing.list_records(tmp_path)] == [State.STARTING]

    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert [e.state for e in listing.list_records(tmp_path)] == [State.UNVERIFIED]

    cleared = stop_endpoint("fake", tmp_path)
    assert cleared is not None
    assert cleared.why == f"Ended process {sleeper.process.pid}."
    assert listing.list_records(tmp_path) == []
    assert not process.alive(sleeper.process)


@pytest.mark.parametrize("left", [records.NEXT, records.PREVIOUS])
def test_a_start_killed_between_two_writes_does_not_cost_the_serving_process(tmp_path, sleeper, left):
    records.save(tmp_path, sleeper)
    records.save(tmp_path, sleeper.model_copy(update={"name": "fake" + left}))
    end_leftovers("fake", tmp_path, serving=sleeper)
    assert records.names(tmp_path) == ["fake"]
    assert process.alive(sleeper.process)
