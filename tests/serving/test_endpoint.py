"""Real servers of tiny models, and real faults."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, records
from flows.serving.__main__ import main
from flows.serving.ask import ask, curl_line, python_lines
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import Maker, start_endpoint
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint

pytestmark = pytest.mark.end_to_end


def servers_of(folder: Path) -> list[int]:
    """Pids of all processes that have the folder on their command line, whoever has a record of them."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(folder).encode() in words:
                pids.append(int(entry.name))
    return pids


def test_a_started_endpoint_is_healthy_and_known(served, llama, store):
    assert served.state is State.HEALTHY
    assert (served.name, served.model, served.run_id, served.model_uri) == ("shared", str(llama), "run-1", "models/abc")
    assert served.url == f"http://127.0.0.1:{served.port}/v1"
    assert records.load(store / "endpoints", "shared") == served
    assert listing.list_records(store / "endpoints") == [served]
    listed = httpx.get(f"{served.url}/models", trust_env=False).json()["data"]
    assert [model["id"] for model in listed] == [str(llama)]
    environment = Path(f"/proc/{served.process.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in environment
    assert "Uvicorn running on" in Path(served.log).read_text()


def test_python_shell_and_command_line_get_the_same_answer(served, store, capsys):
    question = 'What\'s an "air waybill" & why?'
    reply = ask(served, question, max_tokens=8)
    line = curl_line(served, question, max_tokens=8)
    answered = subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(answered)["choices"][0]["message"]["content"] == reply
    assert json.loads(answered)["usage"]["completion_tokens"] == 8
    folded = curl_line(served, question, max_tokens=8, folded=True)
    again = subprocess.run(folded, shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(again)["choices"] == json.loads(answered)["choices"]
    assert main(["ask", "shared", question, "--max-tokens", "8", "--store", str(store)]) == 0
    assert capsys.readouterr().out == reply + "\n"
    exec(python_lines(served, question, max_tokens=8), {})
    assert capsys.readouterr().out == reply + "\n"


def test_the_list_is_a_table_for_people(served, store):
    command = [sys.executable, "-m", "flows.serving", "list", "--store", str(store)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0].split() == ["NAME", "STATE", "URL", "PROCESS", "SINCE", "MODEL"]
    cells = ["shared", "HEALTHY", served.url, str(served.process.pid), served.started, served.model]
    assert shown[1].split() == cells
    assert shown[3] == f"shared: {State.HEALTHY.words}"


def test_an_unknown_name_gets_the_names_there_are(served, store, capsys):
    for command in (["ask", "nobody", "Hi?"], ["stop", "nobody"]):
        assert main([*command, "--store", str(store)]) == 1
        assert "There is no endpoint 'nobody'" in (message := capsys.readouterr().err)
        assert "There are: shared." in message


def test_the_same_model_again_is_not_started_twice(served, llama, store):
    again = start_endpoint(ServeConfig(name="shared"), llama, store / "endpoints", silent, Maker(run_id="run-2"))
    assert again == served
    assert servers_of(llama) == [served.process.pid]


def test_a_failed_replacement_leaves_the_old_one_serving(served, llama, tmp_path, store):
    shutil.copytree(llama, tmp_path / "broken", ignore=shutil.ignore_patterns("tokenizer*", "special*", "*.jinja"))
    began = time.monotonic()
    with pytest.raises(StartError) as error:
        start_endpoint(ServeConfig(name="shared"), tmp_path / "broken", store / "endpoints", silent)
    assert time.monotonic() - began < 60
    assert error.value.cause is Cause.UNKNOWN_MODEL
    assert any("Unrecognized processing class" in line for line in error.value.log_lines)
    assert "with exit code 1.\nCause: unknown model." in str(error.value)
    assert listing.list_records(store / "endpoints") == [served]
    assert servers_of(tmp_path / "broken") == []


def test_a_budget_that_is_too_short_ends_what_was_started(llama, tmp_path):
    config = ServeConfig(name="hasty", startup_budget_s=1)
    calls = []
    with pytest.raises(StartError, match=r"was not healthy within startup_budget_s=1 s"):
        start_endpoint(config, llama, tmp_path, lambda done, total, note="", /, **_: calls.append((done, total)))
    assert calls
    assert all(0 <= done < total == 1 for done, total in calls)
    assert records.names(tmp_path) == []
    assert not [pid for pid in servers_of(llama) if str(tmp_path) in os.readlink(f"/proc/{pid}/fd/1")]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_start_leaves_no_process_and_no_record(gemma, tmp_path, interruption):
    def interrupt(done, total, note="", /, **_):
        if done > 1:
            assert servers_of(gemma)
            raise interruption

    with pytest.raises(interruption):
        start_endpoint(ServeConfig(name="cut"), gemma, tmp_path, interrupt)
    assert servers_of(gemma) == []
    assert records.names(tmp_path) == []


@pytest.mark.fault(
    "port taken", expected="refused before anything starts, with who has it", action="nothing is started"
)
def test_a_taken_port_is_refused_before_anything_starts(llama, tmp_path, seen):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        seen.begin()
        with pytest.raises(ServingError, match=f"port: {port} on 127.0.0.1 is taken by process {os.getpid()}") as error:
            start_endpoint(ServeConfig(name="taken", port=port), llama, tmp_path, silent)
        seen(error.value)
    assert records.names(tmp_path) == []


@pytest.mark.fault(
    "port taken",
    on="while the model loads",
    expected="FAILED when the process ends, cause `port in use`",
    action="nothing is left running, no record",
)
def test_a_port_lost_while_the_model_loads_is_told(gemma, tmp_path, seen):
    port = process.choose_port(0)
    with socket.socket() as thief:

        def steal(done, total, note="", /, **_):
            if not thief.getsockname()[1]:
                thief.bind(("127.0.0.1", port))
                thief.listen()

        seen.begin()
        with pytest.raises(StartError, match="Cause: port in use") as error:
            start_endpoint(ServeConfig(name="lost", port=port), gemma, tmp_path, steal)
        seen(error.value)
    assert error.value.cause is Cause.PORT_IN_USE
    assert servers_of(gemma) == []


@pytest.mark.fault("wrong path", expected="refused before anything starts, with the path", action="nothing is started")
def test_a_folder_that_is_not_there_is_named(tmp_path, seen):
    seen.begin()
    with pytest.raises(ServingError, match="there is no such folder") as error:
        start_endpoint(ServeConfig(), tmp_path / "none", tmp_path, silent)
    seen(error.value)


def test_life_of_an_endpoint_replaced_stuck_killed_started_again_and_stopped(llama, gemma, tmp_path):
    """One story, so that three servers are started and not ten."""
    folder = tmp_path / "endpoints"
    port = process.choose_port(0)
    config = ServeConfig(name="moving", port=port)
    first = start_endpoint(config, llama, folder, silent)
    assert first.port == port

    # Replaced: until the second is healthy the name and the answers are the first one's.
    seen = []

    def watch(done, total, note="", /, **_):
        if done < total:
            seen.append((records.load(folder, "moving"), ask(first, "Hi?", max_tokens=1)))
            assert {e.name for e in (records.load(folder, n) for n in records.names(folder)) if e} == {
                "moving",
                "moving.next",
            }

    second = start_endpoint(config, gemma, folder, watch)
    assert seen
    assert all(endpoint == first for endpoint, _ in seen)
    assert second.port != port
    assert second.state is State.HEALTHY
    assert not process.alive(first.process)
    assert not process.port_served(port)
    assert listing.list_records(folder) == [second]
    assert start_endpoint(config, gemma, folder, silent) == second

    # Stuck: the process lives, nobody answers.
    os.kill(second.process.pid, signal.SIGSTOP)
    (stuck,) = listing.list_records(folder)
    assert stuck.state is State.UNHEALTHY
    assert "No answer within 5 s" in stuck.why
    os.kill(second.process.pid, signal.SIGCONT)
    assert listing.list_records(folder) == [second]

    # Killed: shown as failed, and a new start serves again, on the wished port.
    os.kill(second.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while process.alive(second.process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [e.state for e in listing.list_records(folder)] == [State.FAILED]
    third = start_endpoint(config, gemma, folder, silent)
    assert (third.port, third.state) == (port, State.HEALTHY)

    # Stopped.
    stopped = stop_endpoint("moving", folder)
    assert stopped is not None
    assert stopped.why == f"Ended process {third.process.pid}."
    assert listing.list_records(folder) == [stopped]
    assert not process.port_served(port)
    assert servers_of(gemma) == []


def test_two_starts_at_once_share_one_server_and_stop_all_ends_it(tmp_path, capsys, gemma, monkeypatch):
    def start(_):
        return start_endpoint(ServeConfig(name="one"), gemma, tmp_path / "endpoints", silent)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(start, range(2))
    assert first == second
    assert servers_of(gemma) == [first.process.pid]

    monkeypatch.setenv("FINETUNE_STORE", str(tmp_path))
    assert main(["stop", "--all"]) == 0
    assert capsys.readouterr().out == f"one: {State.STOPPED.words} Ended process {first.process.pid}.\n"
    assert servers_of(gemma) == []


def test_a_start_that_was_killed_is_cleared_by_the_next(gemma, tmp_path):
    code = (
        "from pathlib import Path; from flows.progress import silent; from flows.serving.config import ServeConfig\n"
        "from flows.serving.promotion import start_endpoint\n"
        f"start_endpoint(ServeConfig(name='again'), Path({str(gemma)!r}), Path({str(tmp_path)!r}), silent)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while records.names(tmp_path) != ["again.next"] and time.monotonic() < deadline:
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    (orphan,) = listing.list_records(tmp_path)
    assert (orphan.name, orphan.state) == ("again.next", State.UNVERIFIED)
    assert servers_of(gemma) == [orphan.process.pid]

    endpoint = start_endpoint(ServeConfig(name="again"), gemma, tmp_path, silent)
    assert servers_of(gemma) == [endpoint.process.pid] != [orphan.process.pid]
    assert listing.list_records(tmp_path) == [endpoint]
    stop_endpoint("again", tmp_path)
